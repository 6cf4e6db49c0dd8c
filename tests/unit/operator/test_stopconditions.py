"""What ends a run by its target's metrics, and how they are counted over pods that come, go and restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_operator.decisions import Action, Rest, Transition, decide
from shadowfault_operator.model import (
    InvalidSpec,
    Phase,
    Status,
    StopConditions,
    parse_spec,
    parse_status,
    status_document,
)
from shadowfault_operator.reasons import Reason
from shadowfault_operator.stopconditions import (
    STEADY,
    Availability,
    Figures,
    Observation,
    Reading,
    Steady,
    Tally,
    availability,
    judge,
)

DEFAULTS = StopConditions()


@pytest.mark.parametrize(
    ("limits", "figures", "message"),
    [
        ({}, Figures(), None),
        ({}, Figures(19, 19), None),
        (
            {},
            Figures(20, 2),
            "primaryErrorRatio is 0.1 (2 of 20 primary writes), above its limit of 0.05",
        ),
        ({}, Figures(20, 1), None),
        ({}, Figures(100, 5), None),
        (
            {},
            Figures(100, 6),
            "primaryErrorRatio is 0.06 (6 of 100 primary writes), above its limit of 0.05",
        ),
        (
            {"primaryErrorRatio": 0, "minimumRequests": 1},
            Figures(1, 1),
            "primaryErrorRatio is 1 (1 of 1 primary writes), above its limit of 0",
        ),
        ({"primaryErrorRatio": 1}, Figures(100, 100), None),
        ({"disabled": ["primaryErrorRatio"]}, Figures(100, 100), None),
        ({}, Figures(unexplained=1), "unexplainedDiscrepancies is 1, above its limit of 0"),
        ({"unexplainedDiscrepancies": 1}, Figures(unexplained=1), None),
        ({"disabled": ["unexplainedDiscrepancies"]}, Figures(unexplained=9), None),
        ({}, Figures(shadow_failures=10**6), None),
        ({"shadowFailures": 10}, Figures(shadow_failures=10), None),
        (
            {"shadowFailures": 10},
            Figures(shadow_failures=11),
            "shadowFailures is 11, above its limit of 10",
        ),
        ({"shadowFailures": 0}, Figures(shadow_failures=1), "shadowFailures is 1, above its limit of 0"),
    ],
)
def test_a_value_above_its_limit_ends_a_run(
    limits: dict[str, Any], figures: Figures, message: str | None
) -> None:
    met = judge(StopConditions.model_validate(limits), figures)
    assert (met and met.message) == message
    assert met is None or met.reason is Reason.STOP_CONDITION_MET


@pytest.mark.parametrize(
    "conditions",
    [
        {"primaryErrorRatio": 1.1},
        {"primaryErrorRatio": "0.1"},
        {"minimumRequests": 0},
        {"unexplainedDiscrepancies": -1},
        {"shadowFailures": 0.5},
        {"disabled": ["everything"]},
        "none",
    ],
)
def test_conditions_that_make_no_sense_are_an_invalid_spec(conditions: object) -> None:
    sound = {"targetRef": {"name": "api"}, "rate": 0.1, "duration": "1m"}
    assert isinstance(parse_spec({**sound, "stopConditions": conditions}), InvalidSpec)


# Counting


def test_a_restart_adds_and_a_pod_that_is_gone_keeps_its_part() -> None:
    tally = Tally()
    for readings in (
        {"a": Reading(10, 1, 5), "b": Reading(4, 0, 2)},
        {"a": Reading(3, 2, 0)},  # began anew, though its errors are more than before
        {"a": Reading(5, 2, 1), "c": Reading(1, 0, 0)},
        {},
    ):
        tally = tally.add(readings)
    assert tally.figures() == Figures(primary_writes=20, primary_errors=3, shadow_failures=8)


def test_unexplained_discrepancies_are_those_on_top_of_what_was_there() -> None:
    tally = Tally()
    found = []
    # All pods read one database, one of them a moment later than the other.
    for values in ((3, 3), (3, 4), (4, 4), (1, 1), (2, None), (None, None)):
        readings = {f"pod-{n}": Reading(unexplained=value) for n, value in enumerate(values)}
        tally = tally.add(readings)
        found.append(tally.figures().unexplained)
    assert found == [0, 1, 1, 0, 1, 1]


def test_what_was_there_is_known_after_a_restart_of_the_operator() -> None:
    assert Tally(baseline=3).add({"a": Reading(unexplained=5)}).figures().unexplained == 2


_Step = st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.sampled_from(["go on", "restart", "vanish"]))


@given(st.lists(st.tuples(st.lists(_Step, max_size=6), st.booleans()), max_size=12))
def test_counted_is_never_more_than_has_happened_and_never_less_than_was_seen(
    looks: list[tuple[list[tuple[str, int, str]], bool]],
) -> None:
    """`looks` are what happens between two of them, and whether all pods answer then."""
    happened, exact = 0, True
    pods: dict[str, int] = {}
    generation = dict.fromkeys("abc", 0)
    tally, seen_last = Tally(), 0
    readings: dict[str, Reading] = {}
    for steps, answered in looks:
        for name, writes, then in steps:
            uid = f"{name}{generation[name]}"
            pods[uid] = pods.get(uid, 0) + writes
            happened += writes
            # What nobody saw before it was gone is lost, as is a restart that soon shows as much as before.
            if then == "restart":
                exact &= pods[uid] == 0
                pods[uid] = 0
            elif then == "vanish":
                exact &= pods.pop(uid) == (readings.get(uid, Reading(0)).primary_writes or 0)
                generation[name] += 1
        if answered:
            readings = {uid: Reading(count, 0, 0) for uid, count in pods.items()}
        tally = tally.add(readings if answered else {})
        counted = tally.figures().primary_writes
        assert seen_last <= counted <= happened
        assert counted >= sum(reading.primary_writes or 0 for reading in readings.values())
        if answered and exact:
            assert counted == happened
        seen_last = counted


@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=3), max_size=20))
def test_unexplained_is_never_negative_and_never_more_than_is_open(looks: list[list[int]]) -> None:
    tally = Tally()
    for values in looks:
        tally = tally.add({str(n): Reading(unexplained=value) for n, value in enumerate(values)})
        assert 0 <= tally.figures().unexplained <= max(values)


# Whether metrics can be read


def seen(readings: dict[str, Reading], failures: dict[str, str] | None = None, **limits: Any) -> Any:
    return availability(StopConditions.model_validate(limits), readings, failures or {})


ALL = Reading(1, 0, 0, 0)


@pytest.mark.parametrize(
    ("verdict", "reason", "part"),
    [
        (seen({"a": ALL}), Reason.METRICS_READ, ""),
        (seen({"a": ALL}, {"b": "unreachable"}), Reason.METRICS_UNAVAILABLE, "1 of 2 pods"),
        (seen({}, {"b": "malformed"}), Reason.METRICS_UNAVAILABLE, "malformed"),
        (seen({"a": Reading(unexplained=0)}), Reason.METRICS_MISSING, "primaryErrorRatio"),
        (seen({"a": Reading(unexplained=0)}, disabled=["primaryErrorRatio"]), Reason.METRICS_READ, ""),
        (seen({"a": replace(ALL, shadow_failures=None)}), Reason.METRICS_READ, ""),
        (seen({"a": replace(ALL, shadow_failures=None)}, shadowFailures=1), Reason.METRICS_MISSING, "shadow"),
    ],
)
def test_what_cannot_be_judged_is_said(verdict: Availability, reason: Reason, part: str) -> None:
    assert verdict.reason is reason
    assert verdict.available is (reason is Reason.METRICS_READ)
    assert part in verdict.message


def test_where_no_pod_is_there_nothing_is_said() -> None:
    assert seen({}) is None


GOOD, BAD = seen({"a": ALL}), seen({}, {"a": "unreachable"})


def test_what_comes_and_goes_is_not_said_each_time() -> None:
    steady = Steady().next(None).next(GOOD)
    assert steady.held is GOOD
    for verdict in (BAD, GOOD, BAD, BAD, None, GOOD, GOOD):
        steady = steady.next(verdict)
        assert steady.held is GOOD
    for _ in range(STEADY):
        assert steady.held is GOOD
        steady = steady.next(BAD)
    assert steady.held is BAD
    for _ in range(STEADY):
        assert steady.held is BAD
        steady = steady.next(GOOD)
    assert steady.held is GOOD


@given(st.lists(st.sampled_from([GOOD, BAD, None]), max_size=60))
def test_it_changes_at_most_once_in_so_many_looks(verdicts: list[Availability | None]) -> None:
    steady, changes = Steady(), 0
    for verdict in verdicts:
        after = steady.next(verdict)
        changes += after.held is not steady.held
        steady = after
    assert changes <= 1 + len(verdicts) // STEADY


# In a decision


def look(scene: Any, status: Status, observation: Observation | None) -> Action:
    return decide(scene.view(status, observation=observation), scene.now, lambda: "seed")


def metrics_condition(status: Status) -> tuple[str, str]:
    found = [item for item in status.conditions if item["type"] == "MetricsAvailable"]
    assert len(found) == 1
    return found[0]["status"], found[0]["reason"]


def test_a_run_ends_by_what_its_target_says(scene: Any) -> None:
    status = scene.running()
    assert look(scene, status, Observation(Figures(100, 1))) == Rest(until=scene.later(minutes=10))
    action = look(scene, status, Observation(Figures(100, 50)))
    assert isinstance(action, Transition)
    assert (action.status.phase, action.status.reason) == (Phase.RECOVERING, "StopConditionMet")
    assert "50 of 100" in action.status.message
    assert action.announce is not None
    assert action.announce.reason is Reason.STOP_CONDITION_MET


def test_only_a_run_is_judged(scene: Any) -> None:
    bad = Observation(Figures(100, 100))
    recorded = scene.recorded()
    assert not isinstance(look(scene, recorded, bad), Transition)
    recovering = replace(scene.running(), phase=Phase.RECOVERING, reason="Expired")
    action = look(scene, recovering, bad)
    assert not isinstance(action, Transition) or action.status.reason == "Expired"


def test_a_person_comes_first(scene: Any) -> None:
    status = scene.running()
    scene.someone_sets("CHAOS_ENABLED", "false")
    action = look(scene, status, Observation(Figures(100, 100)))
    assert isinstance(action, Transition)
    assert action.status.reason == "Overridden"


def test_that_metrics_can_be_read_is_written_once_with_what_was_there_before(scene: Any) -> None:
    status = scene.running()
    action = look(scene, status, Observation(availability=GOOD, baseline=4))
    assert isinstance(action, Transition)
    assert action.announce is None
    assert metrics_condition(action.status) == ("True", "MetricsRead")
    stored = parse_status(status_document(action.status))
    assert stored.unexplained_baseline == 4
    # Fewer are open by now: what was there at the start stays on record, and nothing is written.
    for later in (Observation(availability=GOOD, baseline=2), Observation(availability=GOOD), None):
        assert isinstance(look(scene, stored, later), Rest)


def test_that_they_cannot_be_read_is_a_condition_and_an_event_and_no_end(scene: Any) -> None:
    status = scene.running()
    action = look(scene, status, Observation(availability=BAD))
    assert isinstance(action, Transition)
    assert action.status.phase is Phase.RUNNING
    assert metrics_condition(action.status) == ("False", "MetricsUnavailable")
    assert action.announce is not None
    assert action.announce.reason is Reason.METRICS_UNAVAILABLE
    # The same with other numbers is not written again.
    more = seen({}, {"a": "unreachable", "b": "malformed"})
    assert isinstance(look(scene, action.status, Observation(availability=more)), Rest)
    again = look(scene, action.status, Observation(availability=GOOD))
    assert isinstance(again, Transition)
    assert metrics_condition(again.status) == ("True", "MetricsRead")
    assert again.announce is not None


def test_the_condition_stays_through_the_end(scene: Any) -> None:
    status = scene.running()
    action = look(scene, status, Observation(availability=BAD))
    assert isinstance(action, Transition)
    ended = decide(scene.view(action.status), scene.later(minutes=11), lambda: "seed")
    assert isinstance(ended, Transition)
    assert metrics_condition(ended.status) == ("False", "MetricsUnavailable")
