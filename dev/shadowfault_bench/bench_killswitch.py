"""From `kubectl delete` returning to the last injected fault on any of ten replicas, at a rate of 1.0.

Under load. Both times are of one machine's clock: the fault's is in its evidence record. A negative figure
means that the last fault came before the delete had even returned. Beside it stands what the rollout, which
is the guarantee, takes to be through.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from shadowfault_bench.harness import Bound
from shadowfault_cluster import Cluster
from shadowfault_demo import ground
from shadowfault_demo.traffic import SteadyTraffic
from shadowfault_demo.waiting import until

if TYPE_CHECKING:
    from shadowfault_bench.harness import Bench
    from shadowfault_demo.observe import Staging

_REPLICAS: Final = 10
_CLIENTS: Final = 4
_NAME: Final = "killed"


def run(bench: Bench) -> None:
    """Measure the kill switch on a local cluster of its own."""
    replicas = bench.size(_REPLICAS, least=2)
    bench.say(f"a local cluster with the operator and {replicas} replicas of the service")
    with Cluster.start(on_progress=bench.say) as cluster:
        ground.install_crds(cluster)
        ground.install_operator(cluster)
        staging = ground.install_service(cluster)
        cluster.kubectl("-n", ground.NAMESPACE, "scale", "deployment/api", f"--replicas={replicas}")
        ground.await_rollouts(cluster)
        last, rollout = [], []
        for number in range(bench.rounds):
            fault, restored = _kill(cluster, staging, number)
            last.append(fault)
            rollout.append(restored)
            bench.say(
                f"round {number + 1} of {bench.rounds}: last fault {fault:+.2f} s, rollout {restored:.1f} s"
            )
    bench.figure(
        f"last fault after kubectl delete returned, {replicas} replicas", last, "s", Bound("at most", 1.0)
    )
    bench.figure("restored pods ready after kubectl delete returned", rollout, "s")


def _kill(cluster: Cluster, staging: Staging, number: int) -> tuple[float, float]:
    cluster.kubectl("apply", "-f", "-", input=ground.experiment(_NAME, rate="1.0", seed=f"bench-{number}"))
    until("the experiment to run", lambda: _phase(staging) == "Running", seconds=60)
    ground.await_rollout(cluster, ground.NAMESPACE, "api")
    address = staging.service_address()
    with ExitStack() as clients:
        for client in range(_CLIENTS):
            clients.enter_context(SteadyTraffic(address, f"bench-{number}-{client}", pause=0.005))
        until("faults under load", lambda: staging.last_injected_at() is not None, seconds=30)
        cluster.kubectl("-n", ground.NAMESPACE, "delete", "chaosexperiment", _NAME)
        returned, began = datetime.now(UTC), time.monotonic()
        ground.await_rollout(cluster, ground.NAMESPACE, "api")
        restored = time.monotonic() - began
    until("an empty outbox", lambda: staging.outbox_pending() == 0, seconds=60)
    last = staging.last_injected_at()
    if last is None:
        raise AssertionError("faults were seen, and evidence of none is left")
    return (last - returned).total_seconds(), restored


def _phase(staging: Staging) -> str | None:
    found = staging.find("chaosexperiment", _NAME) or {}
    return (found.get("status") or {}).get("phase")
