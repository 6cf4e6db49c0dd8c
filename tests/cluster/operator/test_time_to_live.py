"""spec.ttlSecondsAfterFinished on a real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shadowfault_testing.api import deployments, eventually
from shadowfault_testing.objects import container, deployment

if TYPE_CHECKING:
    from shadowfault_testing.operator import Ground, OperatorProcess

pytestmark = pytest.mark.cluster

ENV = [{"name": "NODE_ENV", "value": "staging"}]


def deployed_without_pods(ground: Ground) -> str:
    """A target where nobody can be asked for the account: its pods' service account does not exist."""
    name = ground.name("api")
    body = deployment(name, containers=[container(env=ENV)])
    body["spec"]["template"]["spec"]["serviceAccountName"] = "nobody"
    ground.api.request("POST", deployments(ground.namespace), body)
    return name


def test_zero_deletes_at_once_and_the_target_is_restored(ground: Ground) -> None:
    target = deployed_without_pods(ground)
    name = ground.start(target, duration="2s", ttlSecondsAfterFinished=0)
    ground.await_gone(name)
    assert ground.env(target) == {"NODE_ENV": {"value": "staging"}}
    # The verdict came first.
    said = {"Accepted", "Injected", "Expired", "Recovered", "VerdictInconclusive"}
    assert set(ground.events(name)) == said


def test_a_refused_one_goes_too(ground: Ground) -> None:
    name = ground.start("nothing-of-that-name", ttlSecondsAfterFinished=1)
    ground.await_phase(name, "Refused", "TargetNotFound")
    ground.await_gone(name)


def test_set_afterwards_it_counts_from_the_end(ground: Ground) -> None:
    name = ground.start("nothing-of-that-name", ttlSecondsAfterFinished=3600)
    ground.await_phase(name, "Refused", "TargetNotFound")
    ground.set_spec(name, ttlSecondsAfterFinished=None)
    generation = (ground.experiment(name) or {})["metadata"]["generation"]
    eventually("the spec to be seen", lambda: ground.status(name)["observedGeneration"] == generation)
    ground.set_spec(name, ttlSecondsAfterFinished=0)
    ground.await_gone(name)


def test_it_survives_a_restart(own_ground: Ground, own_operator: OperatorProcess) -> None:
    own_operator.start()
    name = own_ground.start("nothing-of-that-name", ttlSecondsAfterFinished=3600)
    own_ground.await_phase(name, "Refused", "TargetNotFound")
    own_operator.stop()
    # Due long before the next one starts, whenever that is.
    own_ground.set_spec(name, ttlSecondsAfterFinished=0)
    own_operator.start()
    own_ground.await_gone(name)
