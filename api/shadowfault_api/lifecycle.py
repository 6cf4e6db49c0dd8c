"""How a process begins and ends: what is started in which order, and what has which time at the end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import exc

from shadowfault_api.deadline import Grace
from shadowfault_api.evidence.sealing import Sealing
from shadowfault_api.store.migrate import Database, NewerDatabaseError, migrate

if TYPE_CHECKING:
    from shadowfault_api.engines import Engines
    from shadowfault_api.http.middleware import InFlight
    from shadowfault_api.http.resources import Resources
    from shadowfault_api.settings import Settings
    from shadowfault_api.shadow.path import ShadowPath

_log: Final = structlog.get_logger("shadowfault.app")
_TRACES_SECONDS: Final = 2.0
_PRIMARY_START_SECONDS: Final = 30.0


class Lifecycle:
    """Of one process. Raises KeyFileError when it is made, where the signing key cannot be used."""

    def __init__(self, settings: Settings, engines: Engines, path: ShadowPath, in_flight: InFlight) -> None:
        self._settings = settings
        self._engines = engines
        self._path = path
        self._in_flight = in_flight
        self._sealing = Sealing.from_settings(settings)

    async def start(self, resources: Resources) -> None:
        """Migrate, and begin what works beside the requests."""
        await _migrate_primary(self._settings)
        await resources.tally.start()
        await resources.writer.start()
        resources.jobs.start()
        if self._sealing is not None:
            self._sealing.start()

    async def stop(self, resources: Resources) -> None:
        """End it, within SHUTDOWN_GRACE_SECONDS and a little."""
        resources.stopping.set()
        grace = Grace(self._settings.shutdown_grace_seconds)
        # Before anything is counted for the last time: what the server has cancelled is answered.
        await self._in_flight.abandon()
        if self._sealing is not None:
            self._sealing.request_stop()
        await resources.writer.stop(grace.left())
        await resources.tally.stop(grace.left())
        await resources.accounting.stop(grace.left())
        await resources.jobs.stop(grace.left())
        if self._sealing is not None:
            await asyncio.to_thread(self._sealing.stop, grace.left())
        await resources.refresh.close()
        await self._engines.dispose_of_primary()
        await self._path.shadow.close()
        await asyncio.to_thread(self._path.tracing.close, _TRACES_SECONDS)


async def _migrate_primary(settings: Settings) -> None:
    """Migrate, waiting a while for a database that starts together with us."""
    url = settings.database_url.get_secret_value()
    give_up = time.monotonic() + _PRIMARY_START_SECONDS
    while True:
        try:
            await asyncio.to_thread(migrate, url, Database.PRIMARY)
        except NewerDatabaseError as error:
            _log.error("database_newer", reason=str(error))
            raise
        except exc.OperationalError as error:
            if time.monotonic() > give_up:
                raise
            _log.warning("primary_not_ready", error_class=type(error.orig).__name__)
            await asyncio.sleep(1.0)
        else:
            return
