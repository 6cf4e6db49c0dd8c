"""What no experiment stands behind is found at the start and every so often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shadowfault_testing.api import MERGE, eventually, experiments
from shadowfault_testing.operator import OperatorProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shadowfault_cluster import Cluster
    from shadowfault_testing.operator import Ground

pytestmark = pytest.mark.cluster


@pytest.fixture
def own_operator(own_ground: Ground, installed: Cluster, tmp_path: Path) -> Iterator[OperatorProcess]:
    """One that sweeps every second."""
    log = tmp_path / "operator.log"
    process = OperatorProcess(installed.kubeconfig, own_ground.namespace, log, SHADOWFAULT_RESYNC_SECONDS="1")
    yield process
    process.stop()
    assert "Traceback" not in log.read_text(), log.read_text()


def abandon(ground: Ground, name: str) -> None:
    """Take an experiment away without its finalizer: what must never be done, done by hand."""
    path = experiments(ground.namespace, name)
    ground.api.request("DELETE", path)
    ground.api.request("PATCH", path, {"metadata": {"finalizers": []}}, MERGE)
    eventually("it to be gone", lambda: ground.experiment(name) is None)


def test_what_is_left_of_an_experiment_is_taken_out(
    own_ground: Ground, own_operator: OperatorProcess
) -> None:
    own_operator.start()
    target, kept = own_ground.deploy(), own_ground.deploy()
    before = own_ground.target(target)["spec"]
    lost, running = own_ground.run(target), own_ground.run(kept)
    own_operator.stop()
    abandon(own_ground, lost)
    assert "CHAOS_ENABLED" in own_ground.env(target)

    own_operator.start()
    eventually("what is left to be gone", lambda: own_ground.target(target)["spec"] == before)
    assert not {"shadowfault", "shadowfault-restore"} & own_ground.managers(target)
    assert own_operator.metric('shadowfault_orphans_total{result="removed"}') == 1
    # What an experiment stands behind is none of its business.
    assert own_ground.generation(kept) == 2
    own_ground.delete(running)


def test_what_is_left_later_on_is_found_by_and_by(own_ground: Ground, own_operator: OperatorProcess) -> None:
    own_operator.start()
    target = own_ground.deploy()
    before = own_ground.target(target)["spec"]
    # As an experiment would have it there that is gone without a trace.
    left = {"CHAOS_ENABLED": "true", "CHAOS_EXPERIMENT_UID": "of-nobody"}
    own_ground.apply_env(
        target, "shadowfault", [{"name": name, "value": value} for name, value in left.items()]
    )
    eventually("what is left to be gone", lambda: own_ground.target(target)["spec"] == before)
    assert own_operator.metric('shadowfault_orphans_total{result="removed"}') == 1


def test_chaos_that_people_switch_on_is_counted_and_left_alone(
    own_ground: Ground, own_operator: OperatorProcess
) -> None:
    own_operator.start()
    target = own_ground.deploy()
    own_ground.kubectl("set", "env", f"deployment/{target}", "CHAOS_ENABLED=true")
    labels = f'deployment="{target}",namespace="{own_ground.namespace}"'
    sample = f"shadowfault_unmanaged_chaos{{{labels}}}"
    eventually("it to be counted", lambda: own_operator.metric(sample) == 1)
    own_ground.kubectl("set", "env", f"deployment/{target}", "CHAOS_ENABLED=false")
    eventually("it to be counted no more", lambda: own_operator.metric(sample) == 0)
    assert own_ground.generation(target) == 3
