"""Kopf as the eyes: watch events become keys in the queue, and nothing else.

Only `on.event` handlers are registered. Kopf then writes nothing to any object: no annotations that would
leak from Deployments into ReplicaSets, no finalizer whose release by a failed handler would leave chaos on.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Final

import kopf

from shadowfault_operator.connection import connection
from shadowfault_operator.echoes import fingerprint
from shadowfault_operator.model import (
    GROUP,
    PLURAL,
    SCHEDULE_LABEL,
    SCHEDULES,
    VERSION,
    Key,
    parse_experiment,
)
from shadowfault_operator.target import Target

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from shadowfault_operator.known import Known
    from shadowfault_operator.model import Json

_WATCHES_END_SECONDS: Final = 0.2
_BACKOFFS: Final = (0.5, 1.0, 2.0, 5.0, 10.0)


class _Forever:
    """Backoffs of kopf's own requests that never run out: a watch that gives up would never come back."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain(_BACKOFFS, itertools.repeat(_BACKOFFS[-1]))


def kopf_settings() -> kopf.OperatorSettings:
    """Settings of the framework. Each is there for a known way to miss something."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    # A watch can stall without a word: it ends after five minutes in any case, and begins again.
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 30
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = _Forever()
    return settings


class Watches:
    """What is watched, and where it goes."""

    def __init__(  # noqa: PLR0913 - by name
        self,
        known: Known,
        enqueue: Callable[[Key], None],
        *,
        pods_changed: Callable[[Key, int], None] = lambda _key, _ready: None,
        target_changed: Callable[[Key, int], None] | None = None,
        schedule_changed: Callable[[Key], None] = lambda _key: None,
        stopping: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._known = known
        self._enqueue = enqueue
        self._pods_changed = pods_changed
        self._target_changed = target_changed or (lambda key, _seen: enqueue(key))
        self._enqueue_schedule = schedule_changed
        self._stopping = stopping
        self._deployments: dict[Key, int] = {}

    def registry(self) -> kopf.OperatorRegistry:
        """The handlers, for kopf.operator."""
        handlers = kopf.OperatorRegistry()
        kopf.on.login(registry=handlers)(_login)
        kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)(self.experiment_changed)
        kopf.on.event(GROUP, VERSION, SCHEDULES, registry=handlers)(self.schedule_changed)
        kopf.on.event("apps", "v1", "deployments", registry=handlers)(self.deployment_changed)
        kopf.on.event("", "v1", "namespaces", registry=handlers)(self.namespace_changed)
        if self._stopping is not None:
            kopf.on.cleanup(registry=handlers, errors=kopf.ErrorsMode.PERMANENT)(self.cleanup)
        return handlers

    async def cleanup(self, **_: object) -> None:
        """Kopf gives tasks that are still there five seconds: what need not end by itself is ended first.

        That goes for one of its own as well: the task that waits for a pause, of which there is none here, is
        left behind by a watch whose generator nobody closed when its task was cancelled.
        """
        if self._stopping is not None:
            await self._stopping()
        asyncio.get_running_loop().call_later(_WATCHES_END_SECONDS, _end_pause_waiters)

    async def experiment_changed(self, event: kopf.RawEvent, **_: object) -> None:
        experiment = parse_experiment(dict(event["object"]))
        if event["type"] == "DELETED":
            self._known.forget(experiment.key, experiment.uid)
        elif self._known.update(experiment):
            self._enqueue(experiment.key)
        schedule = (event["object"]["metadata"].get("labels") or {}).get(SCHEDULE_LABEL)
        if schedule:
            self._enqueue_schedule(Key(experiment.key.namespace, schedule))

    async def schedule_changed(self, event: kopf.RawEvent, **_: object) -> None:
        metadata = event["object"]["metadata"]
        self._enqueue_schedule(Key(metadata["namespace"], metadata["name"]))

    async def deployment_changed(self, event: kopf.RawEvent, **_: object) -> None:
        raw: Json = dict(event["object"])
        key = Key(raw["metadata"]["namespace"], raw["metadata"]["name"])
        concerned = self._known.unsettled_on(key)
        if not concerned:
            self._deployments.pop(key, None)
            return
        target = Target(raw)
        for experiment in concerned:
            self._pods_changed(experiment, target.ready_replicas)
        seen = fingerprint(target if event["type"] != "DELETED" else None)
        if self._deployments.get(key) != seen:
            self._deployments[key] = seen
            for experiment in concerned:
                self._target_changed(experiment, seen)

    async def namespace_changed(self, event: kopf.RawEvent, **_: object) -> None:
        raw: Json = dict(event["object"])
        for key in self._known.unsettled_in(raw["metadata"]["name"]):
            self._enqueue(key)


def _end_pause_waiters() -> None:
    for task in asyncio.all_tasks():
        if task.get_name().startswith("pause-waiter"):
            task.cancel()


def _login(settings: kopf.OperatorSettings, **_: object) -> kopf.ConnectionInfo:
    return connection(settings)
