"""What a server's statistics say of where keys lie: an edge without reading an index. Pure."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final, Self

from shadowfault_api.verifier.tables import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shadowfault_api.verifier.stores import Key, Span

# How a key is read from its text, and what sorts it as a server sorts by bytes or by number.
_READ: Final[Mapping[Kind, Callable[[str], str | int]]] = {Kind.TEXT: str, Kind.INTEGER: int, Kind.UUID: str}


class Histogram:
    """Keys of one column, between any two of which lie about as many rows.

    It may be as old as the last ANALYZE. So it says roughly where an edge is, and nothing of what is beyond
    its last key: a table grows there.
    """

    def __init__(self, keys: Sequence[str | int], rows_between: float) -> None:
        """`keys` are in the order of `_place`; `rows_between` is greater than 0."""
        self._keys = keys
        self._places = list(map(_place, keys))
        self._rows_between = rows_between

    @classmethod
    def of(cls, kind: Kind, bounds: Sequence[str] | None, rows: float) -> Self | None:
        """Make one of what a server says; None where that is of no use."""
        if kind not in _READ or bounds is None or len(bounds) <= 1 or rows <= 0:
            return None
        found = cls(list(map(_READ[kind], bounds)), rows / (len(bounds) - 1))
        # Its server's order is another one where it does not sort by bytes; and no key may be there twice.
        return found if found._places == sorted(set(found._places)) else None

    def edge(self, span: Span, rows: int) -> Key | None:
        """Give a key up to about so many rows from where a span begins; None where it cannot tell."""
        steps = int(rows / self._rows_between)
        begin = 0 if span.after is None else bisect_left(self._places, _place(span.after[0]))
        at = begin + steps
        if not steps or at >= len(self._keys) - 1:
            return None
        if span.upto is not None and self._places[at] >= _place(span.upto[0]):
            return None
        return (self._keys[at],)


def _place(key: str | int | bytes) -> tuple[int, bytes]:
    """Give what sorts keys: by number, or by the bytes of their UTF-8."""
    if isinstance(key, int):
        return key, b""
    return 0, key.encode() if isinstance(key, str) else key
