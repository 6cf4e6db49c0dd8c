"""ChaosSchedules: creates what is due, drops what is beyond the history, and says so in the status.

Apart from the controller of experiments: nothing here is in the way of a restore. What it creates is an
experiment like any other, with every safety net of its own start still before it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from shadowfault_operator.clock import Clock
from shadowfault_operator.conditions import Conditions
from shadowfault_operator.deadlines import Deadlines
from shadowfault_operator.durations import format_instant, parse_instant
from shadowfault_operator.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from shadowfault_operator.model import GROUP, KIND, SCHEDULE_KIND, SCHEDULE_LABEL, VERSION, Key
from shadowfault_operator.reasons import EventType
from shadowfault_operator.schedule import (
    InvalidScheduleError,
    ScheduleSpec,
    experiment_name,
    last_start,
    outdated,
    parse_schedule_spec,
    plan,
    unfinished,
)
from shadowfault_operator.workqueue import WorkQueue

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from shadowfault_operator.kube import KubeSchedules
    from shadowfault_operator.model import Experiment, Json

_log = structlog.get_logger(__name__)
_RETRY_SECONDS: Final = 5.0


@dataclass(frozen=True)
class _Outcome:
    """What a pass came to: of `problem` (reason, message) the schedule is stalled."""

    last: datetime | None
    next: datetime | None = None
    active: tuple[Experiment, ...] = ()
    problem: tuple[str, str] | None = None


class Schedules:
    """Works on schedules: those that watches, their times and the resync put in."""

    def __init__(
        self, schedules: KubeSchedules, now: Callable[[], datetime], *, resync_seconds: float
    ) -> None:
        self._schedules = schedules
        self._clock = Clock(now)
        self._resync_seconds = resync_seconds
        self._queue: WorkQueue[Key] = WorkQueue()
        self._deadlines = Deadlines(self._queue.add, self._clock)

    def enqueue(self, key: Key) -> None:
        """Have the schedule looked at."""
        self._queue.add(key)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deadlines.run(), name="times of schedules")
            group.create_task(self._resync(), name="resync of schedules")
            group.create_task(self._work(), name="schedules")

    async def _work(self) -> NoReturn:
        while True:
            async with self._queue.next() as key:
                await self._one(key)

    async def _one(self, key: Key) -> None:
        try:
            until = await self.reconcile(key)
        except (ApiError, UnavailableError) as error:
            self._queue.retry(key, at_least=getattr(error, "retry_after", None) or 0.0)
            _log.warning("schedule not seen to, will be tried again", schedule=str(key), error=str(error))
        except Exception:  # noqa: BLE001 - one schedule that trips us up must not stop the others
            self._queue.retry(key)
            _log.exception("schedule failed, will be tried again", schedule=str(key))
        else:
            self._queue.succeeded(key)
            self._deadlines.set(key, until)

    async def _resync(self) -> NoReturn:
        while True:
            pause = self._resync_seconds
            try:
                for key in await self._schedules.keys():
                    self.enqueue(key)
            except (ApiError, UnavailableError) as error:
                pause = min(pause, _RETRY_SECONDS)
                _log.warning("schedules not listed", error=str(error))
            await asyncio.sleep(pause)

    async def reconcile(self, key: Key) -> datetime | None:
        """One pass; returns when the next is due at the latest.

        Raises:
            ApiError, UnavailableError: to be tried again.
        """
        raw = await self._schedules.get(key)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            # What it created goes by its owner reference.
            self._clock.forget(key)
            return None
        now = self._clock.now(key)
        status = raw.get("status") if isinstance(raw.get("status"), dict) else {}
        last = _instant((status or {}).get("lastScheduleTime"))
        try:
            spec = parse_schedule_spec(raw.get("spec"))
            outcome = await self._act(raw, spec, last, now)
        except InvalidScheduleError as error:
            outcome = _Outcome(last, problem=(error.reason, str(error)))
        await self._say(raw, outcome, now)
        return outcome.next

    async def _act(self, raw: Json, spec: ScheduleSpec, last: datetime | None, now: datetime) -> _Outcome:
        key = Key(raw["metadata"]["namespace"], raw["metadata"]["name"])
        created = parse_instant(raw["metadata"]["creationTimestamp"])
        children = await self._schedules.experiments_of(key, raw["metadata"]["uid"])
        # An operator that died before it wrote the status is not to start the same again.
        last = last_start(key.name, last, children)
        active = unfinished(children)
        found = plan(spec, last=last, created=created, now=now, active=len(active))
        outcome = _Outcome(last, found.next, tuple(active))
        if found.start is not None:
            outcome = await self._start(raw, spec, found.start, outcome)
            _log.info("schedule due", schedule=str(key), due=found.start.isoformat(), missed=found.missed)
        for one in outdated(spec, children):
            await self._drop(one)
        return outcome

    async def _start(self, raw: Json, spec: ScheduleSpec, time: datetime, outcome: _Outcome) -> _Outcome:
        body = experiment_from(raw, spec, time)
        namespace = raw["metadata"]["namespace"]
        try:
            created = await self._schedules.create_experiment(namespace, body)
        except AlreadyExistsError:
            # By us before we could say so, or by a second operator.
            return replace(outcome, last=time)
        except RefusedError as error:
            # Tried again by the resync and by any change, for as long as it is not too late.
            return replace(outcome, problem=("ExperimentNotCreated", str(error)))
        return replace(outcome, last=time, active=(*outcome.active, created))

    async def _drop(self, experiment: Experiment) -> None:
        try:
            await self._schedules.delete_experiment(experiment)
        except (NotFoundError, ConflictError):
            return  # gone, or looked at again as it has changed
        except RefusedError as error:
            _log.warning("history not pruned", experiment=str(experiment.key), error=str(error))

    async def _say(self, raw: Json, outcome: _Outcome, now: datetime) -> None:
        """Write the status where it has changed, and one Event for each problem."""
        before = raw.get("status") if isinstance(raw.get("status"), dict) else {}
        previous = (before or {}).get("conditions")
        conditions = tuple(item for item in previous or () if isinstance(item, dict))
        generation = int(raw["metadata"].get("generation", 1))
        reason, message = outcome.problem or ("Scheduled", "experiments are created when they are due")
        after = {
            "observedGeneration": generation,
            "lastScheduleTime": outcome.last and format_instant(outcome.last),
            "nextScheduleTime": outcome.next and format_instant(outcome.next),
            "active": [{"name": one.key.name, "uid": one.uid} for one in outcome.active],
            "conditions": list(
                Conditions(conditions, generation, now).standing(outcome.problem is not None, reason, message)
            ),
        }
        if all((before or {}).get(field) == value for field, value in after.items()):
            return
        await self._schedules.set_status(raw, after)
        if outcome.problem is not None:
            await self._schedules.announce(raw, EventType.WARNING, reason, message, now)


def experiment_from(raw: Json, spec: ScheduleSpec, time: datetime) -> Json:
    """The experiment of a schedule for that time, owned by it."""
    name, template = raw["metadata"]["name"], spec.experiment_template
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {
            "name": experiment_name(name, time),
            "labels": {**template.metadata.labels, SCHEDULE_LABEL: name},
            "annotations": template.metadata.annotations,
            "ownerReferences": [
                {
                    "apiVersion": f"{GROUP}/{VERSION}",
                    "kind": SCHEDULE_KIND,
                    "name": name,
                    "uid": raw["metadata"]["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": template.spec,
    }


def _instant(text: object) -> datetime | None:
    try:
        return parse_instant(text) if isinstance(text, str) else None
    except ValueError:
        return None
