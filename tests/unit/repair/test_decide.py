"""What a repair may write: by a table, and that nothing newer is ever written over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_api.repair.decide import Outcome, Write, decide
from shadowfault_api.verifier.model import Difference, DiscrepancyType, FailedShadowWrite

MISSING, EXTRA, UNLIKE = (
    DiscrepancyType.MISSING_IN_SHADOW,
    DiscrepancyType.MISSING_IN_PRIMARY,
    DiscrepancyType.DATA_MISMATCH,
)


def failed(operation: str, version: int) -> FailedShadowWrite:
    return FailedShadowWrite(operation, version, "injected")


@pytest.mark.parametrize(
    ("seen", "failures", "expected"),
    [
        (Difference(MISSING, (), 3, None), [], Write(3, None)),
        (Difference(MISSING, (), 3, 2), [], Write(3, 2)),  # a tombstone, of an older delete
        (Difference(MISSING, (), 3, 4), [], Outcome.SHADOW_NEWER),
        (Difference(UNLIKE, ("title",), 3, 1), [], Write(3, 1)),
        (Difference(UNLIKE, ("title",), 3, 3), [], Write(3, 3)),  # changed by hand, at its version
        (Difference(UNLIKE, ("title",), 3, 4), [], Outcome.SHADOW_NEWER),
        (Difference(EXTRA, (), None, 2), [failed("delete", 3)], Write(3, 2, tombstone=True)),
        (
            Difference(EXTRA, (), None, 1),
            [failed("update", 2), failed("update", 3), failed("delete", 4)],
            Write(4, 1, tombstone=True),
        ),
        (Difference(EXTRA, (), None, 2), [], Outcome.NO_DELETE_ON_RECORD),
        (Difference(EXTRA, (), None, 2), [failed("update", 3)], Outcome.NO_DELETE_ON_RECORD),
        # The delete is older than what the shadow holds: another row of that id was written since.
        (Difference(EXTRA, (), None, 5), [failed("delete", 3)], Outcome.NO_DELETE_ON_RECORD),
    ],
)
def test_what_is_written(
    seen: Difference, failures: list[FailedShadowWrite], expected: Write | Outcome
) -> None:
    assert decide(seen, failures) == expected


def test_a_delete_nobody_recorded_is_made_only_where_it_is_asked_for() -> None:
    seen = Difference(EXTRA, (), None, 5)
    assert decide(seen, [], delete_unexplained=True) == Write(6, 5, tombstone=True)
    assert decide(seen, [failed("update", 9)], delete_unexplained=True) == Write(9, 5, tombstone=True)


versions = st.integers(1, 6)


@given(
    st.sampled_from(list(DiscrepancyType)),
    versions,
    st.none() | versions,
    st.lists(st.builds(failed, st.sampled_from(["create", "update", "delete"]), versions)),
    st.booleans(),
)
def test_no_write_ever_goes_below_what_is_there(
    kind: DiscrepancyType, primary: int, shadow: int | None, failures: list[FailedShadowWrite], forced: bool
) -> None:
    held = shadow or 1 if kind is EXTRA else shadow
    what = decide(
        Difference(kind, (), None if kind is EXTRA else primary, held), failures, delete_unexplained=forced
    )
    if isinstance(what, Write):
        assert what.expects == held
        assert what.version >= (held or 0)
        assert what.tombstone is (kind is EXTRA)
        if what.tombstone:
            assert all(what.version >= failure.version for failure in failures)
