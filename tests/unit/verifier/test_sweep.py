"""Where a sweep is, what is left of it, and how much a pass is to do."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_api.verifier.durations import parse_duration
from shadowfault_api.verifier.stores import Span
from shadowfault_api.verifier.sweep import Part, Sweep, Tally, key_document, key_of, rows_due

if TYPE_CHECKING:
    from shadowfault_api.verifier.stores import Key

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def sweep(rows: int, estimated: int) -> Sweep:
    part = Part(0, Span(), ("k",), Tally(rows=rows))
    return Sweep("s", "Listing", "r", BEGAN, BEGAN, estimated, None, [part])


@pytest.mark.parametrize(
    ("rows", "hours", "due"),
    [
        (0, 0, 1),  # one chunk at least
        (0, 12, 500),
        (200, 12, 300),  # what an earlier pass left undone too
        (600, 12, 1),  # ahead of its time
        (0, 23.999, 1000),
        (0, 24, None),
        (999, 100, None),
    ],
)
def test_rows_that_are_due(rows: int, hours: float, due: int | None) -> None:
    assert rows_due(sweep(rows, 1000), BEGAN + timedelta(hours=hours), DAY) == due


@given(
    estimated=st.integers(0, 10**9),
    passes=st.lists(st.floats(0.01, 5.0), min_size=1, max_size=40),
)
def test_passes_that_do_what_is_due_are_never_behind(estimated: int, passes: list[float]) -> None:
    one, now = sweep(0, estimated), BEGAN
    for hours in passes:
        now += timedelta(hours=hours)
        due = rows_due(one, now, DAY)
        if due is None:
            assert now - BEGAN >= DAY
            return
        one.parts[0].tally.rows += due
        assert one.tally.rows >= estimated * ((now - BEGAN) / DAY)


def test_a_part_goes_on_where_it_was_left() -> None:
    part = Part(0, Span(("a",), ("z",)))
    assert part.rest == Span(("a",), ("z",))
    part.advance(("k",), Tally(primary=3, new=1))
    part.advance(("m",), Tally(primary=2, scan_seconds=0.5))
    assert (part.rest, part.ended) == (Span(("m",), ("z",)), False)
    assert part.tally == Tally(primary=5, new=1, scan_seconds=0.5)
    part.advance(("z",), Tally())
    assert part.ended


def test_an_open_end_is_reached_by_an_open_end() -> None:
    part = Part(0, Span())
    part.advance(("k",), Tally())
    assert not part.ended
    part.advance(None, Tally())
    assert part.ended


@given(st.none() | st.lists(st.text() | st.integers() | st.binary(), min_size=1).map(tuple))
def test_a_key_comes_back_from_json_as_it_was(key: Key | None) -> None:
    assert key_of(json.loads(json.dumps(key_document(key)))) == key


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86400), ("1h30m", 5400), ("90m", 5400), ("45s", 45), ("7d", 604800), ("0", 0), ("0s", 0)],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "24", "h", "-1h", "1 h", "1.5h", "24H", "1w", "tomorrow", "99999999d", "3651d"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)
