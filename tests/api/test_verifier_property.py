"""The verifier against a naive full comparison, on random pairs of stores, at every chunk boundary."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadowfault_api.verifier import VerifierOptions, verify_stores
from shadowfault_testing.stores import NOW, listing_row

if TYPE_CHECKING:
    from shadowfault_testing.stores import Stores

# What tells rows apart, and what has been taken for equal elsewhere: NULL's names, separators, spaces, case.
TITLES = st.sampled_from(["x", "X", "", " ", "<null>", "None", "x|y", "y|z", "é", "e\u0301", "\U0001f600"])
PRICES = st.sampled_from([Decimal("0.00"), Decimal("1.00"), Decimal("1.01"), Decimal("9999999999.99")])
IDS = [str(UUID(int=number * 0x1111_1111_1111)) for number in range(12)]


@dataclass(frozen=True)
class Content:
    title: str
    price: Decimal
    version: int
    microseconds: int

    def row(self, key: str) -> dict[str, Any]:
        return listing_row(
            key,
            title=self.title,
            price=self.price,
            version=self.version,
            updated_at=NOW + timedelta(microseconds=self.microseconds),
        )


CONTENT = st.builds(Content, TITLES, PRICES, st.integers(1, 2), st.integers(0, 1))
STORE = st.dictionaries(st.sampled_from(IDS), CONTENT, max_size=len(IDS))
CHANGES = st.dictionaries(st.sampled_from(IDS), st.none() | CONTENT, max_size=4)
RELAXED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def naive(primary: dict[str, Content], shadow: dict[str, Content], pending: set[str]) -> dict[str, str]:
    found = {}
    for key in {*primary, *shadow} - pending:
        if key not in shadow:
            found[key] = "missing_in_shadow"
        elif key not in primary:
            found[key] = "missing_in_primary"
        elif primary[key] != shadow[key]:
            found[key] = "data_mismatch"
    return found


@RELAXED
@given(
    primary=STORE,
    changes=CHANGES,
    tombstones=st.sets(st.sampled_from(IDS), max_size=3),
    pending=st.sets(st.sampled_from(IDS), max_size=2),
    chunk_size=st.integers(1, 14),
    later=CHANGES,
)
def test_the_verifier_agrees_with_a_naive_comparison(
    stores: Stores,
    primary: dict[str, Content],
    changes: dict[str, Content | None],
    tombstones: set[str],
    pending: set[str],
    chunk_size: int,
    later: dict[str, Content | None],
) -> None:
    """Twice: the second run finds known, changed, resolved and new ones side by side."""
    stores.clear()
    shadow = changed(primary, changes)
    shadow = {key: content for key, content in shadow.items() if key not in tombstones}
    stores.put_all([content.row(key) for key, content in primary.items()])
    stores.shadow_put_all([content.row(key) for key, content in shadow.items()])
    for key in tombstones:
        stores.tombstone(key, version=9)
    for key in pending:
        stores.entry(key, "update", 1)
    options = VerifierOptions(chunk_size=chunk_size)

    first = verify_stores(stores.primary, stores.shadow, options=options)
    before = naive(primary, shadow, pending)
    assert {key: kind for key, (kind, _) in stores.open_discrepancies().items()} == before
    assert (first.new, first.open, first.persisting, first.resolved) == (len(before), len(before), 0, 0)
    assert (first.scanned_primary, first.scanned_shadow) == (len(primary), len(shadow))

    after_change = changed(shadow, {key: value for key, value in later.items() if key not in tombstones})
    for key in set(later) - tombstones:
        stores.shadow_remove(key)
        if key in after_change:
            stores.shadow_put_all([after_change[key].row(key)])
    second = verify_stores(stores.primary, stores.shadow, options=options)
    now = naive(primary, after_change, pending)
    assert {key: kind for key, (kind, _) in stores.open_discrepancies().items()} == now
    assert second.persisting == len([key for key in now if before.get(key) == now[key]])
    assert second.new == len(now) - second.persisting
    assert second.resolved == len([key for key in before if key not in now])


def changed(store: dict[str, Content], changes: dict[str, Content | None]) -> dict[str, Content]:
    merged = {**store, **changes}
    return {key: content for key, content in merged.items() if content is not None}


def test_50_000_rows_over_many_chunks(stores: Stores) -> None:
    """Differences at the ends of pages, for sizes that divide the rows and sizes that do not."""
    total, sizes = 50_000, [1000, 997, 9999]
    keys = [str(UUID(int=number << 64)) for number in range(total)]
    edges = {0, 1, total - 2, total - 1}
    edges |= {size * page + offset for size in sizes for page in (1, 2) for offset in (-1, 0, 1)}
    kinds = ["missing_in_shadow", "missing_in_primary", "data_mismatch"]
    expected = {keys[number]: kinds[place % 3] for place, number in enumerate(sorted(edges))}
    rows = [listing_row(key, title=f"title {number}") for number, key in enumerate(keys)]
    stores.put_all([row for row in rows if expected.get(row["id"]) != "missing_in_primary"])
    stores.shadow_put_all(
        [
            {**row, "title": "another"} if expected.get(row["id"]) == "data_mismatch" else row
            for row in rows
            if expected.get(row["id"]) != "missing_in_shadow"
        ]
    )
    for number, size in enumerate(sizes):
        report = verify_stores(stores.primary, stores.shadow, options=VerifierOptions(chunk_size=size))
        assert {key: kind for key, (kind, _) in stores.open_discrepancies().items()} == expected
        assert (report.new, report.persisting) == ((0, len(expected)) if number else (len(expected), 0))
        assert report.resolved == 0
        assert report.scanned_primary == total - len([k for k in expected.values() if k == kinds[1]])


def test_one_side_empty(stores: Stores) -> None:
    stores.put_all([listing_row(str(UUID(int=number))) for number in range(2500)])
    report = verify_stores(stores.primary, stores.shadow, options=VerifierOptions(chunk_size=400))
    assert report.by_type == {"missing_in_shadow": 2500}
    stores.clear()
    stores.shadow_put_all([listing_row(str(UUID(int=number))) for number in range(2500)])
    report = verify_stores(stores.primary, stores.shadow, options=VerifierOptions(chunk_size=400))
    assert report.by_type == {"missing_in_primary": 2500}
