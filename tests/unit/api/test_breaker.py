"""The circuit breaker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_api.shadow.breaker import BreakerState, CircuitBreaker

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(3, 5.0, clock=clock)


def test_it_opens_at_the_third_failure_in_a_row(breaker: CircuitBreaker) -> None:
    for _ in range(2):
        breaker.failed()
        assert breaker.state is CLOSED
    breaker.failed()
    assert breaker.state is OPEN


def test_a_success_between_starts_the_count_anew(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        breaker.failed()
        breaker.failed()
        breaker.succeeded()
    assert breaker.state is CLOSED


def test_one_probe_is_due_after_the_reset_and_no_second_beside_it(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    breaker.trip()
    clock.now += 4.9
    assert not breaker.begin_probe()
    clock.now += 0.1
    assert breaker.begin_probe()
    assert breaker.state is HALF_OPEN
    assert not breaker.closed
    assert not breaker.begin_probe()


def test_a_probe_that_fails_opens_it_for_another_reset(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.trip()
    clock.now += 5
    assert breaker.begin_probe()
    breaker.failed()
    assert breaker.state is OPEN
    clock.now += 4.9
    assert not breaker.begin_probe()
    clock.now += 0.1
    assert breaker.begin_probe()
    breaker.succeeded()
    assert breaker.state is CLOSED
    breaker.failed()
    assert breaker.state is CLOSED


def test_answered_it_is_on_probation_until_a_call_works(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.answered()
    breaker.failed()
    assert breaker.state is CLOSED, "an answer while it is closed takes nothing away"
    breaker.trip()
    clock.now += 5
    assert breaker.begin_probe()
    breaker.answered()
    assert breaker.state is CLOSED
    breaker.failed()
    assert breaker.state is OPEN
    clock.now += 5
    assert breaker.begin_probe()
    breaker.answered()
    breaker.succeeded()
    breaker.failed()
    assert breaker.state is CLOSED


def test_a_late_success_of_an_older_call_does_not_close_it(breaker: CircuitBreaker) -> None:
    breaker.trip()
    breaker.succeeded()
    assert breaker.state is OPEN


@given(st.lists(st.sampled_from(["fail", "succeed", "answer", "wait", "probe"])))
def test_it_is_never_closed_within_a_reset_of_its_opening_without_a_probe(events: list[str]) -> None:
    clock = Clock()
    breaker = CircuitBreaker(2, 5.0, clock=clock)
    probing = False
    for event in events:
        before = breaker.state
        if event == "wait":
            clock.now += 3
        elif event == "probe":
            probing = breaker.begin_probe() or probing
        elif event == "fail":
            breaker.failed()
        elif event == "answer":
            if probing:
                breaker.answered()
        else:
            breaker.succeeded()
        if before is not CLOSED and breaker.state is CLOSED:
            assert (before, event in {"succeed", "answer"}, probing) == (HALF_OPEN, True, True)
        if breaker.state is not HALF_OPEN:
            probing = False
