"""Any two tables: which keys differ, without an outbox that tells why."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from shadowfault_api.verifier.pace import Budget, Pace
from shadowfault_api.verifier.scan import Scanner
from shadowfault_api.verifier.stores import Span
from shadowfault_api.verifier.stores.opening import open_stores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shadowfault_api.verifier.side import Side
    from shadowfault_api.verifier.stores import Key
    from shadowfault_api.verifier.tables import TableSpec


def differing_keys(  # noqa: PLR0913 - by name
    primary: tuple[Side, TableSpec],
    shadow: tuple[Side, TableSpec],
    *,
    pace: Pace = Pace(),  # noqa: B008 - a constant
    leaf: int = 1000,
    portable: bool = False,
    rest: Callable[[float], None] = time.sleep,
) -> Iterator[list[Key]]:
    """Find the keys whose rows differ, up to `leaf` at a time.

    Each side is read at its own time: what is written meanwhile is found too, and for the caller to judge.

    Args:
        primary: a database and the table in it.
        shadow: the other.
        pace: sizes of digests, and a limit of rows per second.
        leaf: rows looked at one by one where digests differ.
        portable: use the portable digest.
        rest: called between two looks with the seconds to wait, which are none without a limit; it may raise
            to end the scan.

    Raises:
        VerificationError: the tables cannot be compared.
    """
    budgets = Budget(pace.rows_per_second), Budget(pace.rows_per_second)
    ours, theirs = (
        (replace(side, budget=budget), spec)
        for (side, spec), budget in zip((primary, shadow), budgets, strict=True)
    )

    def pause(seconds: float) -> None:
        rest(max(seconds, *(budget.wait() for budget in budgets)))

    here, there, _ = open_stores(ours, theirs, portable=portable)
    with Scanner.opened(here, there, pace, leaf=leaf, rest=pause) as scanner:
        for chunk in scanner.chunks(Span()):
            if chunk.differs:
                yield from scanner.differing(chunk)
