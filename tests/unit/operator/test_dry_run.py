"""A dry run shows what would be done, and does nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shadowfault_operator.decisions import Action, Rest, Transition, decide
from shadowfault_operator.known import Known
from shadowfault_operator.model import Phase, Status, parse_experiment, status_document
from shadowfault_testing.objects import experiment

if TYPE_CHECKING:
    from shadowfault_operator.view import View

NOW = datetime(2026, 3, 1, 12, 0, 0, 123, tzinfo=UTC)


def step(view: View) -> Action:
    return decide(view, NOW, lambda: "generated")


def moved(action: Action) -> Status:
    assert isinstance(action, Transition), action
    return action.status


def test_it_shows_the_patch_and_is_over(scene: Any) -> None:
    scene.spec = {"dryRun": True}
    scene.containers[0]["env"].append(
        {"name": "CHAOS_SEED", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    )
    status = moved(step(scene.view()))
    assert (status.phase, status.reason, status.injection) == (Phase.FINISHED, "DryRun", None)
    assert status.finished_at == NOW.replace(microsecond=0)
    assert status.preview is not None
    variables = {entry["name"]: entry["value"] for entry in status.preview["env"]}
    assert variables == {
        "CHAOS_ENABLED": "true",
        "CHAOS_FAIL_RATE": "0.1",
        "CHAOS_SEED": "test",
        "CHAOS_SCOPE": "shadow_write_only",
        "CHAOS_EXPIRES_AT": "2026-03-01T12:10:00Z",
        "CHAOS_EXPERIMENT": "staging/shadow",
        "CHAOS_EXPERIMENT_UID": "experiment-uid",
    }
    assert status.preview["target"] == {"kind": "Deployment", "name": "api"}
    assert status.preview["container"] == "api"
    assert status.preview["replaces"] == ["CHAOS_SEED"]
    assert status.preview["refusals"] == []
    assert "secretKeyRef" not in str(status_document(status))
    # Over: nothing follows, and so no finalizer and no patch came before.
    assert step(scene.view(status)) == Rest()


def test_every_net_that_would_refuse_is_named(scene: Any) -> None:
    scene.spec = {"dryRun": True}
    scene.namespace, scene.labels = "prod", {}
    scene.deployment = {"replicas": 0, "paused": True}
    status = moved(step(scene.view()))
    assert (status.phase, status.reason) == (Phase.REFUSED, "ProductionNamespace")
    assert status.preview is not None
    assert [item["reason"] for item in status.preview["refusals"]] == [
        "ProductionNamespace",
        "NamespaceNotAllowed",
        "TargetPaused",
        "TargetWithoutReplicas",
    ]


def test_without_a_target_there_is_nothing_to_show_but_the_refusal(scene: Any) -> None:
    scene.spec, scene.target_exists = {"dryRun": True}, False
    status = moved(step(scene.view()))
    assert status.preview is not None
    assert set(status.preview) == {"refusals"}
    assert status.reason == "TargetNotFound"


def test_a_status_that_claims_a_record_does_not_make_it_inject(scene: Any) -> None:
    recorded = scene.recorded()
    scene.metadata.pop("finalizers")
    scene.spec = {"dryRun": True}
    assert moved(step(scene.view(recorded))).reason == "DryRun"


def test_it_takes_the_target_from_nobody(scene: Any) -> None:
    raw = experiment("dry", dryRun=True)
    raw["metadata"] |= {
        "namespace": scene.namespace,
        "uid": "dry-uid",
        "resourceVersion": "4",
        "creationTimestamp": "2026-03-01T11:58:00Z",
    }
    known = Known()
    known.update(parse_experiment(raw))
    assert known.rivals(scene.experiment()) == ()
    raw["metadata"]["resourceVersion"] = "5"
    raw["spec"]["dryRun"] = False
    known.update(parse_experiment(raw))
    assert [rival.name for rival in known.rivals(scene.experiment())] == ["dry"]


def test_one_that_is_suspended_waits(scene: Any) -> None:
    scene.spec = {"dryRun": True, "suspend": True}
    assert moved(step(scene.view())).reason == "Suspended"


def test_what_cannot_be_read_is_asked_for_again(scene: Any) -> None:
    scene.spec = {"dryRun": True}
    assert not isinstance(step(replace(scene.view(), namespace=None)), Transition)
