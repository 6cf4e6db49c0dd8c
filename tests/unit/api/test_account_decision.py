"""When an account is given: after a pass of the verifier that began after the end, in every process."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_api.accounts.decision import Asked, Known, Served, Step, next_step, primary_figures

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RESULT = {"state": "complete"}


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def served(closed: float | None = 5, *, fresh: bool = False, **figures: int) -> Served:
    counts: dict[str, Any] = {"requests": 10, "errors": 0, **figures}
    return Served(at(0), at(5), None if closed is None else at(closed), fresh=fresh, **counts)


def asked(minutes: float = 6, result: dict[str, str] | None = None) -> Asked:
    return Asked(at(minutes), "run", result)


LIVE = served(None, fresh=True)
DEAD = served(None)


@pytest.mark.parametrize(
    ("known", "step"),
    [
        # The experiment goes on in a process that lives; one that died is over.
        (Known([LIVE]), Step.WAIT),
        (Known([served(), LIVE], asked=asked(), run_state="succeeded"), Step.WAIT),
        (Known([served(), LIVE], asked=asked(6, RESULT), run_state="succeeded"), Step.WAIT),
        (Known([DEAD]), Step.VERIFY),
        # Its writes are settled first: what is in flight is no discrepancy, and no match either.
        (Known([served()], in_flight=True), Step.WAIT),
        (Known([served()], asked=asked(), run_state="succeeded", in_flight=True), Step.WAIT),
        # One pass, then the figures, then the same figures for ever.
        (Known([served()]), Step.VERIFY),
        (Known([served()], asked=asked(), run_state="running"), Step.WAIT),
        (Known([served()], asked=asked(), run_state="failed"), Step.VERIFY),
        (Known([served()], asked=asked(), run_state=None), Step.VERIFY),
        (Known([served()], asked=asked(), run_state="succeeded"), Step.COUNT),
        (Known([served()], asked=asked(6, RESULT), run_state="succeeded"), Step.ANSWER),
        (Known([served()], asked=asked(6, RESULT), run_state=None, in_flight=True), Step.ANSWER),
        # A process that came under it later makes all of that too early.
        (Known([served(), served(7)], asked=asked(6), run_state="succeeded"), Step.VERIFY),
        (Known([served(), served(7)], asked=asked(6, RESULT), run_state="succeeded"), Step.VERIFY),
        (Known([served(), served(7)], asked=asked(8, RESULT), run_state="succeeded"), Step.ANSWER),
        # Evidence alone, of a service that was older than these tables.
        (Known(first_failure=at(1), last_failure=at(2)), Step.VERIFY),
        (Known(first_failure=at(1), last_failure=at(2), asked=asked(), run_state="succeeded"), Step.COUNT),
    ],
)
def test_what_is_next(known: Known, step: Step) -> None:
    assert next_step(known) is step


@pytest.mark.parametrize(
    ("processes", "figures"),
    [
        ([], (None, None)),
        ([served()], (0, 10)),
        ([served(), served(errors=2)], (2, 20)),
        # Its last word is missing: nobody knows what it served after the last time it wrote.
        ([served(), DEAD], (None, None)),
        ([served(errors=1), DEAD], (1, None)),
    ],
)
def test_figures_that_are_not_known_are_none(
    processes: list[Served], figures: tuple[int | None, int | None]
) -> None:
    assert primary_figures(processes) == figures


def test_a_process_that_served_nothing_is_a_trace() -> None:
    assert not Known().anything
    assert Known([served(requests=0)]).anything
    assert Known(first_failure=at(0), last_failure=at(0)).anything


MOMENTS = st.integers(0, 20).map(at)
PROCESSES = st.lists(
    st.builds(
        Served,
        opened_at=MOMENTS,
        counted_at=MOMENTS,
        closed_at=st.none() | MOMENTS,
        requests=st.integers(0, 9),
        errors=st.integers(0, 9),
        fresh=st.booleans(),
    ),
    max_size=4,
)


@given(
    st.builds(
        Known,
        served=PROCESSES,
        asked=st.none() | st.builds(Asked, MOMENTS, st.just("run"), st.none() | st.just(RESULT)),
        run_state=st.sampled_from([None, "running", "failed", "succeeded"]),
        in_flight=st.booleans(),
    )
)
def test_nothing_is_told_before_the_end_nor_without_a_pass_after_it(known: Known) -> None:
    if next_step(known) not in {Step.ANSWER, Step.COUNT}:
        return
    assert known.asked is not None
    assert not any(one.fresh and one.closed_at is None for one in known.served)
    assert all(one.ended_at <= known.asked.asked_at for one in known.served)
    assert known.asked.result is not None or (known.run_state == "succeeded" and not known.in_flight)
