"""Everything one process has, put together."""

from __future__ import annotations

from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Final

from shadowfault_api.accounts.accounting import Accounting
from shadowfault_api.accounts.store import AccountStore
from shadowfault_api.accounts.tally import Tally
from shadowfault_api.deadline import Deadline
from shadowfault_api.http.resources import Resources
from shadowfault_api.jobs import Jobs
from shadowfault_api.metrics import Metrics
from shadowfault_api.reads import Reads
from shadowfault_api.refresh import Refresh
from shadowfault_api.shadow.breaker import CircuitBreaker
from shadowfault_api.shadow.path import ShadowPath
from shadowfault_api.shadow.settle import Settler
from shadowfault_api.shadow.writer import ShadowWriter, WriterOptions
from shadowfault_api.store.figures import read_figures
from shadowfault_api.store.job_runs import JobRuns
from shadowfault_api.store.outbox import Outbox
from shadowfault_api.store.primary import ListingStore, Primary
from shadowfault_api.store.shadow import Shadow
from shadowfault_api.verification import verification

if TYPE_CHECKING:
    from shadowfault import FaultInjector
    from shadowfault_api.engines import Engines
    from shadowfault_api.settings import Settings
    from shadowfault_api.tracing import Tracing

_PROBE_SECONDS: Final = 1.0


def shadow_path(settings: Settings, engines: Engines, tracing: Tracing) -> ShadowPath:
    """Build the way from the outbox to the shadow."""
    return ShadowPath(
        Outbox(Primary(engines.requests), claim_seconds=settings.shadow_claim_seconds),
        Shadow(
            settings.shadow_database_url.get_secret_value(),
            engines.shadow,
            engines.shadow_reads,
            migrate_timeout_seconds=settings.shadow_timeout_seconds,
        ),
        CircuitBreaker(settings.shadow_breaker_failures, settings.shadow_breaker_reset_seconds),
        Deadline(settings.shadow_timeout_seconds),
        Metrics(),
        tracing,
    )


def resources(
    settings: Settings, engines: Engines, path: ShadowPath, injector: FaultInjector | None
) -> Resources:
    """Build what routes need."""
    primary = path.outbox.primary
    store = ListingStore(primary)
    writer = ShadowWriter(path, Settler(path, injector), _writer_options(settings))
    path.metrics.watch(lambda: writer.queue_depth, path.breaker)
    runs = JobRuns(primary)
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
        tally=Tally(AccountStore(primary), injector),
        accounting=Accounting(AccountStore(Primary(engines.accounting)), jobs, runs),
        probe_deadline=Deadline(_PROBE_SECONDS),
        refresh=Refresh(
            partial(read_figures, Primary(engines.counting)),
            path.metrics,
            deadline_seconds=settings.database_timeout_seconds,
        ),
        tracing=path.tracing,
        stopping=stopping,
    )


def _writer_options(settings: Settings) -> WriterOptions:
    return WriterOptions(
        queue_size=settings.shadow_queue_size,
        batch_size=settings.shadow_batch_size,
        batch_seconds=settings.shadow_batch_seconds,
        claim_seconds=settings.shadow_claim_seconds,
        sweep_seconds=settings.shadow_sweep_seconds,
        give_up_seconds=settings.shadow_give_up_seconds,
    )
