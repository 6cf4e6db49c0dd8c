"""The app: everything one process has, put together and taken apart again."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from functools import partial
from importlib import metadata
from threading import Event
from typing import TYPE_CHECKING, Any, Final

import structlog
from fastapi import FastAPI
from sqlalchemy import exc

from shadowfault_api.accounts.accounting import Accounting
from shadowfault_api.accounts.store import AccountStore
from shadowfault_api.accounts.tally import Tally
from shadowfault_api.evidence.sealing import Sealing
from shadowfault_api.http import admin, listings, operations, problems, repairs
from shadowfault_api.http.middleware import InFlight, RequestMiddleware
from shadowfault_api.http.resources import Resources
from shadowfault_api.jobs import Jobs
from shadowfault_api.metrics import Metrics
from shadowfault_api.reads import Reads
from shadowfault_api.refresh import Refresh
from shadowfault_api.shadow.breaker import CircuitBreaker
from shadowfault_api.shadow.deadline import Deadline, Grace
from shadowfault_api.shadow.path import ShadowPath
from shadowfault_api.shadow.settle import Settler
from shadowfault_api.shadow.writer import ShadowWriter, WriterOptions
from shadowfault_api.store.figures import read_figures
from shadowfault_api.store.job_runs import JobRuns
from shadowfault_api.store.migrate import Database, NewerDatabaseError, migrate
from shadowfault_api.store.outbox import Outbox
from shadowfault_api.store.primary import ListingStore, Primary
from shadowfault_api.store.shadow import Shadow
from shadowfault_api.store.urls import create_asynchronous_engine
from shadowfault_api.tracing import NoTracing
from shadowfault_api.verification import verification

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from shadowfault import FaultInjector
    from shadowfault_api.settings import Settings
    from shadowfault_api.tracing import Tracing

_log: Final = structlog.get_logger("shadowfault.app")
# Connections to the shadow. Writes are one batch at a time; the others are of calls left to time out.
_SHADOW_WRITES: Final = 4
_SHADOW_READS: Final = 8
_PROBE_SECONDS: Final = 1.0
# Of the time a scrape's figures may take each of the questions has a part, and a little is left.
_QUESTIONS: Final = 6
_ACCOUNT_SECONDS: Final = 120.0
_TRACES_SECONDS: Final = 2.0
_PRIMARY_START_SECONDS: Final = 30.0


def create_app(settings: Settings, injector: FaultInjector | None, tracing: Tracing | None = None) -> FastAPI:
    """Build the app. Nothing is connected before its lifespan begins, which also migrates both databases.

    Args:
        injector: what `shadowfault.boot()` gave; None installs nothing.
        tracing: what `create_tracing` gave; None is off.
    """
    path = _shadow_path(settings, tracing or NoTracing())
    # What a scrape counts, and what an account does, may take long: no request is to wait for it, nor one of
    # them for the other.
    counting = _engine_beside(settings, settings.database_timeout_seconds / _QUESTIONS)
    accounting = _engine_beside(settings, _ACCOUNT_SECONDS)
    resources = _resources(settings, injector, path, Primary(counting), Primary(accounting))
    in_flight = InFlight()
    sealing = Sealing.from_settings(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        resources: Resources = app.state.resources
        await _migrate_primary(settings)
        await resources.tally.start()
        await resources.writer.start()
        resources.jobs.start()
        if sealing is not None:
            sealing.start()
        try:
            yield
        finally:
            app.state.draining = True
            resources.stopping.set()
            grace = Grace(settings.shutdown_grace_seconds)
            # Before anything is counted for the last time: what the server has cancelled is answered.
            await in_flight.abandon()
            if sealing is not None:
                sealing.request_stop()
            await resources.writer.stop(grace.left())
            await resources.tally.stop(grace.left())
            await resources.jobs.stop(grace.left())
            if sealing is not None:
                await asyncio.to_thread(sealing.stop, grace.left())
            await resources.refresh.close()
            for engine in (counting, accounting, resources.primary.engine):
                await engine.dispose()
            await path.shadow.close()
            await asyncio.to_thread(path.tracing.close, _TRACES_SECONDS)

    app = FastAPI(
        title="Shadowfault listings",
        description="A dual write: every listing goes to a primary store and, later, to a shadow store.",
        version=metadata.version("shadowfault"),
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.resources = resources
    app.state.draining = False
    for router in (listings.router, operations.router, admin.router, repairs.router):
        app.include_router(router)
    problems.install(app)
    app.add_middleware(
        RequestMiddleware,
        metrics=resources.metrics,
        tally=resources.tally,
        draining=lambda: bool(app.state.draining),
        tracing=path.tracing,
        in_flight=in_flight,
    )
    _declare_problems(app)
    return app


def _shadow_path(settings: Settings, tracing: Tracing) -> ShadowPath:
    primary_url = settings.database_url.get_secret_value()
    shadow_url = settings.shadow_database_url.get_secret_value()
    engine = create_asynchronous_engine(
        primary_url,
        timeout_seconds=settings.database_timeout_seconds,
        statement_timeout_seconds=settings.database_timeout_seconds,
        **_pool(settings.database_pool_size, settings.database_timeout_seconds),
    )
    shadow_engine, shadow_reads = (
        create_asynchronous_engine(
            shadow_url,
            timeout_seconds=settings.shadow_timeout_seconds,
            statement_timeout_seconds=settings.shadow_timeout_seconds,
            **_pool(size, settings.shadow_timeout_seconds),
        )
        for size in (_SHADOW_WRITES, _SHADOW_READS)
    )
    breaker = CircuitBreaker(settings.shadow_breaker_failures, settings.shadow_breaker_reset_seconds)
    return ShadowPath(
        Outbox(Primary(engine), claim_seconds=settings.shadow_claim_seconds),
        Shadow(
            shadow_url,
            shadow_engine,
            shadow_reads,
            migrate_timeout_seconds=settings.shadow_timeout_seconds,
        ),
        breaker,
        Deadline(settings.shadow_timeout_seconds),
        Metrics(),
        tracing,
    )


def _pool(size: int, timeout_seconds: float) -> dict[str, Any]:
    return {"pool_size": size, "max_overflow": 0, "pool_timeout": timeout_seconds}


def _engine_beside(settings: Settings, statement_timeout_seconds: float) -> AsyncEngine:
    """Build an engine with one connection to the primary, beside those of requests."""
    return create_asynchronous_engine(
        settings.database_url.get_secret_value(),
        timeout_seconds=settings.database_timeout_seconds,
        statement_timeout_seconds=statement_timeout_seconds,
        **_pool(1, settings.database_timeout_seconds),
    )


def _resources(
    settings: Settings,
    injector: FaultInjector | None,
    path: ShadowPath,
    counting: Primary,
    accounting: Primary,
) -> Resources:
    primary = path.outbox.primary
    store = ListingStore(primary)
    options = WriterOptions(
        queue_size=settings.shadow_queue_size,
        batch_size=settings.shadow_batch_size,
        batch_seconds=settings.shadow_batch_seconds,
        claim_seconds=settings.shadow_claim_seconds,
        sweep_seconds=settings.shadow_sweep_seconds,
        give_up_seconds=settings.shadow_give_up_seconds,
    )
    writer = ShadowWriter(path, Settler(path, injector), options)
    path.metrics.watch(lambda: writer.queue_depth, path.breaker)
    runs, accounts = JobRuns(primary), AccountStore(primary)
    stopping = Event()
    jobs = Jobs(
        runs,
        verification(settings),
        settings.verifier_interval_seconds,
        settings.verifier_schedule,
        stopping,
    )
    return Resources(
        settings=settings,
        injector=injector,
        metrics=path.metrics,
        primary=primary,
        listings=store,
        reads=Reads(store, path, injector),
        writer=writer,
        jobs=jobs,
        tally=Tally(accounts, injector),
        accounting=Accounting(AccountStore(accounting), jobs, runs),
        probe_deadline=Deadline(_PROBE_SECONDS),
        refresh=Refresh(
            partial(read_figures, counting),
            path.metrics,
            deadline_seconds=settings.database_timeout_seconds,
        ),
        tracing=path.tracing,
        stopping=stopping,
    )


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


def _declare_problems(app: FastAPI) -> None:
    """Put the problem document's schema beside those FastAPI collects."""
    collect = app.openapi

    def openapi() -> dict[str, Any]:
        document = collect()
        document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = problems.SCHEMA
        return document

    app.openapi = openapi  # type: ignore[method-assign]
