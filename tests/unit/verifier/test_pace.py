"""Sizes of chunks, and the wait for what was read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_api.verifier import pace as pace_module
from shadowfault_api.verifier.pace import Budget, Pace

SECONDS = st.floats(0, 1000)


def test_a_size_follows_the_time_it_took() -> None:
    pace = Pace(first=1000, least=10, most=100_000, target_seconds=0.5)
    assert pace.start() == 1000
    assert pace.next_size(1000, 0.25) == 2000
    assert pace.next_size(1000, 1.0) == 500
    assert pace.next_size(1000, 0.0001) == 16_000
    assert pace.next_size(1000, 100) == 250
    assert pace.next_size(100_000, 0.01) == 100_000
    assert pace.next_size(10, 100) == 10


def test_several_chunks_are_under_way_once_each_takes_its_time() -> None:
    pace = Pace(target_seconds=0.5)
    assert [pace.ahead(seconds) for seconds in (0.0, 0.1, 0.3, 0.5, 30.0)] == [1, 1, 2, 3, 3]
    assert Pace(rows_per_second=1000.0).ahead(0.5) == 0


def test_too_slow_is_tried_smaller_down_to_one_row() -> None:
    sizes, size = [], 1000
    while (smaller := Pace().smaller(size)) is not None:
        sizes.append(size := smaller)
    assert sizes == [250, 62, 16, 4, 1]


@given(st.integers(1, 10**7), SECONDS, st.floats(1, 1e6))
def test_under_a_limit_no_chunk_is_larger_than_half_a_second(rows: int, seconds: float, limit: float) -> None:
    pace = Pace(rows_per_second=limit)
    assert pace.next_size(rows, seconds) <= max(1, round(limit * pace.target_seconds))
    assert pace.start() <= max(1, round(limit * pace.target_seconds))


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 100)), min_size=1, max_size=30), st.floats(1, 1e6)
)
def test_who_waits_as_told_reads_no_more_than_the_limit(reads: list[tuple[int, float]], limit: float) -> None:
    """However the reads are spaced: over any time from a read on, the rows before the last fit into it."""
    now = 1000.0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pace_module, "monotonic", lambda: now)
        budget, began, read = Budget(limit), now, 0
        for rows, spent in reads:
            assert read <= limit * (now - began) * (1 + 1e-6) + 1e-3
            budget.charge(rows)
            read += rows
            now += spent
            now += budget.wait()
        assert budget.wait() < 1e-6
    free = Budget(None)
    free.charge(10**9)
    assert free.wait() == 0
