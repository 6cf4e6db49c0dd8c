"""The target is handed to Argo Rollouts or Flagger, by what these leave on it on a real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shadowfault_testing.api import MERGE, deployments, eventually

if TYPE_CHECKING:
    from shadowfault_testing.objects import Json
    from shadowfault_testing.operator import Ground

pytestmark = pytest.mark.cluster

ENV = [{"name": "NODE_ENV", "value": "staging"}]
CANARY = {"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "api", "uid": "7b1c9d3e"}
ROLLOUT = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "api", "uid": "7b1c9d3f"}
# What is written, and by which program.
HANDS: dict[str, tuple[Json, str]] = {
    "flagger scales it to zero": ({"spec": {"replicas": 0}}, "flagger"),
    "argo scales it to zero": ({"spec": {"replicas": 0}}, "rollouts-controller"),
    "argo scales it down step by step": ({"spec": {"replicas": 1}}, "rollouts-controller"),
    "argo notes it": (
        {"metadata": {"annotations": {"rollout.argoproj.io/workload-generation": "2"}}},
        "rollouts-controller",
    ),
    "a canary owns it": ({"metadata": {"ownerReferences": [CANARY]}}, "flagger"),
    "a rollout owns it": ({"metadata": {"ownerReferences": [ROLLOUT]}}, "someone"),
}


def hand_over(ground: Ground, target: str, hands: str) -> None:
    body, manager = HANDS[hands]
    ground.api.request(
        "PATCH", f"{deployments(ground.namespace, target)}?fieldManager={manager}", body, MERGE
    )


@pytest.mark.parametrize("hands", HANDS)
def test_it_ends_a_run_and_what_they_set_stays(ground: Ground, hands: str) -> None:
    target = ground.deploy(env=ENV, replicas=2)
    name = ground.run(target)
    hand_over(ground, target, hands)
    ground.await_phase(name, "Finished", "TargetHandedOver")
    assert ground.env(target) == {"NODE_ENV": {"value": "staging"}}
    assert ground.target(target)["spec"]["replicas"] == HANDS[hands][0].get("spec", {}).get("replicas", 2)
    eventually("the Event", lambda: "TargetHandedOver" in ground.events(name))


def test_a_target_in_such_hands_is_refused(ground: Ground) -> None:
    target = ground.deploy(env=ENV, replicas=2)
    hand_over(ground, target, "argo scales it down step by step")
    status = ground.await_phase(ground.start(target), "Refused", "TargetHandedOver")
    assert "rollouts-controller" in status["message"]
    assert ground.managers(target) & {"shadowfault", "shadowfault-restore"} == set()
