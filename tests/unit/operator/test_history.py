"""The status tells what an experiment went through, and who created it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from shadowfault_operator.decisions import Transition, decide
from shadowfault_operator.model import (
    FINALIZER,
    MOST_TRANSITIONS,
    Phase,
    Status,
    lengthened,
    parse_status,
    status_document,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def history(status: Status) -> list[tuple[str, str, str]]:
    return [(item["phase"], item["reason"], item["time"]) for item in status.transitions]


def moved(scene: Any, status: Status | None, **later: float) -> Status:
    action = decide(scene.view(status), NOW + timedelta(**later), lambda: "generated")
    assert isinstance(action, Transition), action
    return action.status


def test_each_transition_is_there_with_its_time(scene: Any) -> None:
    scene.metadata["finalizers"] = [FINALIZER]
    status = moved(scene, None)
    assert history(status) == [("Pending", "Accepted", "2026-03-01T12:00:00Z")]
    scene.running()
    status = moved(scene, status, seconds=1)
    scene.someone_sets("CHAOS_FAIL_RATE", "0.05")
    status = moved(scene, status, seconds=2)
    scene.target_exists = False
    status = moved(scene, status, seconds=3)
    status = moved(scene, status, seconds=4)
    assert history(status) == [
        ("Pending", "Accepted", "2026-03-01T12:00:00Z"),
        ("Running", "Injected", "2026-03-01T12:00:01Z"),
        ("Running", "RateLowered", "2026-03-01T12:00:02Z"),
        ("Recovering", "TargetGone", "2026-03-01T12:00:03Z"),
        ("Finished", "TargetGone", "2026-03-01T12:00:04Z"),
    ]
    assert parse_status(status_document(status)).transitions == status.transitions


def test_the_oldest_go_first() -> None:
    transitions: tuple[dict[str, Any], ...] = ()
    for number in range(MOST_TRANSITIONS + 5):
        transitions = lengthened(transitions, Phase.PENDING, str(number), NOW)
    assert [item["reason"] for item in transitions] == [str(5 + number) for number in range(MOST_TRANSITIONS)]


def test_a_new_generation_of_what_waits_is_no_transition(scene: Any) -> None:
    scene.spec = {"suspend": True}
    waiting = moved(scene, None)
    scene.metadata["generation"] = 2
    again = moved(scene, waiting, seconds=5)
    assert (again.observed_generation, history(again)) == (2, history(waiting))


def test_who_created_it_is_kept_from_the_first_look_on(scene: Any) -> None:
    scene.spec = {"suspend": True}
    scene.metadata["annotations"] = {"chaos.shadowfault.dev/created-by": "alice"}
    status = moved(scene, None)
    assert status.created_by == "alice"
    assert status_document(status)["createdBy"] == "alice"
    scene.metadata |= {"annotations": {"chaos.shadowfault.dev/created-by": "mallory"}, "generation": 2}
    assert moved(scene, status).created_by == "alice"


def test_where_nobody_says_so_it_is_not_told(scene: Any) -> None:
    scene.spec = {"suspend": True}
    assert status_document(moved(scene, None))["createdBy"] is None


def test_a_history_that_makes_no_sense_is_none() -> None:
    for raw in ("x", [1, None], {"a": 1}):
        assert parse_status({"transitions": raw}).transitions == ()
    assert replace(parse_status({"createdBy": 5}), created_by="").transitions == ()
