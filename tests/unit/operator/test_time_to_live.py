"""A finished or refused experiment is deleted when its time after the end is over, and no other."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shadowfault_operator.decisions import Action, Delete, RemoveFinalizer, Rest, decide
from shadowfault_operator.model import FINALIZER, InvalidSpec, Phase, Status, parse_spec
from shadowfault_testing.objects import experiment

FINISHED_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
OVER = Status(phase=Phase.FINISHED, reason="Expired", observed_generation=1, finished_at=FINISHED_AT)


def step(scene: Any, status: Status, seconds: float) -> Action:
    return decide(scene.view(status), FINISHED_AT + timedelta(seconds=seconds), lambda: "generated")


@pytest.mark.parametrize("phase", [Phase.FINISHED, Phase.REFUSED])
@pytest.mark.parametrize(
    ("ttl", "seconds", "expected"),
    [
        (0, 0, Delete()),
        (60, 0, Rest(until=FINISHED_AT + timedelta(seconds=60))),
        (60, 59, Rest(until=FINISHED_AT + timedelta(seconds=60))),
        (60, 60, Delete()),
        (60, 7200, Delete()),
        (2**31 - 1, 60, Rest(until=FINISHED_AT + timedelta(seconds=2**31 - 1))),
        (None, 7200, Rest()),
    ],
)
def test_when_it_is_deleted(
    scene: Any, phase: Phase, ttl: int | None, seconds: float, expected: Action
) -> None:
    scene.spec = {"ttlSecondsAfterFinished": ttl}
    assert step(scene, replace(OVER, phase=phase), seconds) == expected


def test_not_before_its_finalizer_is_gone(scene: Any) -> None:
    scene.spec = {"ttlSecondsAfterFinished": 0}
    scene.metadata["finalizers"] = [FINALIZER]
    assert step(scene, OVER, 60) == RemoveFinalizer()


def test_not_while_it_runs_however_old_it_is(scene: Any) -> None:
    scene.spec = {"ttlSecondsAfterFinished": 0}
    running = replace(scene.running(), finished_at=FINISHED_AT - timedelta(days=1))
    assert isinstance(step(scene, running, 1), Rest)
    assert scene.experiment(running).due_for_deletion is None


def test_not_twice(scene: Any) -> None:
    scene.spec = {"ttlSecondsAfterFinished": 0}
    scene.metadata["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    scene.metadata["finalizers"] = ["example.com/another"]
    assert step(scene, OVER, 60) == Rest()


def test_not_when_nobody_knows_since_when(scene: Any) -> None:
    scene.spec = {"ttlSecondsAfterFinished": 0}
    assert step(scene, replace(OVER, finished_at=None), 60) == Rest()


@pytest.mark.parametrize("ttl", [-1, 2**31, 0.5, "60", True])
def test_a_time_that_makes_no_sense_is_an_invalid_spec(ttl: object) -> None:
    spec = parse_spec(experiment(ttlSecondsAfterFinished=ttl)["spec"])
    assert isinstance(spec, InvalidSpec)
    assert "spec.ttlSecondsAfterFinished" in spec.problem
