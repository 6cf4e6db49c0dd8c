"""The operator as a process against the real API server."""

from __future__ import annotations

import secrets
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shadowfault_testing.api import Api, ApiRefusalError, eventually, experiments, schedules
from shadowfault_testing.interposer import Interposer
from shadowfault_testing.operator import Ground, OperatorProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shadowfault_cluster import Cluster

CRDS = sorted((Path(__file__).parents[3] / "crds").glob("chaos*.yaml"))
POLICIES = sorted(CRDS[0].parent.glob("admission-*.yaml"))


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Cluster:
    """The cluster with the CustomResourceDefinition and the admission policies."""
    for manifest in (*CRDS, *POLICIES):
        cluster.kubectl("apply", "-f", str(manifest))
    for crd in CRDS:
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(crd))
    with closing(Api(cluster.kubeconfig)) as api:
        # A 429 until its cache is filled: an operator waits for that, a test that counts requests must not.
        for path in (experiments("-"), schedules("-")):
            eventually(
                "the kind to be served", lambda path=path: _served(api, path.replace("/namespaces/-", ""))
            )
    return cluster


def _served(api: Api, path: str) -> bool:
    try:
        return "items" in api.request("GET", path)
    except ApiRefusalError:
        return False


@contextmanager
def _ground(cluster: Cluster) -> Iterator[Ground]:
    ground = Ground(cluster, f"op-{secrets.token_hex(4)}")
    ground.create_namespace()
    yield ground
    ground.api.close()


@pytest.fixture(scope="module")
def served(
    installed: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Ground, OperatorProcess]]:
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    with _ground(installed) as ground:
        process = OperatorProcess(installed.kubeconfig, ground.namespace, log)
        process.start()
        yield ground, process
    assert process.stop() == 0, log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture
def ground(served: tuple[Ground, OperatorProcess]) -> Ground:
    """A namespace with an operator that all tests of a module share."""
    return served[0]


@pytest.fixture
def operator(served: tuple[Ground, OperatorProcess]) -> OperatorProcess:
    """That operator."""
    return served[1]


@pytest.fixture
def own_ground(installed: Cluster) -> Iterator[Ground]:
    """A namespace of the test's own; nobody serves it before `own_operator` is started."""
    with _ground(installed) as ground:
        yield ground


@pytest.fixture
def own_operator(own_ground: Ground, installed: Cluster, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator of the test's own, to be started, stopped and killed."""
    log = tmp_path / "operator.log"
    process = OperatorProcess(installed.kubeconfig, own_ground.namespace, log)
    yield process
    process.stop()
    # A test that failed before it started one has no log.
    said = log.read_text() if log.exists() else ""
    assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def api(installed: Cluster) -> Iterator[Api]:
    with closing(Api(installed.kubeconfig)) as opened:
        yield opened


@pytest.fixture(scope="module")
def between(installed: Cluster) -> Iterator[Interposer]:
    """An interposer, and no Deployment controller, whose writes would come by chance."""
    installed.stop_component("kube-controller-manager")
    with Interposer(installed.kubeconfig) as interposer:
        yield interposer
    installed.start_component("kube-controller-manager")
