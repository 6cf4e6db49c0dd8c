"""A clock that jumps: nothing is put off, and what it has passed is due."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from shadowfault_operator.clock import Clock
from shadowfault_operator.deadlines import Deadlines
from shadowfault_operator.model import Key

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
KEY, OTHER = Key("staging", "a"), Key("staging", "b")


@dataclass
class Time:
    """Both clocks; `jump` moves the wall clock alone."""

    passed: float = 0.0
    offset: timedelta = timedelta(0)
    due: list[Key] = field(default_factory=list)

    def wall(self) -> datetime:
        return START + self.offset + timedelta(seconds=self.passed)

    def steady(self) -> float:
        return self.passed

    def jump(self, **delta: float) -> None:
        self.offset += timedelta(**delta)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def deadlines(time: Time) -> Deadlines:
    return Deadlines(time.due.append, Clock(time.wall, time.steady))


@pytest.mark.parametrize("jump", [0.0, -1.0, -48.0])
def test_a_clock_set_back_puts_no_deadline_off(time: Time, deadlines: Deadlines, jump: float) -> None:
    deadlines.set(KEY, START + timedelta(minutes=10))
    time.jump(hours=jump)
    time.passed = 599
    deadlines.fire()
    assert time.due == []
    time.passed = 600
    deadlines.fire()
    assert time.due == [KEY]


def test_a_deadline_set_after_the_clock_went_back_is_not_put_off(time: Time) -> None:
    clock = Clock(time.wall, time.steady)
    deadlines = Deadlines(time.due.append, clock)
    assert clock.now(KEY) == START
    time.jump(hours=-1)
    deadlines.set(KEY, START + timedelta(minutes=10))
    time.passed = 600
    deadlines.fire()
    assert time.due == [KEY]


def test_a_clock_set_ahead_makes_due_what_it_has_passed(time: Time, deadlines: Deadlines) -> None:
    deadlines.set(KEY, START + timedelta(minutes=10))
    deadlines.set(OTHER, START + timedelta(hours=4))
    time.jump(hours=1)
    deadlines.fire()
    assert time.due == [KEY]


def test_a_deadline_that_is_replaced_or_cleared_does_not_come(time: Time, deadlines: Deadlines) -> None:
    deadlines.set(KEY, START + timedelta(minutes=1))
    deadlines.set(KEY, START + timedelta(minutes=3))
    deadlines.set(OTHER, START + timedelta(minutes=1))
    deadlines.set(OTHER, None)
    time.passed = 120
    deadlines.fire()
    assert time.due == []
    time.passed = 180
    deadlines.fire()
    assert time.due == [KEY]


def test_time_goes_on_for_what_was_seen_before_the_clock_went_back(time: Time) -> None:
    clock = Clock(time.wall, time.steady)
    assert clock.now(KEY) == START
    time.jump(hours=-1)
    time.passed = 60
    assert clock.now(KEY) == START + timedelta(seconds=60)
    assert clock.now(OTHER) == START + timedelta(hours=-1, seconds=60)
    time.jump(hours=3)
    assert clock.now(KEY) == START + timedelta(hours=2, seconds=60)
    clock.forget(KEY)
    clock.forget(OTHER)
    assert len(clock) == 0
