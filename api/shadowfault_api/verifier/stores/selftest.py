"""Which digest to use: PostgreSQL's own where both servers prove alike, else the portable one."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from shadowfault_api.verifier.errors import SchemaError, UnprovenError
from shadowfault_api.verifier.stores import Method
from shadowfault_api.verifier.stores.probes import Probe, probes_of
from shadowfault_api.verifier.tables import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shadowfault_api.verifier.stores import Store
    from shadowfault_api.verifier.tables import TableSpec

# Keys of these are written alike by every server; others only by two of a kind.
_KEY_KINDS: Final = frozenset({Kind.TEXT, Kind.INTEGER, Kind.BYTES, Kind.UUID})


def choose_method(first: Store, second: Store, *, same_server: bool, portable: bool = False) -> Method:
    """Prove a digest on both stores, over every kind their tables have.

    Args:
        first: one store.
        second: the other.
        same_server: whether both are of one kind of server.
        portable: do not consider a digest of that server's own.

    Raises:
        SchemaError: the tables cannot be compared.
        UnprovenError: the servers do not digest alike by any method.
    """
    check_specs(first.spec, second.spec, same_server=same_server)
    for store in (first, second):
        if store.keyless():
            raise SchemaError(f"{store.spec.name} has rows with NULL in their key: they cannot be compared")
    probes = probes_of(first.spec.kinds)
    # Another seed for each run: two rows that collide, which one in 2^64 do, do so once.
    methods = [Method()] if portable or not same_server else [Method(secrets.randbits(62)), Method()]
    for method in methods:
        try:
            one, other = first.probe(probes, method), second.probe(probes, method)
        except UnprovenError:
            continue  # a server without that digest
        if one == other and _tells_apart(probes, one):
            return method
    raise UnprovenError(
        "the two servers do not digest the same values alike, so nothing can be compared: "
        "both must store text as UTF-8; SHOW server_encoding tells"
    )


def _tells_apart(probes: Sequence[Probe], prints: Sequence[int]) -> bool:
    seen = {(probe.kind, value) for probe, value in zip(probes, prints, strict=True)}
    return len(seen) == len(probes)


def check_specs(first: TableSpec, second: TableSpec, *, same_server: bool) -> None:
    """Hold two descriptions to each other.

    Raises:
        SchemaError: they have not the same kinds of columns, or a key no two servers write alike.
    """
    kinds = [[column.kind for column in spec.compared] for spec in (first, second)]
    if kinds[0] != kinds[1] or len(first.key) != len(second.key):
        raise SchemaError(f"{first.name} and {second.name} are not described by the same kinds of columns")
    if not first.key:
        raise SchemaError(f"{first.name} has no key: a primary key is needed")
    for store_spec in (first, second):
        if len(set(store_spec.compared)) != len(store_spec.compared):
            raise SchemaError(f"{store_spec.name} is described with a column twice")
    strange = [column.name for column in first.key if column.kind not in _KEY_KINDS]
    if strange and not same_server:
        raise SchemaError(
            f"the key {', '.join(strange)} is written in different ways by two kinds of server: "
            "only text, whole numbers, bytes and UUIDs can be keys there"
        )
