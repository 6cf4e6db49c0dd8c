"""What the verifier asks of a store. `postgresql` and `sqlite` answer; nothing else knows the difference."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - a NamedTuple's fields can be read
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from shadowfault_api.verifier.stores.probes import Probe
    from shadowfault_api.verifier.tables import TableSpec

# Whole numbers and bytes as they are, all else in PostgreSQL's text form.
Key = tuple[str | int | bytes, ...]


class Span(NamedTuple):
    """The keys above `after` up to and with `upto`; None is open-ended."""

    after: Key | None = None
    upto: Key | None = None


class Window(NamedTuple):
    """The instants from `since` on, and below `before`; None is open-ended."""

    since: datetime
    before: datetime | None = None


class Changed(NamedTuple):
    """A row that says when it changed: `at` is that instant as its store writes it, exactly."""

    at: str
    key: Key


class Digest(NamedTuple):
    """Living rows of a span: how many, and the sum of their digests modulo 2^64."""

    rows: int
    total: int


class Method(NamedTuple):
    """How a row is digested: `seed` for PostgreSQL's own hash, None for the portable one."""

    seed: int | None = None

    def __str__(self) -> str:
        return "portable" if self.seed is None else "native"


class Row(NamedTuple):
    """The canonical forms of a row's columns, without the key; a tombstone does not live."""

    values: tuple[str | None, ...]
    live: bool


class Store(Protocol):
    """One side of a comparison. Each look is a short read-only snapshot of its own."""

    @property
    def spec(self) -> TableSpec:
        """The table."""

    def digest(self, span: Span) -> Digest:
        """Digest the living rows of a span inside the database.

        Raises:
            TooSlowError: it took longer than a statement may.
        """

    def boundary(self, span: Span, rows: int) -> Key | None:
        """Find the key of the living row number `rows` of a span; None where there are fewer."""

    def edge(self, span: Span, rows: int) -> Key | None:
        """Find a key about `rows` living rows from where a span begins, or fewer; None as for `boundary`.

        It costs little where a server has statistics to tell.
        """

    def prints(self, span: Span) -> dict[Key, int]:
        """Digest each living row of a small span by itself."""

    def prints_of(self, keys: Sequence[Key]) -> dict[Key, int]:
        """Digest each living row of some keys by itself."""

    def digest_changed(self, window: Window) -> Digest:
        """Digest the living rows that say that they changed in a window.

        Raises:
            TooSlowError: it took longer than a statement may.
        """

    def changed(
        self, window: Window, after: Changed | None, limit: int, *, dead: bool = False
    ) -> list[Changed]:
        """Read rows that say that they changed in a window, tombstones too, or those alone if `dead`.

        In the order of that instant and the key, and only those beyond `after`: by an index over both, a page
        costs what it holds, however large the table is. A row that changes meanwhile moves to a later page.
        """

    def get(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, Row]:
        """Read some rows, tombstones too, within a snapshot of the caller."""

    def estimate(self) -> int:
        """Tell roughly how many rows there are, without reading them."""

    def keyless(self) -> bool:
        """Tell whether a row has a NULL in its key: no span holds such a row."""

    def probe(self, probes: Sequence[Probe], method: Method) -> list[int]:
        """Digest constants by a method: what the self-test compares."""
