"""Edges by statistics: roughly where asked for, never outside the span, and silent where they cannot tell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_api.verifier.stores import Span
from shadowfault_api.verifier.stores.histogram import Histogram
from shadowfault_api.verifier.tables import Kind

EVERY_TEN = Histogram.of(Kind.INTEGER, [str(number) for number in range(0, 101, 10)], 100)


@pytest.mark.parametrize(
    ("after", "upto", "rows", "found"),
    [
        (None, None, 30, 30),
        (None, None, 39, 30),
        (30, None, 20, 50),
        (31, None, 20, 60),  # from the next one it knows
        (None, None, 9, None),  # fewer than it can tell
        (80, None, 20, None),  # the last one: beyond it the table may have grown
        (None, 30, 30, None),
        (None, 31, 30, 30),
        (500, None, 10, None),
    ],
)
def test_an_edge_is_about_so_many_rows_away(
    after: int | None, upto: int | None, rows: int, found: int | None
) -> None:
    assert EVERY_TEN is not None
    span = Span(None if after is None else (after,), None if upto is None else (upto,))
    assert EVERY_TEN.edge(span, rows) == (None if found is None else (found,))


@pytest.mark.parametrize(
    ("kind", "bounds", "rows"),
    [
        (Kind.TEXT, None, 100.0),
        (Kind.TEXT, ["a"], 100.0),
        (Kind.TEXT, ["a", "b"], 0.0),
        (Kind.TEXT, ["a", "b"], -1.0),  # never analyzed
        (Kind.TEXT, ["a", "B"], 100.0),  # not by bytes
        (Kind.INTEGER, ["1", "-1"], 100.0),
        (Kind.INTEGER, ["1", "2", "2"], 100.0),
        (Kind.INSTANT, ["2026-01-01", "2026-01-02"], 100.0),
    ],
)
def test_what_is_of_no_use_is_none(kind: Kind, bounds: list[str] | None, rows: float) -> None:
    assert Histogram.of(kind, bounds, rows) is None


@given(
    st.lists(st.text(max_size=4), min_size=2, max_size=30, unique=True),
    st.none() | st.text(max_size=4),
    st.none() | st.text(max_size=4),
    st.integers(1, 200),
    st.floats(1, 1000),
)
def test_an_edge_is_within_its_span(
    keys: list[str], after: str | None, upto: str | None, rows: int, total: float
) -> None:
    keys.sort(key=str.encode)
    histogram = Histogram.of(Kind.TEXT, keys, total)
    assert histogram is not None
    span = Span(None if after is None else (after,), None if upto is None else (upto,))
    found = histogram.edge(span, rows)
    if found is not None:
        assert found[0] in keys[:-1]
        assert after is None or str(found[0]).encode() > after.encode()
        assert upto is None or str(found[0]).encode() < upto.encode()
