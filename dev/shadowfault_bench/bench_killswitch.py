"""From a kill switch returning to the last injected fault on any of ten replicas, at rate 1.0 and under load.

The switches: `kubectl delete` of the experiment, and the global halt set by `kubectl`. Both times are of one
machine's clock: the fault's is in its evidence record. A negative figure means that the last fault came
before the command had even returned. Beside it stands what the rollout, which is the guarantee, takes to be
through.
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
    from collections.abc import Sequence

    from shadowfault_bench.harness import Bench
    from shadowfault_demo.observe import Staging

_REPLICAS: Final = 10
_CLIENTS: Final = 4
_NAME: Final = "killed"
_HALT: Final = "shadowfault-halt"
_SWITCHES: Final = {
    "kubectl delete": ("-n", ground.NAMESPACE, "delete", "chaosexperiment", _NAME),
    "the halt": (
        *("-n", ground.OPERATOR_NAMESPACE, "create", "configmap", _HALT),
        *("--from-literal=halt=true", "--from-literal=reason=bench"),
    ),
}


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
        for switch, command in _SWITCHES.items():
            last, rollout = [], []
            for number in range(bench.rounds):
                fault, restored = _kill(cluster, staging, f"{switch} {number}".replace(" ", "-"), command)
                last.append(fault)
                rollout.append(restored)
                bench.say(
                    f"{switch}, round {number + 1} of {bench.rounds}: "
                    f"last fault {fault:+.2f} s, rollout {restored:.1f} s"
                )
            what = f"last fault after {switch} returned, {replicas} replicas"
            bench.figure(what, last, "s", Bound("at most", 1.0))
            bench.figure(f"restored pods ready after {switch} returned", rollout, "s")


def _kill(cluster: Cluster, staging: Staging, run: str, command: Sequence[str]) -> tuple[float, float]:
    until("the experiment to run", lambda: _started(cluster, staging, run), seconds=90)
    ground.await_rollout(cluster, ground.NAMESPACE, "api")
    address, earlier = staging.service_address(), staging.last_injected_at()
    with ExitStack() as clients:
        for client in range(_CLIENTS):
            clients.enter_context(SteadyTraffic(address, f"{run}-{client}", pause=0.005))
        until("faults under load", lambda: staging.last_injected_at() != earlier, seconds=30)
        cluster.kubectl(*command)
        returned, began = datetime.now(UTC), time.monotonic()
        ground.await_rollout(cluster, ground.NAMESPACE, "api")
        restored = time.monotonic() - began
    until("an empty outbox", lambda: staging.outbox_pending() == 0, seconds=60)
    last = staging.last_injected_at()
    if last is None:
        raise AssertionError("faults were seen, and evidence of none is left")
    cluster.kubectl("-n", ground.OPERATOR_NAMESPACE, "delete", "configmap", _HALT, "--ignore-not-found")
    cluster.kubectl("-n", ground.NAMESPACE, "delete", "chaosexperiment", _NAME, "--ignore-not-found")
    return (last - returned).total_seconds(), restored


def _started(cluster: Cluster, staging: Staging, run: str) -> bool:
    """Start it; one that was refused, for a halt the operator had yet to see lifted, is taken away again."""
    cluster.kubectl("apply", "-f", "-", input=ground.experiment(_NAME, rate="1.0", seed=run))
    until("a decision", lambda: _phase(staging) in {"Running", "Refused"}, seconds=60)
    if _phase(staging) == "Running":
        return True
    cluster.kubectl("-n", ground.NAMESPACE, "delete", "chaosexperiment", _NAME)
    return False


def _phase(staging: Staging) -> str | None:
    found = staging.find("chaosexperiment", _NAME) or {}
    return (found.get("status") or {}).get("phase")
