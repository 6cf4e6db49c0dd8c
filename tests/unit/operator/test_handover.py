"""A target in the hands of Argo Rollouts or Flagger is refused, and the hand-over ends a run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from shadowfault_operator.decisions import Transition, decide
from shadowfault_operator.handover import handed_over
from shadowfault_operator.model import Phase, Status
from shadowfault_operator.target import Target
from shadowfault_testing.objects import deployment

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
Json = dict[str, Any]


def owner(api_version: str, kind: str) -> Json:
    return {"ownerReferences": [{"apiVersion": api_version, "kind": kind, "name": "api", "uid": "u"}]}


def scaled(manager: str) -> Json:
    entry = {"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    return {"managedFields": [entry]}


MARKS: list[tuple[Json, str | None]] = [
    (owner("argoproj.io/v1alpha1", "Rollout"), "Argo Rollouts"),
    (owner("flagger.app/v1beta1", "Canary"), "Flagger"),
    (scaled("rollouts-controller"), "Argo Rollouts"),
    (scaled("flagger"), "Flagger"),
    ({"annotations": {"rollout.argoproj.io/workload-generation": "2"}}, "Argo Rollouts"),
    # Nothing of the kind
    ({}, None),
    (owner("example.com/v1", "Rollout"), None),
    (owner("flagger.app/v1beta1", "MetricTemplate"), None),
    (owner("argoproj.io/v1alpha1", "Application"), None),
    (scaled("kubectl"), None),
    (scaled("kube-controller-manager"), None),
    ({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, None),
    ({"managedFields": [{"manager": "flagger", "fieldsV1": {"f:metadata": {"f:labels": {}}}}]}, None),
    ({"managedFields": [{"manager": "flagger"}], "ownerReferences": None, "annotations": None}, None),
]


@pytest.mark.parametrize(("metadata", "holder"), MARKS, ids=str)
def test_the_table_of_marks(metadata: Json, holder: str | None) -> None:
    raw = deployment()
    raw["metadata"] |= metadata
    said = handed_over(Target(raw))
    assert said is None if holder is None else (said or "").startswith(f"{holder}: ")


def moved(scene: Any, status: Status | None) -> Status:
    action = decide(scene.view(status), NOW, lambda: "generated")
    assert isinstance(action, Transition), action
    return action.status


def test_it_is_refused_before_the_start(scene: Any) -> None:
    scene.managed = scaled("flagger")["managedFields"]
    status = moved(scene, None)
    assert (status.phase, status.reason) == (Phase.REFUSED, "TargetHandedOver")


def test_it_ends_a_run_with_its_own_reason_and_not_that_of_its_scaling(scene: Any) -> None:
    running = scene.running()
    scene.managed += scaled("rollouts-controller")["managedFields"]
    scene.deployment = {"replicas": 0}
    status = moved(scene, running)
    assert (status.phase, status.reason) == (Phase.RECOVERING, "TargetHandedOver")
