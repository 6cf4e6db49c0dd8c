"""The operator goes away and comes back: what it had begun is continued, and nothing is begun twice."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from shadowfault_testing.api import deployments, eventually, experiments
from shadowfault_testing.operator import OperatorProcess

if TYPE_CHECKING:
    from pathlib import Path

    from shadowfault_testing.operator import Ground

pytestmark = pytest.mark.cluster

STOPS = [signal.SIGTERM, signal.SIGKILL]


@pytest.mark.parametrize("stop", STOPS)
def test_a_run_goes_on_after_a_restart(
    own_ground: Ground, own_operator: OperatorProcess, stop: signal.Signals
) -> None:
    own_operator.start()
    target = own_ground.deploy(env=[{"name": "CHAOS_ENABLED", "value": "false"}])
    before = own_ground.target(target)["spec"]
    name = own_ground.run(target)
    status, generation = own_ground.status(name), own_ground.generation(target)
    own_operator.stop(stop)
    own_operator.start()
    assert own_ground.status(name) == status
    assert own_ground.generation(target) == generation
    own_ground.delete(name)
    assert own_ground.target(target)["spec"] == before
    assert own_ground.events(name) == ["Accepted", "Deleted", "Injected", "Recovered"]


@pytest.mark.parametrize("stop", STOPS)
def test_what_expired_meanwhile_is_restored_at_once(
    own_ground: Ground, own_operator: OperatorProcess, stop: signal.Signals
) -> None:
    own_operator.start()
    target = own_ground.deploy()
    name = own_ground.run(target, duration="8s")
    own_operator.stop(stop)
    expires_at = datetime.fromisoformat(own_ground.status(name)["expiresAt"])
    eventually("the deadline", lambda: datetime.now(UTC) > expires_at)
    assert "CHAOS_ENABLED" in own_ground.env(target)
    own_operator.start()
    own_ground.await_phase(name, "Finished", "Expired")
    assert own_ground.env(target) == {}


def test_what_was_deleted_meanwhile_waits_for_its_restoration(
    own_ground: Ground, own_operator: OperatorProcess
) -> None:
    own_operator.start()
    target = own_ground.deploy()
    name = own_ground.run(target)
    own_operator.stop(signal.SIGKILL)
    own_ground.api.request("DELETE", experiments(own_ground.namespace, name))
    assert (own_ground.experiment(name) or {})["metadata"]["deletionTimestamp"]
    assert "CHAOS_ENABLED" in own_ground.env(target)
    own_operator.start()
    eventually("it to be gone", lambda: own_ground.experiment(name) is None)
    assert own_ground.env(target) == {}


def test_what_a_person_did_meanwhile_is_honoured(own_ground: Ground, own_operator: OperatorProcess) -> None:
    own_operator.start()
    target = own_ground.deploy()
    name = own_ground.run(target)
    own_operator.stop(signal.SIGKILL)
    own_ground.kubectl("set", "env", f"deployment/{target}", "CHAOS_ENABLED=false")
    own_operator.start()
    own_ground.await_phase(name, "Finished", "Overridden")
    assert own_ground.env(target) == {"CHAOS_ENABLED": {"value": "false"}}


def test_a_target_deleted_meanwhile(own_ground: Ground, own_operator: OperatorProcess) -> None:
    own_operator.start()
    target = own_ground.deploy()
    name = own_ground.run(target)
    own_operator.stop()
    own_ground.api.request("DELETE", deployments(own_ground.namespace, target))
    own_operator.start()
    own_ground.await_phase(name, "Finished", "TargetGone")


def test_a_crash_between_record_and_injection(own_ground: Ground, own_operator: OperatorProcess) -> None:
    """The status of a run, put under an experiment whose target was not touched: as the crash leaves it."""
    own_operator.start()
    target = own_ground.deploy(env=[{"name": "CHAOS_ENABLED", "value": "false"}])
    donor = own_ground.run(target)
    status = own_ground.status(donor)
    own_ground.delete(donor)
    own_operator.stop()
    name = own_ground.start(target)
    uid = (own_ground.experiment(name) or {})["metadata"]["uid"]
    for entry in status["injected"][0]["env"]:
        entry["value"] = {
            "CHAOS_EXPERIMENT_UID": uid,
            "CHAOS_EXPERIMENT": f"{own_ground.namespace}/{name}",
        }.get(entry["name"], entry["value"])
    status["target"]["generation"] = own_ground.generation(target)
    own_ground.set_status(name, status | {"phase": "Pending", "reason": "Accepted"})
    own_operator.start()
    running = own_ground.await_phase(name, "Running")
    assert running["expiresAt"] == status["expiresAt"]
    assert own_ground.env(target)["CHAOS_EXPERIMENT_UID"] == {"value": uid}
    own_ground.delete(name)
    assert own_ground.env(target) == {"CHAOS_ENABLED": {"value": "false"}}


def test_no_cluster_to_connect_to_is_said_and_not_retried(tmp_path: Path, own_ground: Ground) -> None:
    process = OperatorProcess(tmp_path / "absent", own_ground.namespace, tmp_path / "operator.log")
    with pytest.raises(AssertionError, match="no cluster to connect to"):
        process.start()
    assert process.stop() == 2
