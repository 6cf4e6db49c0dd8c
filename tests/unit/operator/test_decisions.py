"""Decision tables: from what is seen to the one next step."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_operator.decisions import (
    Action,
    AddFinalizer,
    Inject,
    RemoveFinalizer,
    Rest,
    Restore,
    Retry,
    Transition,
    decide,
)
from shadowfault_operator.model import FINALIZER, Phase, Status
from shadowfault_operator.reasons import Reason
from shadowfault_testing.objects import container, owned

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_operator.view import View

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def step(view: View, now: datetime = NOW) -> Action:
    return decide(view, now, lambda: "generated")


def moved(action: Action) -> Status:
    assert isinstance(action, Transition), action
    return action.status


def condition(status: Status, kind: str) -> str:
    return next(item["status"] for item in status.conditions if item["type"] == kind)


# Before anything is injected


def test_the_finalizer_comes_first(scene: Any) -> None:
    assert step(scene.view()) == AddFinalizer()


def test_then_the_record_which_has_to_be_stored(scene: Any) -> None:
    scene.metadata["finalizers"] = [FINALIZER]
    scene.containers[0]["env"] += [
        {"name": "CHAOS_ENABLED", "value": "false"},
        {"name": "CHAOS_SEED", "value": "x"},
    ]
    scene.managed = [owned("helm", ["CHAOS_ENABLED"])]
    action = step(scene.view())
    status = moved(action)
    assert isinstance(action, Transition)
    assert action.required
    assert status.phase is Phase.PENDING
    assert status.expires_at == scene.later(minutes=10)
    assert status.injection is not None
    assert [original.entry for original in status.injection.originals] == [
        {"name": "CHAOS_ENABLED", "value": "false"},
        {"name": "CHAOS_SEED", "value": "x"},
    ]
    assert status.injection.originals[0].managers == {"helm"}
    assert status.injection.environment == {
        "CHAOS_ENABLED": "true",
        "CHAOS_FAIL_RATE": "0.1",
        "CHAOS_SEED": "test",
        "CHAOS_SCOPE": "shadow_write_only",
        "CHAOS_EXPIRES_AT": "2026-03-01T12:10:00Z",
        "CHAOS_EXPERIMENT": "staging/shadow",
        "CHAOS_EXPERIMENT_UID": "experiment-uid",
    }


def test_a_seed_is_generated_where_none_is_given(scene: Any) -> None:
    scene.metadata["finalizers"] = [FINALIZER]
    scene.spec = {"seed": None}
    assert moved(step(scene.view())).seed == "generated"


def test_then_the_injection_tied_to_the_version_that_was_read(scene: Any) -> None:
    action = step(scene.view(scene.recorded()))
    assert isinstance(action, Inject)
    assert action.overlay.apply
    assert action.overlay.body["metadata"]["resourceVersion"] == "7"


def test_an_original_reference_is_overlaid_by_a_strategic_merge(scene: Any) -> None:
    reference = {"configMapKeyRef": {"name": "cm", "key": "k"}}
    scene.containers[0]["env"].append({"name": "CHAOS_FAIL_RATE", "valueFrom": reference})
    action = step(scene.view(scene.recorded()))
    assert isinstance(action, Inject)
    assert not action.overlay.apply
    entries = action.overlay.body["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "CHAOS_FAIL_RATE", "value": "0.1", "valueFrom": None} in entries


def test_then_it_runs_and_rests_until_its_deadline(scene: Any) -> None:
    status = scene.running()
    confirmed = moved(step(scene.view(replace(status, phase=Phase.PENDING))))
    assert (confirmed.phase, confirmed.reason) == (Phase.RUNNING, "Injected")
    assert (condition(confirmed, "Ready"), condition(confirmed, "Injected")) == ("True", "True")
    assert step(scene.view(confirmed)) == Rest(until=scene.later(minutes=10))


def test_suspended_before_the_start_it_waits(scene: Any) -> None:
    scene.spec = {"suspend": True}
    status = moved(step(scene.view()))
    assert (status.phase, status.reason) == (Phase.PENDING, "Suspended")
    assert step(scene.view(status)) == Rest()
    scene.spec = {"suspend": False}
    assert step(scene.view(status)) == AddFinalizer()


def test_suspended_between_the_finalizer_and_the_record_it_is_held_by_nothing(scene: Any) -> None:
    scene.spec = {"suspend": True}
    scene.metadata["finalizers"] = [FINALIZER]
    assert step(scene.view()) == RemoveFinalizer()
    del scene.metadata["finalizers"]
    assert moved(step(scene.view())).reason == "Suspended"


def test_a_refusal_is_final_and_touches_nothing(scene: Any) -> None:
    scene.labels = {}
    status = moved(step(scene.view()))
    assert (status.phase, status.reason) == (Phase.REFUSED, "NamespaceNotAllowed")
    assert (condition(status, "Refused"), condition(status, "Stalled")) == ("True", "True")
    scene.labels = {"chaos.shadowfault.dev/allowed": "true"}
    assert step(scene.view(status)) == Rest()


def test_nets_are_asked_again_between_record_and_injection(scene: Any) -> None:
    status = scene.recorded()
    scene.labels = {}
    refused = moved(step(scene.view(status)))
    assert (refused.phase, refused.injection) == (Phase.REFUSED, None)
    assert step(scene.view(refused)) == RemoveFinalizer()


@pytest.mark.parametrize("unread", ["namespace", "config_maps"])
def test_what_could_not_be_read_injects_nothing(scene: Any, unread: str) -> None:
    for status in (None, scene.recorded()):
        assert isinstance(step(scene.view(status, **{unread: None})), Retry)


def test_deleted_before_the_finalizer_there_is_nothing_to_do(scene: Any) -> None:
    scene.metadata["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    assert step(scene.view()) == Rest()
    scene.metadata["finalizers"] = [FINALIZER]
    assert step(scene.view()) == RemoveFinalizer()


# After a crash between record and injection


def test_an_untouched_target_is_injected(scene: Any) -> None:
    assert isinstance(step(scene.view(scene.recorded())), Inject)


def test_a_target_that_has_moved_on_is_left_alone(scene: Any) -> None:
    """It may have been injected and cleaned by a person since: a person wins."""
    status = scene.recorded()
    view = scene.view(status, target=scene.target(generation=4))
    ended = moved(step(view))
    assert (ended.phase, ended.reason) == (Phase.RECOVERING, "Interrupted")


def test_an_injection_known_to_be_refused_is_recorded_again(scene: Any) -> None:
    status = scene.recorded()
    scene.containers[0]["env"].append({"name": "CHAOS_SEED", "value": "theirs"})
    view = scene.view(status, target=scene.target(generation=4), untouched=True)
    again = moved(step(view))
    assert again.injection is not None
    assert again.injection.target_generation == 4
    assert again.injection.original("CHAOS_SEED") is not None
    assert (again.phase, again.expires_at) == (Phase.PENDING, status.expires_at)
    assert isinstance(step(replace(view, experiment=scene.experiment(again))), Inject)


def test_a_deadline_that_passed_meanwhile_injects_nothing(scene: Any) -> None:
    ended = moved(step(scene.view(scene.recorded()), scene.later(minutes=10)))
    assert (ended.phase, ended.reason) == (Phase.RECOVERING, "Expired")


# Ends


def sets(name: str, value: str | None, by: str = "kubectl-set") -> Callable[[Any], None]:
    return lambda scene: scene.someone_sets(name, value, by=by)


def takes_over(name: str) -> Callable[[Any], None]:
    """An apply by another manager with the very same value: both own it."""
    return lambda scene: scene.managed.append(owned("flux", [name], operation="Apply"))


def put(attribute: str, value: Any) -> Callable[[Any], None]:
    return lambda scene: setattr(scene, attribute, value)


def restarted(scene: Any) -> None:
    template = scene.deployment.setdefault("template", scene.target().raw["spec"]["template"])
    template["metadata"]["annotations"] = {"kubectl.kubernetes.io/restartedAt": "2026-03-01T12:01:00Z"}


def deleting(scene: Any) -> None:
    scene.metadata["deletionTimestamp"] = "2026-03-01T12:00:00Z"


ENDS = [
    (deleting, Reason.DELETED),
    (put("spec", {"suspend": True}), Reason.SUSPENDED),
    (sets("CHAOS_ENABLED", "false"), Reason.OVERRIDDEN),
    (sets("CHAOS_ENABLED", "true"), Reason.OVERRIDDEN),
    (takes_over("CHAOS_ENABLED"), Reason.OVERRIDDEN),
    (sets("CHAOS_FAIL_RATE", "0.2"), Reason.RATE_CHANGED),
    (sets("CHAOS_FAIL_RATE", "much"), Reason.RATE_CHANGED),
    (sets("CHAOS_SEED", "other"), Reason.SEED_CHANGED),
    (sets("CHAOS_SCOPE", "reads"), Reason.SCOPE_CHANGED),
    (sets("CHAOS_EXPIRES_AT", "2099-01-01T00:00:00Z"), Reason.ENVIRONMENT_CHANGED),
    (sets("CHAOS_EXPERIMENT", "staging/x"), Reason.ENVIRONMENT_CHANGED),
    (sets("CHAOS_EXPERIMENT_UID", "x"), Reason.ENVIRONMENT_CHANGED),
    (sets("CHAOS_ENABLED", None), Reason.ENVIRONMENT_REMOVED),
    (sets("CHAOS_SEED", None), Reason.ENVIRONMENT_REMOVED),
    (restarted, Reason.RESTARTED),
    (put("deployment", {"replicas": 0}), Reason.SCALED_TO_ZERO),
    (put("target_exists", False), Reason.TARGET_GONE),
    (put("labels", {}), Reason.NAMESPACE_NOT_ALLOWED),
    (put("labels", {"chaos.shadowfault.dev/allowed": "true", "env": "prod"}), Reason.PRODUCTION_NAMESPACE),
    (lambda scene: scene.someone_sets("NODE_ENV", "production"), Reason.PRODUCTION_TARGET),
    (put("spec", {"rate": 7}), Reason.INVALID_SPEC),
]


@pytest.mark.parametrize(
    ("bend", "reason"), ENDS, ids=[f"{reason.title}-{n}" for n, (_, reason) in enumerate(ENDS)]
)
def test_what_ends_a_run(scene: Any, bend: Callable[[Any], None], reason: Reason) -> None:
    status = scene.running()
    assert isinstance(step(scene.view(status)), Rest)
    bend(scene)
    ended = moved(step(scene.view(status)))
    assert (ended.phase, ended.reason) == (Phase.RECOVERING, reason.title)
    assert condition(ended, "Reconciling") == "True"


def test_the_deadline_ends_a_run_to_the_second(scene: Any) -> None:
    status = scene.running()
    assert isinstance(step(scene.view(status), scene.later(minutes=9, seconds=59.9)), Rest)
    assert moved(step(scene.view(status), scene.later(minutes=10))).reason == "Expired"


def test_a_deadline_that_cannot_be_read_has_passed(scene: Any) -> None:
    assert moved(step(scene.view(replace(scene.running(), expires_at=None)))).reason == "Expired"


def test_an_end_that_was_asked_for_needs_nothing_of_the_surroundings(scene: Any) -> None:
    status = scene.running()
    view = scene.view(status, namespace=None, config_maps=None)
    assert isinstance(step(view), Rest)
    assert moved(step(view, scene.later(minutes=10))).reason == "Expired"


def test_a_recreated_target_is_another_one(scene: Any) -> None:
    status = scene.running()
    view = scene.view(status)
    view.target.raw["metadata"]["uid"] = "later-uid"
    ended = moved(step(view))
    assert ended.reason == "TargetRecreated"
    assert moved(step(replace(view, experiment=scene.experiment(ended)))).phase is Phase.FINISHED


def test_pods_that_do_not_become_ready_end_a_run_once_the_rollout_is_ours(scene: Any) -> None:
    status = scene.running()
    view = scene.view(status)
    progressing = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    view.target.raw["status"] = {"observedGeneration": 2, "conditions": [progressing]}
    assert isinstance(step(view), Rest)
    view.target.raw["status"]["observedGeneration"] = 3
    assert moved(step(view)).reason == "PodsNotReady"


@pytest.mark.parametrize("rate", ["0.05", "0", "", "0.1"])
def test_a_lowered_rate_is_honoured(scene: Any, rate: str) -> None:
    status = scene.running()
    scene.someone_sets("CHAOS_FAIL_RATE", rate)
    action = step(scene.view(status))
    if rate == "0.1":
        assert isinstance(action, Rest)
        return
    lowered = moved(action)
    assert (lowered.phase, lowered.effective_rate) == (Phase.RUNNING, float(rate or 0))
    assert isinstance(step(scene.view(lowered)), Rest)


def test_raised_again_to_the_experiments_own_rate_it_still_runs(scene: Any) -> None:
    status = scene.running()
    scene.someone_sets("CHAOS_FAIL_RATE", "0.05")
    status = moved(step(scene.view(status)))
    scene.someone_sets("CHAOS_FAIL_RATE", "0.1")
    assert moved(step(scene.view(status))).effective_rate == 0.1


# Recovery


def test_a_lost_status_is_read_off_the_target(scene: Any) -> None:
    scene.running()
    ended = moved(step(scene.view(Status())))
    assert (ended.phase, ended.reason) == (Phase.RECOVERING, "RecordLost")
    assert isinstance(step(scene.view(ended)), Restore)


def test_a_running_one_with_neither_record_nor_environment_is_over(scene: Any) -> None:
    scene.metadata["finalizers"] = [FINALIZER]
    ended = moved(step(scene.view(Status(phase=Phase.RUNNING, expires_at=scene.later(minutes=1)))))
    assert ended.reason == "RecordLost"


def test_a_final_phase_written_by_hand_leaves_nothing_behind(scene: Any) -> None:
    status = replace(scene.running(), phase=Phase.FINISHED)
    assert moved(step(scene.view(status))).phase is Phase.RECOVERING


def test_recovery_then_finished_then_the_finalizer(scene: Any) -> None:
    status = replace(scene.running(), phase=Phase.RECOVERING, reason="Expired")
    restore = step(scene.view(status))
    assert isinstance(restore, Restore)
    scene.containers[0]["env"] = [{"name": "NODE_ENV", "value": "staging"}]
    scene.managed.clear()
    finished = moved(step(scene.view(status)))
    assert (finished.phase, finished.reason, finished.finished_at) == (Phase.FINISHED, "Expired", NOW)
    assert (condition(finished, "Ready"), condition(finished, "Recovered")) == ("True", "True")
    assert step(scene.view(finished)) == RemoveFinalizer()
    scene.metadata["finalizers"] = []
    assert step(scene.view(finished)) == Rest(ask=True)


def test_one_patch_restores_everything_and_lets_go(scene: Any) -> None:
    reference = {"name": "CHAOS_SEED", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}
    scene.containers[0]["env"] += [
        reference,
        {"name": "CHAOS_ENABLED", "value": "false"},
        {"name": "CHAOS_SCOPE"},
    ]
    scene.managed = [owned("helm", ["CHAOS_SEED", "CHAOS_ENABLED"])]
    status = replace(scene.running(), phase=Phase.RECOVERING)
    scene.someone_sets("CHAOS_FAIL_RATE", "0.05")
    restore = step(scene.view(status))
    assert isinstance(restore, Restore)
    assert restore.body["metadata"]["resourceVersion"] == "7"
    assert {item["manager"] for item in restore.body["metadata"]["managedFields"]} == {"helm", "kubectl-set"}
    assert restore.body["spec"]["template"]["spec"]["containers"] == [
        {
            "name": "api",
            "env": [
                {"name": "CHAOS_SEED", "value": None, "valueFrom": reference["valueFrom"]},
                {"name": "CHAOS_ENABLED", "value": "false", "valueFrom": None},
                {"name": "CHAOS_SCOPE", "value": None, "valueFrom": None},
                {"$patch": "delete", "name": "CHAOS_EXPIRES_AT"},
                {"$patch": "delete", "name": "CHAOS_EXPERIMENT"},
                {"$patch": "delete", "name": "CHAOS_EXPERIMENT_UID"},
            ],
        }
    ]


def test_what_a_later_experiment_has_there_is_left_alone(scene: Any) -> None:
    status = replace(scene.running(), phase=Phase.RECOVERING)
    env = {entry["name"]: entry for entry in scene.containers[0]["env"]}
    env["CHAOS_EXPERIMENT_UID"]["value"] = "later-uid"
    assert moved(step(scene.view(status))).phase is Phase.FINISHED


def test_an_ownerless_target_is_told_by_its_values(scene: Any) -> None:
    """Someone has cleared managedFields: what still has our values is ours."""
    status = scene.running()
    scene.managed.clear()
    assert isinstance(step(scene.view(status)), Rest)
    restore = step(scene.view(replace(status, phase=Phase.RECOVERING)))
    assert isinstance(restore, Restore)
    assert len(restore.body["spec"]["template"]["spec"]["containers"][0]["env"]) == 7


def test_a_container_that_is_gone_needs_no_patch(scene: Any) -> None:
    status = scene.running()
    scene.containers[:] = [container("renamed")]
    scene.managed.clear()
    ended = moved(step(scene.view(status)))
    assert ended.reason == "EnvironmentRemoved"
    assert moved(step(scene.view(ended))).phase is Phase.FINISHED


def test_the_status_follows_the_spec_after_the_end(scene: Any) -> None:
    scene.metadata["generation"] = 2
    finished = Status(phase=Phase.FINISHED, observed_generation=1)
    assert moved(step(scene.view(finished))).observed_generation == 2
