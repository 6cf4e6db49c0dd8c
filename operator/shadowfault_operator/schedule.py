"""When a ChaosSchedule is due, as a CronJob would be: pure decisions over cron times and time zones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from shadowfault_operator.model import Json, Phase
from shadowfault_operator.verdict import Result

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shadowfault_operator.model import Experiment

_FIELDS: Final = 5
_MINUTE: Final = 60


class _Camel(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class TemplateMetadata(_Camel):
    """What each experiment carries beside what the operator writes."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Template(_Camel):
    """The experiments to be. Their spec is judged when they start, as any experiment's is."""

    metadata: TemplateMetadata = TemplateMetadata()
    spec: Json


class ScheduleSpec(_Camel):
    """The spec of a ChaosSchedule. Defaults are those of the schema; seconds where a name says so."""

    schedule: str
    time_zone: str = "UTC"
    suspend: bool = False
    concurrency_policy: Literal["Forbid"] = "Forbid"
    # A day at most: what is owed is looked for time by time.
    starting_deadline_seconds: Annotated[int, Field(ge=10, le=86400, strict=True)] = 300
    successful_experiments_history_limit: Annotated[int, Field(ge=0, strict=True)] = 3
    failed_experiments_history_limit: Annotated[int, Field(ge=0, strict=True)] = 1
    experiment_template: Template


class InvalidScheduleError(Exception):
    """A schedule that nothing can be started by; `reason` is one word, the text is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Plan:
    """What is to be done now.

    `start` is the time of the experiment to be created now, `held` the one that another experiment of the
    schedule is in the way of; `next` the first time yet to come, None while nothing is to be waited for.
    """

    start: datetime | None = None
    held: datetime | None = None
    next: datetime | None = None


def parse_schedule_spec(raw: object) -> ScheduleSpec:
    """The typed spec.

    Raises:
        InvalidScheduleError: it cannot be understood.
    """
    try:
        return ScheduleSpec.model_validate(raw)
    except ValidationError as error:
        details = (f"spec.{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise InvalidScheduleError("InvalidSpec", "; ".join(details)) from None


def plan(spec: ScheduleSpec, *, last: datetime | None, created: datetime, now: datetime, active: int) -> Plan:
    """Decide what is due.

    Of the times that have passed since the last start only the latest is made up for, and only within the
    starting deadline: what was missed is no reason to catch up with chaos.

    Args:
        last: the latest time that was decided: an experiment was started for it, or it was given up.
        created: when the schedule was created; nothing before is owed.
        active: experiments of the schedule that have not ended.

    Raises:
        InvalidScheduleError: no such expression or time zone, or one that is never due.
    """
    deadline = timedelta(seconds=spec.starting_deadline_seconds)
    since = max(decided_until(spec, last, created=created, now=now), now - deadline)
    passed: list[datetime] = []
    following = None
    for time in _times(spec, since):
        # A local time of the hour that comes twice may lie before where the search began.
        if time <= since:
            continue
        if time > now:
            following = time
            break
        passed.append(time)
    if following is None:
        raise InvalidScheduleError("InvalidSchedule", f"spec.schedule: {spec.schedule!r} is never due")
    if spec.suspend:
        return Plan()
    if not passed:
        return Plan(next=following)
    if active:
        return Plan(held=passed[-1], next=following)
    return Plan(start=passed[-1], next=following)


def decided_until(spec: ScheduleSpec, *times: datetime | None, created: datetime, now: datetime) -> datetime:
    """The latest of these times, else that of the creation.

    One far ahead is of a clock that was wrong: it must not hold off everything until then.
    """
    latest = now + timedelta(seconds=spec.starting_deadline_seconds)
    return max((time for time in times if time is not None and time <= latest), default=created)


def times_before(spec: ScheduleSpec, time: datetime) -> Iterable[datetime]:
    """The times before that one, the latest first, in UTC.

    Raises:
        InvalidScheduleError: no such expression or time zone.
    """
    return (found for found in _times(spec, time, backwards=True) if found < time)


def _times(spec: ScheduleSpec, since: datetime, *, backwards: bool = False) -> Iterable[datetime]:
    """The times from about `since` on, in UTC: those of one zone compare by what their clocks show."""
    if len(spec.schedule.split()) != _FIELDS:
        raise InvalidScheduleError(
            "InvalidSchedule",
            f"spec.schedule: {spec.schedule!r} has not cron's five fields, such as 0 3 * * 1-5",
        )
    try:
        zone = ZoneInfo(spec.time_zone)
    except (KeyError, ValueError, OSError):
        raise InvalidScheduleError(
            "InvalidTimeZone",
            f"spec.timeZone: {spec.time_zone!r} is no time zone of the IANA database, such as Europe/Berlin",
        ) from None
    try:
        times = CronSim(spec.schedule, since.astimezone(zone), reverse=backwards)
    except CronSimError as error:
        raise InvalidScheduleError(
            "InvalidSchedule", f"spec.schedule: {spec.schedule!r} is not in cron's notation: {error}"
        ) from None
    return (time.astimezone(UTC) for time in times)


def experiment_name(schedule: str, time: datetime) -> str:
    """The same for the same time, so that it is created once whoever tries."""
    return f"{schedule}-{int(time.timestamp()) // _MINUTE}"


def time_of(schedule: str, experiment: Experiment) -> datetime | None:
    """The time that it was created for, by its name; None of one that is named otherwise."""
    minute = experiment.key.name.removeprefix(f"{schedule}-")
    if not (minute.isascii() and minute.isdigit() and len(minute) < 10):
        return None
    return datetime.fromtimestamp(int(minute) * _MINUTE, UTC)


def last_start(schedule: str, last: datetime | None, experiments: Iterable[Experiment]) -> datetime | None:
    """The latest time that something was started for: what is there counts, should the status not say so."""
    times = (last, *(time_of(schedule, one) for one in experiments))
    return max((time for time in times if time is not None), default=None)


def unfinished(experiments: Iterable[Experiment]) -> list[Experiment]:
    """Those that have not ended; one that is about to be deleted is until its target is restored."""
    return [one for one in experiments if one.status.phase is None or not one.status.phase.final]


def outdated(spec: ScheduleSpec, experiments: Iterable[Experiment]) -> list[Experiment]:
    """Those that have ended and are beyond the limits of the history, the oldest first.

    Failed are those that were refused, and those whose verdict is anything but Passed. One whose verdict is
    yet to come is in no history.
    """
    ended = sorted(
        (
            one
            for one in experiments
            if one.status.phase is not None
            and one.status.phase.final
            and not one.deleting
            and not one.unjudged
        ),
        key=lambda one: (one.created_at, one.key.name),
    )
    failed = [one for one in ended if _failed(one)]
    successful = [one for one in ended if not _failed(one)]
    return [
        *successful[: max(0, len(successful) - spec.successful_experiments_history_limit)],
        *failed[: max(0, len(failed) - spec.failed_experiments_history_limit)],
    ]


def _failed(experiment: Experiment) -> bool:
    status = experiment.status
    verdict = status.verdict
    return status.phase is Phase.REFUSED or (verdict is not None and verdict.result is not Result.PASSED)
