"""A dry run on a real API server: everything is shown and nothing is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shadowfault_testing.api import eventually

if TYPE_CHECKING:
    from shadowfault_testing.operator import Ground, OperatorProcess

pytestmark = pytest.mark.cluster

ENV = [{"name": "NODE_ENV", "value": "staging"}]


def test_it_shows_the_patch_touches_nothing_and_is_in_nobodys_way(ground: Ground) -> None:
    target = ground.deploy(env=ENV)
    before = ground.target(target)["spec"]
    name = ground.start(target, dryRun=True)
    status = ground.await_phase(name, "Finished", "DryRun")
    assert {entry["name"] for entry in status["preview"]["env"]} >= {"CHAOS_ENABLED", "CHAOS_EXPIRES_AT"}
    assert status["preview"]["refusals"] == []
    assert "injected" not in status
    assert ground.target(target)["spec"] == before
    assert ground.generation(target) == 1
    assert "shadowfault" not in ground.managers(target)
    found = ground.experiment(name)
    assert found is not None
    # An entry of managedFields would tell of a finalizer that was there for a moment.
    assert "f:finalizers" not in str(found["metadata"]["managedFields"])
    ground.kubectl("wait", "--for=condition=Ready", f"chaosexperiment/{name}", "--timeout=5s")
    eventually("the Event", lambda: ground.events(name) == ["DryRun"])
    ground.delete(ground.run(target))


def test_it_is_refused_as_the_real_one_would_be_and_names_every_net(
    ground: Ground, operator: OperatorProcess
) -> None:
    target = ground.deploy(env=[{"name": "NODE_ENV", "value": "production"}], replicas=0)
    name = ground.start(target, dryRun=True)
    status = ground.await_phase(name, "Refused", "ProductionTarget")
    reasons = [item["reason"] for item in status["preview"]["refusals"]]
    assert reasons == ["ProductionTarget", "TargetWithoutReplicas"]
    ground.kubectl("wait", "--for=condition=Refused", f"chaosexperiment/{name}", "--timeout=5s")
    assert operator.metric('shadowfault_refusals_total{reason="ProductionTarget"}') == 0
    assert operator.metric('shadowfault_recoveries_total{reason="DryRun"}') == 0


def test_a_run_that_has_the_target_is_named(ground: Ground) -> None:
    target = ground.deploy(env=ENV)
    running = ground.run(target)
    status = ground.await_phase(ground.start(target, dryRun=True), "Refused", "TargetBusy")
    assert running in str(status["preview"]["refusals"])
    assert ground.status(running)["phase"] == "Running"
    ground.delete(running)
