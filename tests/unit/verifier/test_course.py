"""How a span is cut into chunks: every row in one of them, whatever the sides hold, however slow they are."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowfault_api.verifier.errors import StoppedError, TooSlowError
from shadowfault_api.verifier.pace import Pace
from shadowfault_api.verifier.scan import Scanner
from shadowfault_api.verifier.stores import Digest, Key, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shadowfault_api.verifier.course import Chunk

Rows = dict[int, int]
ROWS = st.dictionaries(st.integers(0, 60), st.integers(0, 2), max_size=60)
CHANGES = st.dictionaries(st.integers(0, 60), st.integers(0, 2), max_size=3)


@dataclass
class Table:
    """A table in memory that keeps to the contract of `Store`; at most `bearable` rows in one look."""

    rows: Rows
    bearable: int = 1000
    digested: list[Span] = field(default_factory=list)
    on_digest: Callable[[Span], object] = lambda _span: None
    on_boundary: Callable[[Span], object] = lambda _span: None
    by_statistics: Callable[[Span], Key | None] = lambda _span: None
    on_print: Callable[[int], object] = lambda _rows: None

    def within(self, span: Span) -> Rows:
        return {
            key: value
            for key, value in sorted(self.rows.items())
            if (span.after is None or (key,) > span.after) and (span.upto is None or (key,) <= span.upto)
        }

    def digest(self, span: Span) -> Digest:
        self.digested.append(span)
        self.on_digest(span)
        found = self.within(span)
        self._bear(len(found))
        return Digest(len(found), hash(frozenset(found.items())))

    def boundary(self, span: Span, rows: int) -> Key | None:
        self.on_boundary(span)
        found = list(self.within(span))
        self._bear(min(len(found), rows))
        return (found[rows - 1],) if len(found) >= rows else None

    def edge(self, span: Span, rows: int) -> Key | None:
        known = self.by_statistics(span)
        return self.boundary(span, rows) if known is None else known

    def prints(self, span: Span) -> dict[Key, int]:
        found = self.within(span)
        self.on_print(len(found))
        return {(key,): value for key, value in found.items()}

    def _bear(self, rows: int) -> None:
        if rows > self.bearable:
            raise TooSlowError("too many rows for one look")


def scanner(here: Table, there: Table, pace: Pace, leaf: int = 3, rest: Any = lambda _seconds: None) -> Any:
    return Scanner.opened(here, there, pace, leaf=leaf, rest=rest)  # type: ignore[arg-type]


def scanned(here: Table, there: Table, pace: Pace, leaf: int = 3) -> tuple[list[Chunk], list[Key]]:
    with scanner(here, there, pace, leaf) as scan:
        chunks, keys = [], []
        for chunk in scan.chunks(Span()):
            chunks.append(chunk)
            if chunk.differs:
                keys += [key for some in scan.differing(chunk) for key in some]
    return chunks, keys


def check(here: Table, there: Table, chunks: list[Chunk], keys: list[Key]) -> None:
    spans = [chunk.span for chunk in chunks]
    assert (spans[0].after, spans[-1].upto) == (None, None)
    assert [span.upto for span in spans[:-1]] == [span.after for span in spans[1:]]
    edges = [span.upto for span in spans[:-1]]
    assert edges == sorted(set(edges))
    for table, counts in (
        (here, [chunk.primary.rows for chunk in chunks]),
        (there, [chunk.shadow.rows for chunk in chunks]),
    ):
        assert counts == [len(table.within(span)) for span in spans]
        assert sum(counts) == len(table.rows)
    both = here.rows.keys() | there.rows.keys()
    differing = sorted((key,) for key in both if here.rows.get(key) != there.rows.get(key))
    assert sorted(keys) == differing


@settings(deadline=None)
@given(ROWS, CHANGES, st.sets(st.integers(0, 60)), st.integers(1, 30), st.none() | st.just(1e9))
def test_every_row_of_both_is_in_one_chunk(
    rows: Rows, changes: Rows, lost: set[int], first: int, limit: float | None
) -> None:
    other = {key: value for key, value in {**rows, **changes}.items() if key not in lost}
    for here, there in ((Table(rows), Table(other)), (Table(other), Table(rows))):
        pace = Pace(first=first, least=1, most=first, rows_per_second=limit)
        check(here, there, *scanned(here, there, pace))


@settings(deadline=None)
@given(ROWS, ROWS, st.integers(1, 40), st.integers(1, 40))
def test_a_side_that_is_too_slow_gets_smaller_chunks(
    rows: Rows, other: Rows, bearable: int, bearable_there: int
) -> None:
    """Each side bears few rows; where no chunk is as small as that, the scan says so and skips nothing."""
    here, there = Table(rows, bearable), Table(other, bearable_there)
    try:
        found = scanned(here, there, Pace(first=30, least=1, most=30))
    except TooSlowError:
        # Rows of one side between two neighbours of the other: no chunk has fewer.
        assert min(bearable, bearable_there) < max(len(rows), len(other))
        return
    check(here, there, *found)


def test_few_rows_beside_very_many() -> None:
    """The side with more sets the edges, also where the other was to begin."""
    many = Table(dict.fromkeys(range(1000), 0), bearable=60)
    few = Table(dict.fromkeys(range(0, 1000, 100), 0))
    for here, there in ((few, many), (many, few)):
        chunks, keys = scanned(here, there, Pace(first=10, least=1, most=50))
        check(here, there, chunks, keys)
        assert len(chunks) < 100


@pytest.mark.parametrize(("rows", "other"), [({}, {}), ({1: 1}, {}), ({}, {1: 1}), ({1: 1}, {1: 1})])
def test_what_is_less_than_a_chunk_is_one_open_span(rows: Rows, other: Rows) -> None:
    chunks, keys = scanned(Table(rows), Table(other), Pace(first=2))
    assert [chunk.span for chunk in chunks] == [Span()]
    assert keys == ([(1,)] if rows != other else [])


def test_one_side_empty_is_cut_by_the_other() -> None:
    rows = dict.fromkeys(range(40), 0)
    for here, there in ((Table({}), Table(rows)), (Table(rows), Table({}))):
        chunks, keys = scanned(here, there, Pace(first=10, least=1, most=10))
        check(here, there, chunks, keys)
        assert len(chunks) == 5  # four and the open end


def test_an_edge_that_only_one_side_has() -> None:
    rows = dict.fromkeys(range(40), 0)
    for lost in range(8, 12):
        other = {key: value for key, value in rows.items() if key % 10 != lost % 10}
        for here, there in ((Table(rows), Table(other)), (Table(other), Table(rows))):
            check(here, there, *scanned(here, there, Pace(first=10, least=1, most=10), leaf=2))


def test_the_next_chunk_is_under_way_while_one_is_looked_at() -> None:
    begun = threading.Event()
    here, there = (Table(dict.fromkeys(range(100), 0)) for _ in range(2))
    there.on_digest = lambda span: begun.set() if span.after is not None else None
    with scanner(here, there, Pace(first=10, least=10, most=10)) as scan:
        chunks = scan.chunks(Span())
        assert next(chunks).span == Span(None, (9,))
        assert begun.wait(30)


def test_few_chunks_are_under_way_at_a_time() -> None:
    here, there = (Table(dict.fromkeys(range(100), 0)) for _ in range(2))
    for limit, ahead in ((None, 1), (1e9, 0)):
        here.digested.clear()
        pace = Pace(first=5, least=5, most=5, rows_per_second=limit)
        with scanner(here, there, pace) as scan:
            for number, _ in enumerate(scan.chunks(Span()), 1):
                assert number <= len(here.digested) <= number + ahead


def test_a_limit_holds_before_the_next_chunk_begins() -> None:
    """What was read is waited for with nothing under way."""
    here, there = (Table(dict.fromkeys(range(50), 0)) for _ in range(2))
    rests: list[int] = []
    pace = Pace(first=10, least=10, most=10, rows_per_second=1000)
    with scanner(here, there, pace, rest=lambda _seconds: rests.append(len(there.digested))) as scan:
        chunks = list(scan.chunks(Span()))
    assert rests == list(range(1, len(chunks) + 1))


def test_rows_that_go_after_their_digest_leave_nothing_that_is_read_in_one_go() -> None:
    """The side that had more, by which a chunk is cut, has none; the other has all of them still."""
    here, there = Table(dict.fromkeys(range(300), 0)), Table(dict.fromkeys(range(1, 300), 0))
    read: list[int] = []
    with scanner(here, there, Pace(first=1000, least=1000, most=1000), leaf=5) as scan:
        for table in (here, there):
            table.on_print = read.append
        (chunk,) = scan.chunks(Span())
        here.rows.clear()
        found = [key for keys in scan.differing(chunk) for key in keys]
    assert sorted(found) == [(key,) for key in range(1, 300)]
    assert max(read) <= 5


def stopping(number: int) -> Iterator[None]:
    yield from [None] * number
    raise StoppedError("enough")


def test_a_stop_leaves_undone_what_has_not_begun() -> None:
    """It comes while the shadow, which has more rows, looks for an edge; the digest behind is not made."""
    here, there = Table(dict.fromkeys(range(0, 300, 3), 0)), Table(dict.fromkeys(range(300), 0))
    stopped, calls = threading.Event(), stopping(1)
    there.on_boundary = lambda span: stopped.wait(30) if span.after == (42,) else None
    pace = Pace(first=5, least=5, most=5)
    with scanner(here, there, pace, rest=lambda _seconds: next(calls)) as scan:
        with pytest.raises(StoppedError):
            list(scan.chunks(Span()))
        stopped.set()
    assert here.digested[:2] == there.digested == [Span(None, (12,)), Span((12,), (27,))]


def test_what_is_not_read_to_its_end_ends_too() -> None:
    here, there = (Table(dict.fromkeys(range(100), 0)) for _ in range(2))
    with scanner(here, there, Pace(first=5, least=5, most=5)) as scan:
        chunks = scan.chunks(Span())
        next(chunks)
        chunks.close()
        again = list(scan.chunks(Span((49,), (69,))))
    assert [again[0].span.after, again[-1].span.upto] == [(49,), (69,)]
    assert sum(chunk.rows for chunk in again) == 20


def test_a_span_that_is_known_to_be_one_chunk_needs_no_look_for_an_edge() -> None:
    here, there = Table(dict.fromkeys(range(40), 0)), Table(dict.fromkeys(range(40), 1))
    asked: list[Span] = []
    here.on_boundary = there.on_boundary = asked.append
    with scanner(here, there, Pace(first=10, least=1)) as scan:
        (chunk,) = scan.chunks(Span(None, (9,)), 10)
        assert (chunk.span, chunk.rows, asked) == (Span(None, (9,)), 10, [])
        assert len(list(scan.chunks(Span(None, (9,)), 11))) == 1
        assert asked


def test_a_span_that_one_side_has_too_many_rows_in_is_cut_all_the_same() -> None:
    here, there = Table({9: 0}), Table(dict.fromkeys(range(10), 1), bearable=3)
    with scanner(here, there, Pace(first=10, least=1)) as scan:
        chunks = list(scan.chunks(Span(None, (9,)), 1))
    assert [chunk.span.after for chunk in chunks] == [None, *(chunk.span.upto for chunk in chunks[:-1])]
    assert chunks[-1].span.upto == (9,)
    assert sum(chunk.shadow.rows for chunk in chunks) == 10


def test_under_a_limit_an_edge_is_looked_for_all_the_same() -> None:
    """The side that was not counted may have any number of rows there, and statistics may be old."""
    here, there = Table({9: 0}), Table(dict.fromkeys(range(10), 1))
    here.by_statistics = there.by_statistics = lambda _span: (9,)
    with scanner(here, there, Pace(first=2, least=1, most=2, rows_per_second=4.0)) as scan:
        chunks = list(scan.chunks(Span(None, (9,)), 1))
    assert max(chunk.shadow.rows for chunk in chunks) <= 2
    assert sum(chunk.shadow.rows for chunk in chunks) == 10
