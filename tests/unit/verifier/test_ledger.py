"""What is new, what persists, what is resolved."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shadowfault_api.verifier.ledger import changes
from shadowfault_api.verifier.model import Cause, Difference, DiscrepancyType, Found, Open

MISSING = DiscrepancyType.MISSING_IN_SHADOW
MISMATCH = DiscrepancyType.DATA_MISMATCH


def found(kind: DiscrepancyType = MISSING, cause: str = "injected") -> Found:
    return Found("k", Difference(kind), Cause(cause))


def known(kind: DiscrepancyType = MISSING, cause: str = "injected") -> dict[str, Open]:
    return {"k": Open("row", "k", kind.value, cause, datetime(2026, 1, 1, tzinfo=UTC))}


def test_unknown_is_new() -> None:
    result = changes([found()], [], {})
    assert result.new == [found()]
    assert not (result.persisting)
    assert not (result.replaced)
    assert not (result.resolved)


def test_known_persists_without_evidence() -> None:
    result = changes([found()], [], known())
    assert result.persisting == [(known()["k"], found())]
    assert not (result.new)
    assert not (result.replaced)
    assert not (result.resolved)


def test_another_type_is_another_discrepancy() -> None:
    result = changes([found(MISMATCH)], [], known(MISSING))
    assert result.new == [found(MISMATCH)]
    assert result.replaced == list(known(MISSING).values())
    assert not (result.persisting)
    assert not (result.resolved)


@pytest.mark.parametrize(
    ("before", "now", "is_new"),
    [
        ("injected", "timeout", False),
        ("unexplained", "injected", False),
        ("unexplained", "unexplained", False),
        ("injected", "unexplained", True),
    ],
)
def test_only_a_lost_explanation_is_new(before: str, now: str, is_new: bool) -> None:
    result = changes([found(cause=now)], [], known(cause=before))
    assert bool(result.new) is is_new
    assert bool(result.persisting) is not is_new


def test_equal_resolves_what_is_known_and_nothing_else() -> None:
    result = changes([], ["k", "never known"], known())
    assert result.resolved == list(known().values())
    assert not (result.new)
    assert not (result.persisting)
    assert not (result.replaced)


def test_what_was_not_judged_stays_as_it_is() -> None:
    result = changes([], [], known())
    assert not (result.new)
    assert not (result.persisting)
    assert not (result.replaced)
    assert not (result.resolved)
