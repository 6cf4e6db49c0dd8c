"""From two databases to two stores that digest alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shadowfault_api.verifier.stores import Method, Store
from shadowfault_api.verifier.stores.postgresql import PostgresqlStore
from shadowfault_api.verifier.stores.selftest import choose_method
from shadowfault_api.verifier.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from shadowfault_api.verifier.side import Side
    from shadowfault_api.verifier.tables import TableSpec


def open_stores(
    primary: tuple[Side, TableSpec], shadow: tuple[Side, TableSpec], *, portable: bool = False
) -> tuple[Store, Store, Method]:
    """Prove a digest on both sides, and return the stores that use it, and the digest.

    Raises:
        VerificationError: the tables cannot be compared; the message says why.
    """
    alike = primary[0].engine.dialect.name == shadow[0].engine.dialect.name
    method = choose_method(
        _store(*primary, Method()), _store(*shadow, Method()), same_server=alike, portable=portable
    )
    return _store(*primary, method), _store(*shadow, method), method


def _store(side: Side, spec: TableSpec, method: Method) -> Store:
    return PostgresqlStore(side, spec, method) if side.postgresql else SqliteStore(side, spec)
