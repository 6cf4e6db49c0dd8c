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
from shadowfault_operator.missed import Missed, Why, missed
from shadowfault_operator.model import GROUP, KIND, SCHEDULE_KIND, SCHEDULE_LABEL, VERSION, Key
from shadowfault_operator.reasons import EventType
from shadowfault_operator.schedule import (
    InvalidScheduleError,
    ScheduleSpec,
    decided_until,
    experiment_name,
    last_start,
    outdated,
    parse_schedule_spec,
    plan,
    time_of,
    unfinished,
)
from shadowfault_operator.schedule_metrics import State
from shadowfault_operator.workqueue import WorkQueue

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from shadowfault_operator.kube import KubeSchedules
    from shadowfault_operator.model import Experiment, Json
    from shadowfault_operator.schedule_metrics import ScheduleMetrics

_log = structlog.get_logger(__name__)
_RETRY_SECONDS: Final = 5.0
_NOT_CREATED: Final = "ExperimentNotCreated"
_MISSED: Final = "StartMissed"
_STANDING: Final = {
    State.ACTIVE: ("Scheduled", "experiments are created when they are due"),
    State.SUSPENDED: ("Suspended", "spec.suspend is true: no experiment is created"),
}


@dataclass(frozen=True)
class _Before:
    """What the status says, each field as if it were not there where it makes no sense.

    What lies before `counted_from` was due by another spec, or not at all, and is not counted as missed.
    """

    raw: Json
    last: datetime | None
    missed: datetime | None
    counted_from: datetime | None
    conditions: tuple[Json, ...]

    @classmethod
    def of(cls, raw: object) -> _Before:
        status = raw if isinstance(raw, dict) else {}
        given_up, conditions = status.get("lastMissed"), status.get("conditions")
        return cls(
            raw=status,
            last=_instant(status.get("lastScheduleTime")),
            missed=_instant(given_up.get("time")) if isinstance(given_up, dict) else None,
            counted_from=_instant(status.get("countedFrom")),
            conditions=tuple(item for item in conditions or () if isinstance(item, dict)),
        )

    @property
    def active(self) -> frozenset[str]:
        """UIDs of the experiments that had not ended."""
        listed = self.raw.get("active")
        return frozenset(str(one.get("uid")) for one in listed or () if isinstance(one, dict))

    @property
    def refused(self) -> bool:
        """Whether the API server did not take the experiment the last time."""
        return any(item.get("reason") == _NOT_CREATED for item in self.conditions)


@dataclass(frozen=True)
class _Outcome:
    """What a pass came to: of `problem` (reason, message) the schedule is stalled."""

    last: datetime | None
    next: datetime | None = None
    active: tuple[Experiment, ...] = ()
    problem: tuple[str, str] | None = None
    suspended: bool = False
    missed: Missed | None = None
    outdated: tuple[Experiment, ...] = ()

    @property
    def state(self) -> State:
        if self.problem is not None:
            return State.STALLED
        return State.SUSPENDED if self.suspended else State.ACTIVE


class Schedules:
    """Works on schedules: those that watches, their times and the resync put in."""

    def __init__(
        self,
        schedules: KubeSchedules,
        metrics: ScheduleMetrics,
        now: Callable[[], datetime],
        *,
        resync_seconds: float,
    ) -> None:
        self._schedules = schedules
        self._metrics = metrics
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
                keys = await self._schedules.keys()
                self._metrics.keep_only(keys)
                for key in keys:
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
            self._metrics.forget(key)
            return None
        now, before = self._clock.now(key), _Before.of(raw.get("status"))
        try:
            spec = parse_schedule_spec(raw.get("spec"))
            outcome = await self._act(raw, spec, before, now)
        except InvalidScheduleError as error:
            outcome = _Outcome(before.last, problem=(error.reason, str(error)))
        await self._say(raw, outcome, before, now)
        self._metrics.show(key, outcome.state, outcome.last, outcome.next)
        # After the status is stored: what is gone says no more that it was created.
        for one in outcome.outdated:
            await self._drop(one)
        return outcome.next

    async def _act(self, raw: Json, spec: ScheduleSpec, before: _Before, now: datetime) -> _Outcome:
        key = _key(raw)
        created = parse_instant(raw["metadata"]["creationTimestamp"])
        children = await self._schedules.experiments_of(key, raw["metadata"]["uid"])
        # An operator that died before it wrote the status is not to start the same again.
        last = last_start(key.name, before.last, children)
        active = unfinished(children)
        since = decided_until(spec, last, before.missed, created=created, now=now)
        found = plan(spec, last=since, created=created, now=now, active=len(active))
        # By the status alone: one that died before it wrote it has said nothing of what it missed.
        told = (before.last, before.missed, _counted_from(raw, before, now))
        given_up = missed(
            spec,
            found,
            since=decided_until(spec, *told, created=created, now=now),
            now=now,
            children=[(time_of(key.name, one) or one.created_at, one) for one in children],
            refused=before.refused,
            held=bool(before.active - {one.uid for one in children}),
        )
        outcome = _Outcome(
            last,
            found.next,
            tuple(active),
            suspended=spec.suspend,
            missed=given_up,
            outdated=tuple(outdated(spec, children)),
        )
        return outcome if found.start is None else await self._start(raw, spec, found.start, outcome)

    async def _start(self, raw: Json, spec: ScheduleSpec, time: datetime, outcome: _Outcome) -> _Outcome:
        key, body = _key(raw), experiment_from(raw, spec, time)
        name = body["metadata"]["name"]
        try:
            created = await self._schedules.create_experiment(key.namespace, body)
        except AlreadyExistsError:
            # By a second operator, since the look at what there is.
            children = await self._schedules.experiments_of(key, raw["metadata"]["uid"])
            if name in {one.key.name for one in children}:
                return replace(outcome, last=time, active=tuple(unfinished(children)))
            return replace(
                outcome, problem=(_NOT_CREATED, f"{name} is the name of somebody else's experiment")
            )
        except RefusedError as error:
            # Tried again by the resync and by any change, for as long as it is not too late.
            return replace(outcome, problem=(_NOT_CREATED, str(error)))
        self._metrics.created(key)
        _log.info("schedule due", schedule=str(key), due=time.isoformat(), experiment=name)
        return replace(outcome, last=time, active=(*outcome.active, created))

    async def _drop(self, experiment: Experiment) -> None:
        try:
            await self._schedules.delete_experiment(experiment)
        except (NotFoundError, ConflictError):
            return  # gone, or looked at again as it has changed
        except RefusedError as error:
            _log.warning("history not pruned", experiment=str(experiment.key), error=str(error))

    async def _say(self, raw: Json, outcome: _Outcome, before: _Before, now: datetime) -> None:
        """Write the status where it has changed, and one Event for each problem and for what was missed."""
        conditions = Conditions(before.conditions, _generation(raw), now)
        reason, message = outcome.problem or _STANDING[outcome.state]
        counted_from, given_up = _counted_from(raw, before, now), outcome.missed
        after: Json = {
            "observedGeneration": _generation(raw),
            "lastScheduleTime": outcome.last and format_instant(outcome.last),
            "nextScheduleTime": outcome.next and format_instant(outcome.next),
            "countedFrom": counted_from and format_instant(counted_from),
            "active": [{"name": one.key.name, "uid": one.uid} for one in outcome.active],
            "conditions": list(conditions.standing(outcome.problem is not None, reason, message)),
        }
        if given_up is not None:
            after["lastMissed"] = {"time": format_instant(given_up.latest), "reason": given_up.why.value}
        if all(before.raw.get(field) == value for field, value in after.items()):
            return
        await self._schedules.set_status(raw, after)
        if outcome.problem is not None:
            await self._schedules.announce(raw, EventType.WARNING, reason, message, now)
        if given_up is not None:
            self._metrics.missed(_key(raw), given_up)
            # That one waits for the other is what concurrencyPolicy asks for.
            kind = EventType.NORMAL if set(given_up.counts) == {Why.HELD} else EventType.WARNING
            await self._schedules.announce(raw, kind, _MISSED, str(given_up), now)


def _key(raw: Json) -> Key:
    return Key(raw["metadata"]["namespace"], raw["metadata"]["name"])


def _generation(raw: Json) -> int:
    return int(raw["metadata"].get("generation", 1))


def _counted_from(raw: Json, before: _Before, now: datetime) -> datetime | None:
    """From when on times count as missed: with a new spec, from the first look at it."""
    observed = before.raw.get("observedGeneration")
    return before.counted_from if observed in {None, _generation(raw)} else now.replace(microsecond=0)


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
