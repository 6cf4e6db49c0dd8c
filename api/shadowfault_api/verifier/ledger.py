"""What a judgement changes in the record of discrepancies. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shadowfault_api.verifier.model import UNEXPLAINED, Found, Open

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclass(slots=True)
class Changes:
    """What is to be entered.

    `new` get a row and a record of evidence; `persisting` are only touched, and get their present cause;
    `replaced` are closed without evidence, for another discrepancy takes their place; `resolved` are closed
    with it.
    """

    new: list[Found] = field(default_factory=list)
    persisting: list[tuple[Open, Found]] = field(default_factory=list)
    replaced: list[Open] = field(default_factory=list)
    resolved: list[Open] = field(default_factory=list)


def changes(found: Collection[Found], equal: Collection[str], known: Mapping[str, Open]) -> Changes:
    """Compare judgements with the open discrepancies of the same keys, by key."""
    result = Changes()
    for item in found:
        earlier = known.get(item.key)
        if earlier is not None and _is_the_same(earlier, item):
            result.persisting.append((earlier, item))
            continue
        if earlier is not None:
            result.replaced.append(earlier)
        result.new.append(item)
    result.resolved.extend(known[key] for key in equal if key in known)
    return result


def _is_the_same(earlier: Open, now: Found) -> bool:
    """Another type is another discrepancy. So is one no longer explained: that must reach evidence."""
    if earlier.discrepancy_type != now.difference.discrepancy_type:
        return False
    return now.cause.name != UNEXPLAINED or earlier.cause == UNEXPLAINED
