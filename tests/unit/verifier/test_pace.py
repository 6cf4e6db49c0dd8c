"""Sizes and pauses of a scan."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shadowfault_api.verifier.pace import Pace

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


@given(st.integers(1, 10**7), SECONDS, st.none() | st.floats(1, 1e6))
def test_a_limit_of_rows_holds_over_chunk_and_pause(rows: int, seconds: float, limit: float | None) -> None:
    pace = Pace(rows_per_second=limit)
    pause = pace.pause(rows, seconds)
    assert pause >= 0
    if limit is None:
        assert pause == 0
    else:
        assert rows <= limit * (seconds + pause) * (1 + 1e-9)
        assert pace.next_size(rows, seconds) <= max(1, round(limit * pace.target_seconds))
        assert pace.start() <= max(1, round(limit * pace.target_seconds))
