"""What an on-call reads: where experiments are and why, what is stuck or overdue, and the halt."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_operator.conditions import Conditions
from shadowfault_operator.durations import format_instant
from shadowfault_operator.halt import LIFTED, UNKNOWN, HaltState
from shadowfault_operator.known import Known
from shadowfault_operator.metrics import STUCK, Metrics
from shadowfault_operator.missed import Missed, Why
from shadowfault_operator.model import Key, Phase, Status
from shadowfault_operator.schedule_metrics import State

if TYPE_CHECKING:
    from shadowfault_operator.model import Experiment

MOMENT = timedelta(seconds=1)


def shown(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Samples by the values of their labels, as they are when somebody scrapes."""
    metrics.exposition()
    return {
        tuple(sample.labels[label] for label in sorted(sample.labels)): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def at(scene: Any, status: Status, now: datetime) -> Metrics:
    known = Known()
    known.update(scene.experiment(status))
    return Metrics(known, lambda: now)


def recovering(scene: Any, since: datetime) -> Status:
    status = scene.running()
    ran = Conditions((), 1, scene.now).of(Phase.RUNNING, "Injected", "")
    ended = Conditions(ran, 1, since).of(Phase.RECOVERING, "Overridden", "")
    return replace(status, phase=Phase.RECOVERING, reason="Overridden", conditions=ended)


def test_by_phase_and_reason(scene: Any) -> None:
    known = Known()
    metrics = Metrics(known)
    first: Experiment = scene.experiment(scene.running())
    known.update(first)
    assert shown(metrics, "shadowfault_experiment_reasons") == {("Running", "Injected"): 1}
    assert shown(metrics, "shadowfault_experiments")[("Running",)] == 1
    refused = replace(first.status, phase=Phase.REFUSED, reason="ProductionNamespace")
    known.update(replace(first.with_status(refused), resource_version="6"))
    # No series of what is over is left behind.
    assert shown(metrics, "shadowfault_experiment_reasons") == {("Refused", "ProductionNamespace"): 1}


def test_one_that_does_not_get_on_is_stuck(scene: Any) -> None:
    recorded = scene.recorded()
    for now, count in ((scene.now + STUCK, 0), (scene.now + STUCK + MOMENT, 1)):
        assert shown(at(scene, recorded, now), "shadowfault_stuck_experiments")[("Pending",)] == count
    since = scene.later(minutes=5)
    ended = recovering(scene, since)
    for now, count in ((since + STUCK, 0), (since + STUCK + MOMENT, 1)):
        assert shown(at(scene, ended, now), "shadowfault_stuck_experiments")[("Recovering",)] == count


def test_one_that_nobody_has_looked_at_is_stuck_as_well(scene: Any) -> None:
    created = datetime.fromisoformat("2026-03-01T11:59:00Z")
    stuck = shown(at(scene, Status(), created + STUCK + MOMENT), "shadowfault_stuck_experiments")
    assert stuck == {("Pending",): 1, ("Recovering",): 0}


@pytest.mark.parametrize(
    "status",
    [
        Status(phase=Phase.PENDING, reason="Suspended"),
        Status(phase=Phase.RUNNING, reason="Injected"),
        Status(phase=Phase.FINISHED, reason="Expired"),
        Status(phase=Phase.REFUSED, reason="Halted"),
    ],
    ids=lambda status: status.phase,
)
def test_one_that_has_come_to_rest_is_not(scene: Any, status: Status) -> None:
    late = at(scene, status, scene.later(days=3))
    assert set(shown(late, "shadowfault_stuck_experiments").values()) == {0}
    assert not late._known.stuck(scene.later(days=9))


@pytest.mark.parametrize("moved", [None, "nonsense", 5])
def test_a_status_that_makes_no_sense_is_counted_from_its_deadline(scene: Any, moved: object) -> None:
    conditions = ({"type": "Ready", "status": "False", "lastTransitionTime": moved},)
    status = replace(recovering(scene, scene.now), conditions=conditions)
    assert status.expires_at is not None
    late = at(scene, status, status.expires_at + STUCK + MOMENT)
    assert shown(late, "shadowfault_stuck_experiments")[("Recovering",)] == 1
    assert format_instant(status.expires_at) == "2026-03-01T12:10:00Z"


def test_overdue_is_what_is_past_its_deadline_and_not_over(scene: Any) -> None:
    running = scene.running()
    for status, seconds in (
        (running, 90),
        (replace(running, phase=Phase.RECOVERING), 90),
        (replace(running, phase=Phase.FINISHED), 0),
        (Status(), 0),
    ):
        late = at(scene, status, scene.later(minutes=10, seconds=90))
        assert shown(late, "shadowfault_overdue_seconds") == {(): seconds}
    assert shown(at(scene, running, scene.now), "shadowfault_overdue_seconds") == {(): 0}


@pytest.mark.parametrize(
    ("halt", "state"),
    [(LIFTED, "lifted"), (HaltState(reason="incident"), "in_force"), (UNKNOWN, "unknown")],
)
def test_the_halt(halt: HaltState, state: str) -> None:
    found = shown(Metrics(Known(), halt=lambda: halt), "shadowfault_halt_state")
    assert found == {(one,): float(one == state) for one in ("lifted", "in_force", "unknown")}


def test_a_schedule_is_shown_from_its_first_look_until_it_is_gone() -> None:
    metrics = Metrics(Known())
    one, other = Key("staging", "nightly"), Key("qa", "hourly")
    last, due = (datetime.fromisoformat(f"2026-03-0{day}T03:00:00Z") for day in (1, 2))
    metrics.schedules.show(one, State.ACTIVE, last, due)
    metrics.schedules.show(other, State.STALLED, None, None)
    states = shown(metrics, "shadowfault_schedules")
    assert states == {("active",): 1, ("suspended",): 0, ("stalled",): 1}
    labels = ("staging", "nightly")
    assert shown(metrics, "shadowfault_schedule_last_timestamp_seconds") == {labels: last.timestamp()}
    assert shown(metrics, "shadowfault_schedule_next_timestamp_seconds") == {labels: due.timestamp()}
    # There before anything is missed: an increase from nothing is none to Prometheus.
    missed = shown(metrics, "shadowfault_schedule_missed_total")
    assert missed == {(key.namespace, why.value, key.name): 0 for key in (one, other) for why in Why}

    metrics.schedules.created(one)
    metrics.schedules.missed(one, Missed(last, Why.HELD, {Why.HELD: 2, Why.TOO_LATE: 1}))
    assert shown(metrics, "shadowfault_schedule_created_total")[labels] == 1
    missed = shown(metrics, "shadowfault_schedule_missed_total")
    assert (missed["staging", "Held", "nightly"], missed["staging", "TooLate", "nightly"]) == (2, 1)

    metrics.schedules.show(one, State.SUSPENDED, last, None)
    assert shown(metrics, "shadowfault_schedule_next_timestamp_seconds") == {}
    metrics.schedules.keep_only([other])
    assert shown(metrics, "shadowfault_schedules") == {("active",): 0, ("suspended",): 0, ("stalled",): 1}
    for name in ("last_timestamp_seconds", "created_total", "missed_total"):
        assert not [key for key in shown(metrics, f"shadowfault_schedule_{name}") if "nightly" in key]
