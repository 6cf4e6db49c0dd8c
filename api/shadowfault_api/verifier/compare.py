"""How two rows of one key differ. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shadowfault_api.verifier.model import Difference, DiscrepancyType, Entity, StoredRow

if TYPE_CHECKING:
    from collections.abc import Sequence


def difference(entity: Entity, primary: StoredRow | None, shadow: StoredRow | None) -> Difference | None:
    """Tell how the two rows of one key differ; None when they do not. A tombstone counts as absent."""
    here, there = _alive(primary), _alive(shadow)
    primary_version = None if primary is None else primary.version
    shadow_version = None if shadow is None else shadow.version
    if here is None and there is None:
        return None
    if there is None:
        return Difference(DiscrepancyType.MISSING_IN_SHADOW, (), primary_version, shadow_version)
    if here is None:
        return Difference(DiscrepancyType.MISSING_IN_PRIMARY, (), primary_version, shadow_version)
    fields = _unequal(entity.fields, here.values, there.values)
    if not fields:
        return None
    return Difference(DiscrepancyType.DATA_MISMATCH, fields, primary_version, shadow_version)


def _alive(row: StoredRow | None) -> StoredRow | None:
    return None if row is None or row.deleted else row


def _unequal(fields: Sequence[str], here: tuple[object, ...], there: tuple[object, ...]) -> tuple[str, ...]:
    return tuple(name for name, a, b in zip(fields, here, there, strict=True) if a != b)
