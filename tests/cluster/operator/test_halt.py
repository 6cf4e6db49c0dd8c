"""The global halt, by the command and by kubectl, under the operator's own rights and without them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from shadowfault_testing.api import eventually
from shadowfault_testing.interposer import UNHINDERED, Answer
from shadowfault_testing.operator import OperatorProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shadowfault_cluster import Cluster
    from shadowfault_testing.interposer import Interposer, Request, Verdict
    from shadowfault_testing.operator import Ground

pytestmark = pytest.mark.cluster


@pytest.fixture
def own_operator(own_ground: Ground, installed: Cluster, tmp_path: Path) -> Iterator[OperatorProcess]:
    """One that lives in the test's own namespace, so that its halt is nobody else's."""
    log = tmp_path / "operator.log"
    process = OperatorProcess(
        installed.kubeconfig, own_ground.namespace, log, POD_NAMESPACE=own_ground.namespace
    )
    process.start()
    yield process
    process.stop()
    assert "Traceback" not in log.read_text(), log.read_text()


def halt(ground: Ground, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "shadowfault_cli", "halt", "--namespace", ground.namespace, *arguments],
        env={"KUBECONFIG": str(ground.cluster.kubeconfig), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_everything_that_runs_ends_and_nothing_begins(
    own_ground: Ground, own_operator: OperatorProcess
) -> None:
    targets = [own_ground.deploy() for _ in range(3)]
    before = [own_ground.target(target)["spec"] for target in targets]
    names = [own_ground.run(target) for target in targets]
    halt(own_ground, "--reason", "incident 7")
    for name in names:
        assert "incident 7" in own_ground.await_phase(name, "Finished")["conditions"][0]["message"]
        assert own_ground.status(name)["reason"] == "Halted"
        told = ["Accepted", "Halted", "Injected", "Recovered"]
        eventually("its Events", lambda name=name, told=told: own_ground.run_events(name) == told)
    assert [own_ground.target(target)["spec"] for target in targets] == before

    refused = own_ground.start(targets[0])
    own_ground.await_phase(refused, "Refused", "Halted")

    assert "lifted" in halt(own_ground, "--lift")
    assert "there was none" in halt(own_ground, "--lift")

    def begun() -> str | None:
        # The operator sees the lifting a moment later than we do.
        name = own_ground.start(targets[1])
        phase = eventually(f"{name} to be decided", lambda: own_ground.status(name).get("phase"))
        return name if phase != "Refused" else None

    own_ground.await_phase(eventually("an experiment to begin again", begun), "Running", "Injected")
    assert own_operator.get("/healthz")


def test_by_kubectl(own_ground: Ground, own_operator: OperatorProcess) -> None:
    name = own_ground.run(own_ground.deploy())
    own_ground.kubectl("create", "configmap", "shadowfault-halt", "--from-literal=halt=true")
    own_ground.await_phase(name, "Finished", "Halted")
    assert own_operator.metric('shadowfault_recoveries_total{reason="Halted"}') == 1


def test_one_that_can_no_longer_be_read_ends_what_runs(
    own_ground: Ground, between: Interposer, tmp_path: Path
) -> None:
    def unreadable(request: Request) -> Verdict:
        of_the_halt = "shadowfault-halt" in request.query.get("fieldSelector", "")
        return Answer(403, "Forbidden") if of_the_halt else UNHINDERED

    kubeconfig = between.write_kubeconfig(tmp_path / "kubeconfig")
    namespace = own_ground.namespace
    process = OperatorProcess(kubeconfig, namespace, tmp_path / "operator.log", POD_NAMESPACE=namespace)
    process.start()
    try:
        name = own_ground.run(own_ground.deploy())
        between.obey(unreadable)
        # A watch that was granted lasts; it is when it has to be asked for again that nobody can tell.
        between.cut()
        between.mend()
        status = own_ground.await_phase(name, "Finished", "Halted")
        assert "cannot be read" in status["conditions"][0]["message"]
    finally:
        process.stop()
