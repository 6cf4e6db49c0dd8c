"""The operator process."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import kopf
import structlog
from pydantic import ValidationError

from shadowfault_operator import logs
from shadowfault_operator.accounts import HttpAccounts
from shadowfault_operator.client import ApiClient
from shadowfault_operator.clock import Clock
from shadowfault_operator.connection import connection
from shadowfault_operator.controller import Controller
from shadowfault_operator.disarm import HttpDisarmer
from shadowfault_operator.echoes import Echoes
from shadowfault_operator.halt import Halt
from shadowfault_operator.handlers import Watches, kopf_settings
from shadowfault_operator.health import serve
from shadowfault_operator.known import Known
from shadowfault_operator.kube import (
    KubeAnnouncer,
    KubeExperiments,
    KubeSchedules,
    KubeSurroundings,
    KubeTargets,
)
from shadowfault_operator.metrics import Metrics
from shadowfault_operator.permissions import Permissions, needed
from shadowfault_operator.reconcile import Reconciler
from shadowfault_operator.schedules import Schedules
from shadowfault_operator.scrape import HttpScraper
from shadowfault_operator.settings import Settings
from shadowfault_operator.stopwatch import StopWatch
from shadowfault_operator.sweep import Sweeper

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger(__name__)
_OK: Final = 0
_FAILED: Final = 1
_MISCONFIGURED: Final = 2


def run() -> int:
    """Run until SIGTERM or SIGINT. Returns the exit status: 0 stopped, 1 failed, 2 misconfigured."""
    try:
        settings = Settings()
    except ValidationError as error:
        for item in error.errors():
            print(f"shadowfault operator: {'.'.join(map(str, item['loc']))}: {item['msg']}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return _MISCONFIGURED
    logs.configure(settings.log_level, settings.log_format)
    try:
        connection(kopf_settings())
    except (kopf.LoginError, OSError, KeyError) as error:
        _log.error("no cluster to connect to", error=str(error))
        return _MISCONFIGURED
    try:
        asyncio.run(_operate(settings))
    except Exception:  # noqa: BLE001 - the exit status says that it failed, the log says why
        _log.exception("the operator failed")
        return _FAILED
    return _OK


@dataclass(frozen=True)
class Assembly:
    """The parts of an operator, wired to one another."""

    client: ApiClient
    known: Known
    metrics: Metrics
    disarmer: HttpDisarmer
    accounts: HttpAccounts
    controller: Controller
    sweeper: Sweeper
    halt: Halt
    scraper: HttpScraper
    stopwatch: StopWatch
    permissions: Permissions
    echoes: Echoes
    schedules: Schedules


def assemble(settings: Settings, client: ApiClient, now: Callable[[], datetime]) -> Assembly:
    """Wire up everything but the watches: what they see goes into `known` and `controller.enqueue`."""
    known = Known()
    metrics = Metrics(known, now, halt=lambda: halt.state)
    clock = Clock(now)
    experiments = KubeExperiments(client, settings.namespaces)
    targets = KubeTargets(client, settings.namespaces)
    surroundings = KubeSurroundings(client)
    disarmer = HttpDisarmer(surroundings, metrics)
    accounts = HttpAccounts(surroundings, clock, done=lambda key: controller.enqueue_late(key))  # noqa: PLW0108 - made below
    halt = Halt(client, settings.namespace, changed=lambda: controller.enqueue_all())  # noqa: PLW0108 - made below
    scraper = HttpScraper()
    echoes = Echoes(lambda key: controller.enqueue(key))  # noqa: PLW0108 - made below
    stopwatch = StopWatch(
        surroundings,
        scraper,
        metrics,
        changed=lambda key: controller.enqueue(key),  # noqa: PLW0108 - made below
        every_seconds=settings.scrape_seconds,
    )
    controller = Controller(
        reconciler=Reconciler(
            experiments=experiments,
            targets=targets,
            surroundings=surroundings,
            announcer=KubeAnnouncer(client),
            disarmer=disarmer,
            accounts=accounts,
            known=known,
            metrics=metrics,
            clock=clock,
            halt=lambda: halt.state,
            watch=stopwatch,
            echoes=echoes,
            pressing=lambda: controller.pressing,
            later=lambda key: controller.enqueue_late(key),  # noqa: PLW0108 - made below
        ),
        experiments=experiments,
        known=known,
        metrics=metrics,
        clock=clock,
        workers=settings.workers,
        resync_seconds=settings.resync_seconds,
    )
    sweeper = Sweeper(experiments, targets, metrics, every_seconds=settings.resync_seconds)
    permissions = Permissions(
        client,
        metrics,
        lambda: needed(
            settings.namespaces,
            {*settings.namespaces, *(key.namespace for key in known.unsettled())},
            settings.namespace,
        ),
        every_seconds=settings.resync_seconds,
    )
    client.forbidden = permissions.refused
    schedules = Schedules(
        KubeSchedules(client, settings.namespaces),
        metrics.schedules,
        now,
        resync_seconds=settings.resync_seconds,
    )
    return Assembly(
        client,
        known,
        metrics,
        disarmer,
        accounts,
        controller,
        sweeper,
        halt,
        scraper,
        stopwatch,
        permissions,
        echoes,
        schedules,
    )


async def _operate(settings: Settings) -> None:
    framework = kopf_settings()
    parts = assemble(settings, ApiClient(partial(connection, framework)), partial(datetime.now, UTC))
    known, metrics, controller = parts.known, parts.metrics, parts.controller
    started = asyncio.Event()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(parts.client.close)
        stack.push_async_callback(parts.disarmer.close)
        stack.push_async_callback(parts.accounts.close)
        stack.push_async_callback(parts.scraper.close)
        port = await stack.enter_async_context(serve(settings.host, settings.port, metrics, started.is_set))
        _log.info("serving health and metrics", host=settings.host, port=port)
        # Kopf ends every task that began after it: those that must outlive it are made before.
        parts_of_it = {
            "controller": controller.run(),
            "sweeper": parts.sweeper.run(),
            "halt": parts.halt.run(),
            "stopwatch": parts.stopwatch.run(),
            "permissions": parts.permissions.run(),
            "schedules": parts.schedules.run(),
        }
        tasks = [asyncio.create_task(work, name=name) for name, work in parts_of_it.items()]
        await asyncio.sleep(0)
        watch: asyncio.Task[None] = asyncio.create_task(
            kopf.operator(
                registry=Watches(
                    known,
                    controller.enqueue,
                    pods_changed=parts.stopwatch.target_changed,
                    target_changed=parts.echoes.changed,
                    schedule_changed=parts.schedules.enqueue,
                    stopping=parts.accounts.stop,
                ).registry(),
                settings=framework,
                clusterwide=not settings.namespaces,
                namespaces=settings.namespaces,
                standalone=True,
                ready_flag=started,
            ),
            name="kopf",
        )
        # Whichever ends first takes the others along: none is of use alone.
        await asyncio.wait({*tasks, watch}, return_when=asyncio.FIRST_COMPLETED)
        for task in (watch, *reversed(tasks)):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
