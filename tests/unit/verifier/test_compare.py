"""How two rows of one key differ."""

from __future__ import annotations

import pytest

from shadowfault_api.verifier.compare import difference
from shadowfault_api.verifier.model import Difference, DiscrepancyType, Entity, StoredRow

PAIR = Entity("Pair", ("left", "right"))


@pytest.mark.parametrize(
    ("primary", "shadow", "expected"),
    [
        (None, None, None),
        (("a", "b"), ("a", "b"), None),
        ((None, "b"), ("<null>", "b"), ("left",)),
        ((None, "b"), ("", "b"), ("left",)),
        (("x|y", "z"), ("x", "y|z"), ("left", "right")),
        (("a", "b"), ("a", "B"), ("right",)),
    ],
)
def test_a_mismatch_names_its_fields(
    primary: tuple[object, ...] | None, shadow: tuple[object, ...] | None, expected: tuple[str, ...] | None
) -> None:
    here = None if primary is None else StoredRow("k", 3, primary)
    there = None if shadow is None else StoredRow("k", 2, shadow)
    found = difference(PAIR, here, there)
    if expected is None:
        assert found is None
    else:
        assert found == Difference(DiscrepancyType.DATA_MISMATCH, expected, 3, 2)


def test_a_tombstone_counts_as_absent() -> None:
    row, tombstone = StoredRow("k", 1, ("a", "b")), StoredRow("k", 2, (), deleted=True)
    assert difference(PAIR, None, tombstone) is None
    assert difference(PAIR, row, tombstone) == Difference(DiscrepancyType.MISSING_IN_SHADOW, (), 1, 2)
    assert difference(PAIR, row, None) == Difference(DiscrepancyType.MISSING_IN_SHADOW, (), 1, None)
    assert difference(PAIR, None, row) == Difference(DiscrepancyType.MISSING_IN_PRIMARY, (), None, 1)
