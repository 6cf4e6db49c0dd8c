"""The service with its shadow off: `python -m shadowfault_bench.single_write` serves it.

A create writes the row and nothing else: no outbox row, no queue, no shadow writer. All the rest is the
service as it is. It is what the dual write is measured against, and no setting of the product: a service
that leaves its shadow out unnoticed would be a trap.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from sqlalchemy import insert

from shadowfault_api import main
from shadowfault_api.app import create_app
from shadowfault_api.entities import LISTING, Listing, Operation, Origin, OutboxEntry, new_id
from shadowfault_api.logs import configure_logging
from shadowfault_api.settings import load_settings
from shadowfault_api.shadow.writer import ShadowWriter
from shadowfault_api.store.primary import ListingStore, Primary
from shadowfault_api.store.schema import listings

if TYPE_CHECKING:
    from decimal import Decimal

    from fastapi import FastAPI

    from shadowfault_api.settings import Settings

_INSERT: Final = insert(listings)


class SingleWrite(ListingStore):
    """Creates in the primary only."""

    def __init__(self, primary: Primary) -> None:
        super().__init__(primary)
        self._autocommit = primary.autocommit

    async def create(self, title: str, price: Decimal, _origin: Origin) -> tuple[Listing, OutboxEntry]:
        """Write the row; the entry is there for the type only."""
        now = datetime.now(UTC)
        listing = Listing(new_id(), title, price, 1, now, now)
        row = {
            "id": listing.id,
            "title": title,
            "price": price,
            "version": 1,
            "created_at": now,
            "updated_at": now,
        }
        async with self._autocommit.connect() as connection:
            await connection.execute(_INSERT, row)
        return listing, _NOTHING


_NOTHING: Final = OutboxEntry(0, LISTING, "", Operation.CREATE, 1, None, None, False, datetime.min)  # noqa: DTZ901 - never read


class NoShadowWriter(ShadowWriter):
    """Takes nothing and does nothing."""

    @classmethod
    def in_place_of(cls, writer: ShadowWriter) -> Self:
        """Make one that answers what the service asks of it."""
        made = cls.__new__(cls)
        made.__dict__.update(writer.__dict__)
        return made

    def claim_seconds(self) -> float | None:
        """There is no row to be claimed."""
        return None

    def submit(self, entry: OutboxEntry, *, claimed: bool = True) -> None:
        """Do nothing."""

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self, grace_seconds: float) -> None:
        """Do nothing."""


def create_single_write_app() -> tuple[FastAPI, Settings]:
    """Build the service and take its shadow off."""
    settings = load_settings()
    app = create_app(settings, None)
    held = app.state.resources
    app.state.resources = replace(
        held,
        listings=SingleWrite(held.primary),
        writer=NoShadowWriter.in_place_of(held.writer),
    )
    return app, settings


if __name__ == "__main__":
    application, configured = create_single_write_app()
    configure_logging(configured.log_level)
    main.run(application, configured)
