"""What happens to the cluster itself under a running experiment, on a cluster that no other test uses."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shadowfault_cluster import Cluster
from shadowfault_testing.api import ApiRefusalError, eventually, experiments
from shadowfault_testing.objects import experiment
from shadowfault_testing.operator import Ground, OperatorProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.cluster

CRD = Path(__file__).parents[3] / "crds" / "chaosexperiments.yaml"
ORIGINAL = [{"name": "CHAOS_ENABLED", "value": "false"}]


@pytest.fixture(scope="module")
def shifting() -> Iterator[Cluster]:
    with Cluster.start() as cluster:
        yield cluster


@pytest.fixture
def own_ground(shifting: Cluster) -> Iterator[Ground]:
    shifting.kubectl("apply", "-f", str(CRD))
    shifting.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRD))
    ground = Ground(shifting, f"shift-{secrets.token_hex(4)}")
    ground.create_namespace()
    yield ground
    ground.api.close()


@pytest.fixture
def own_operator(own_ground: Ground, shifting: Cluster, tmp_path: Path) -> Iterator[OperatorProcess]:
    log = tmp_path / "operator.log"
    process = OperatorProcess(shifting.kubeconfig, own_ground.namespace, log)
    yield process
    assert process.stop() == 0, log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()


def test_the_definition_is_deleted(own_ground: Ground, own_operator: OperatorProcess) -> None:
    """Every object goes first, and each waits for its restoration; a definition that comes back works."""
    own_operator.start()
    target = own_ground.deploy(env=ORIGINAL)
    before = own_ground.target(target)["spec"]
    own_ground.run(target)
    own_ground.cluster.kubectl("delete", "-f", str(CRD), "--timeout=60s")
    assert own_ground.target(target)["spec"] == before
    own_ground.cluster.kubectl("apply", "-f", str(CRD))
    own_ground.cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRD))

    def accepted() -> str | None:
        try:
            return own_ground.start(target)
        except ApiRefusalError:  # the API server needs a moment to serve a kind it has just taken
            return None

    name = eventually("the kind to be served again", accepted)
    own_ground.await_phase(name, "Running")
    own_ground.delete(name)
    assert own_ground.target(target)["spec"] == before


def test_the_api_server_restarts_past_the_deadline(own_ground: Ground, own_operator: OperatorProcess) -> None:
    own_operator.start()
    target = own_ground.deploy(env=ORIGINAL)
    before = own_ground.target(target)["spec"]
    name = own_ground.run(target, duration="4s")
    expires_at = datetime.fromisoformat(own_ground.status(name)["expiresAt"])
    # An Event follows what it tells of: killed between the two, the API server never hears of it.
    eventually("its Event", lambda: "Injected" in own_ground.events(name))
    own_ground.cluster.stop_component("kube-apiserver", kill=True)
    eventually("the deadline", lambda: datetime.now(UTC) > expires_at)
    own_ground.cluster.start_component("kube-apiserver")
    own_ground.await_phase(name, "Finished", "Expired")
    assert own_ground.target(target)["spec"] == before
    told = ["Accepted", "Expired", "Injected", "Recovered"]
    eventually("its Events", lambda: own_ground.run_events(name) == told)
    assert own_operator.get("/healthz")


def test_deleted_before_anyone_looked(own_ground: Ground, own_operator: OperatorProcess) -> None:
    """There is no finalizer yet, so it is gone at once; the operator finds nothing to do."""
    target = own_ground.deploy(env=ORIGINAL)
    name = own_ground.start(target)
    own_ground.api.request("DELETE", experiments(own_ground.namespace, name))
    assert own_ground.experiment(name) is None
    own_operator.start()
    other = own_ground.run(own_ground.deploy())
    assert own_ground.events(name) == []
    assert own_ground.generation(target) == 1
    own_ground.delete(other)


def test_deleted_while_it_is_being_injected(own_ground: Ground, own_operator: OperatorProcess) -> None:
    """Wherever the delete falls between the requests of the injection, nothing stays."""
    own_operator.start()
    targets = [own_ground.deploy(env=ORIGINAL) for _ in range(12)]
    before = [own_ground.target(target)["spec"] for target in targets]
    names = []
    for target in targets:
        name = own_ground.name("shadow")
        own_ground.api.request("POST", experiments(own_ground.namespace), experiment(name, target=target))
        own_ground.api.request("DELETE", experiments(own_ground.namespace, name))
        names.append(name)
    for name in names:
        eventually(f"{name} to be gone", lambda name=name: own_ground.experiment(name) is None)
    assert [own_ground.target(target)["spec"] for target in targets] == before
