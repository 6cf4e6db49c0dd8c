"""The verdict: when it is due, what it is asked from, what it is, and what of it stays."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault.account import Account
from shadowfault_operator.decisions import RemoveFinalizer, Rest, Transition, decide
from shadowfault_operator.known import Known
from shadowfault_operator.model import FINALIZER, Experiment, Phase, Status, parse_status, status_document
from shadowfault_operator.reasons import EventType
from shadowfault_operator.verdict import Finding, Result, judge

if TYPE_CHECKING:
    from shadowfault_operator.view import View

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
GOOD = Account("experiment-uid", 12, 13, {"missing_in_shadow": 12}, 12, 0, 0, 100)


def finished(scene: Any) -> Status:
    """Restored and released."""
    status = replace(scene.running(), phase=Phase.FINISHED, reason="Expired", finished_at=NOW)
    scene.containers[0]["env"] = [{"name": "NODE_ENV", "value": "staging"}]
    scene.managed.clear()
    scene.metadata["finalizers"] = []
    return status


def step(view: View) -> Any:
    return decide(view, NOW, lambda: "generated")


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({}, Finding.ALL_EXPLAINED),
        ({"primary_errors": None, "primary_requests": None}, Finding.ALL_EXPLAINED),
        ({"unexplained": 1}, Finding.UNEXPLAINED),
        ({"unexplained": 1, "primary_errors": 1}, Finding.UNEXPLAINED),
        ({"unexplained": 1, "injected": 0}, Finding.UNEXPLAINED),
        ({"primary_errors": 1}, Finding.PRIMARY_ERRORS),
        ({"primary_errors": 1, "primary_requests": None}, Finding.PRIMARY_ERRORS),
        ({"primary_errors": 1, "injected": 0}, Finding.PRIMARY_ERRORS),
        ({"injected": 0}, Finding.NOTHING_INJECTED),
        (
            {"injected": 0, "shadow_failures": 0, "discrepancies": {}, "explained": 0},
            Finding.NOTHING_INJECTED,
        ),
    ],
)
def test_the_verdict_on_an_account(change: dict[str, Any], finding: Finding) -> None:
    account = replace(GOOD, **change)
    verdict = judge(account, NOW)
    assert (verdict.result, verdict.reason) == (finding.result, finding.title)
    assert verdict.account == account
    unknown = "primary errors: unknown" in verdict.message
    assert unknown == (account.primary_errors is None)


def test_without_an_account_it_is_inconclusive() -> None:
    without = set(Finding) - {Finding.ALL_EXPLAINED, Finding.UNEXPLAINED, Finding.PRIMARY_ERRORS}
    for finding in without:
        assert judge(finding, NOW).result is Result.INCONCLUSIVE
    assert len({finding.title for finding in Finding}) == len(Finding)


COUNTS = st.integers(0, 2**53 - 1)


@given(
    st.builds(
        Account,
        st.just("experiment-uid"),
        COUNTS,
        COUNTS,
        st.dictionaries(st.sampled_from(["missing_in_shadow", "data_mismatch"]), COUNTS),
        COUNTS,
        COUNTS,
        st.none() | COUNTS,
        st.none() | COUNTS,
    )
)
def test_passed_means_that_something_was_tested_and_nothing_is_open(account: Account) -> None:
    verdict = judge(account, NOW)
    clean = not account.unexplained and not account.primary_errors
    assert (verdict.result is Result.FAILED) == (not clean)
    assert (verdict.result is Result.PASSED) == (clean and account.injected > 0)
    # As it is stored: a merge patch drops every null.
    document = status_document(Status(verdict=verdict))["verdict"]
    document["account"] = {name: value for name, value in document["account"].items() if value is not None}
    read = parse_status({"verdict": json.loads(json.dumps(document))}).verdict
    assert read == replace(verdict, account=replace(account, experiment_uid=""))


@pytest.mark.parametrize(
    "damage", [{"result": "Splendid"}, {"result": None}, {"time": "soon"}, {"reason": None}, None]
)
def test_a_verdict_that_makes_no_sense_is_none(damage: dict[str, Any] | None) -> None:
    document = status_document(Status(verdict=judge(GOOD, NOW)))["verdict"]
    assert parse_status({"verdict": document and damage and document | damage}).verdict is None


def test_figures_that_make_no_sense_cost_the_figures_only() -> None:
    document = status_document(Status(verdict=judge(GOOD, NOW)))["verdict"] | {"account": {"injected": -1}}
    verdict = parse_status({"verdict": document}).verdict
    assert verdict is not None
    assert (verdict.result, verdict.account) == (Result.PASSED, None)


# When it is due


def test_it_is_asked_for_after_the_finalizer_is_gone_and_not_before(scene: Any) -> None:
    status = finished(scene)
    scene.metadata["finalizers"] = [FINALIZER]
    assert step(scene.view(status, answer=GOOD)) == RemoveFinalizer()
    scene.metadata["finalizers"] = []
    assert step(scene.view(status)) == Rest(ask=True)


def test_what_is_about_to_go_is_not_judged(scene: Any) -> None:
    status = finished(scene)
    scene.metadata |= {"deletionTimestamp": "2026-03-01T12:00:00Z", "finalizers": ["someone/else"]}
    assert step(scene.view(status, answer=GOOD)) == Rest()


@pytest.mark.parametrize("phase", [Phase.RECOVERING, Phase.RUNNING])
def test_a_run_that_goes_on_is_not_judged(scene: Any, phase: Phase) -> None:
    status = replace(scene.running(), phase=phase)
    action = step(scene.view(status, answer=GOOD))
    assert not isinstance(action, Transition)
    assert action != Rest(ask=True)


def test_what_never_ran_is_not_judged(scene: Any) -> None:
    assert step(scene.view(Status(phase=Phase.REFUSED, observed_generation=1), answer=GOOD)) == Rest()


@pytest.mark.parametrize(
    ("answer", "result", "condition", "event"),
    [
        (GOOD, Result.PASSED, "True", EventType.NORMAL),
        (replace(GOOD, unexplained=2), Result.FAILED, "False", EventType.WARNING),
        (Finding.UNREACHABLE, Result.INCONCLUSIVE, "Unknown", EventType.NORMAL),
    ],
)
def test_an_answer_becomes_a_verdict_a_condition_and_an_event_once(
    scene: Any, answer: Account | Finding, result: Result, condition: str, event: EventType
) -> None:
    action = step(scene.view(finished(scene), answer=answer))
    assert isinstance(action, Transition)
    assert not action.required
    assert action.announce is not None
    assert (action.announce.reason.title, action.announce.reason.event_type) == (f"Verdict{result}", event)
    status = action.status
    assert status.phase is Phase.FINISHED
    assert status.verdict is not None
    assert status.verdict.result is result
    (found,) = [item for item in status.conditions if item["type"] == "Verdict"]
    assert (found["status"], found["reason"]) == (condition, status.verdict.reason)
    assert step(scene.view(status, answer=answer)) == Rest()
    # A schema that is older than verdicts keeps the condition only.
    assert step(scene.view(replace(status, verdict=None), answer=answer)) == Rest()


def test_kstatus_sees_the_same_before_and_after(scene: Any) -> None:
    recovered = replace(finished(scene), phase=Phase.RECOVERING)
    status = step(scene.view(recovered)).status
    judged = step(scene.view(status, answer=replace(GOOD, unexplained=1))).status
    assert judged.conditions[: len(status.conditions)] == status.conditions


def test_without_a_target_nobody_is_asked(scene: Any) -> None:
    status = finished(scene)
    scene.target_exists = False
    verdict = step(scene.view(status)).status.verdict
    assert (verdict.result, verdict.reason) == (Result.INCONCLUSIVE, "TargetGone")


def test_what_ends_once_more_is_judged_once_more(scene: Any) -> None:
    judged = step(scene.view(finished(scene), answer=GOOD)).status
    scene.running()
    again = step(scene.view(judged))
    assert again.status.phase is Phase.RECOVERING
    assert again.status.verdict is None
    assert not any(item["type"] == "Verdict" for item in again.status.conditions)


def test_one_without_a_verdict_is_taken_up_again_after_a_restart(scene: Any) -> None:
    status = finished(scene)

    def unsettled(experiment: Experiment) -> bool:
        known = Known()
        known.update(experiment)
        return bool(known.unsettled())

    assert unsettled(scene.experiment(status))
    assert not unsettled(scene.experiment(step(scene.view(status, answer=GOOD)).status))
    assert not unsettled(scene.experiment(Status(phase=Phase.REFUSED)))
