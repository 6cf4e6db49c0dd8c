"""Times of a schedule that nothing is created for any more, and why: pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from shadowfault_operator.schedule import times_before

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from shadowfault_operator.model import Experiment
    from shadowfault_operator.schedule import Plan, ScheduleSpec

# Of one that is due each minute, an hour and a half; what is before is not counted.
_MOST: Final = 100


class Why(StrEnum):
    """Why nothing was created for a time of a schedule."""

    HELD = "Held"
    REFUSED = "Refused"
    SUPERSEDED = "Superseded"
    TOO_LATE = "TooLate"

    @property
    def meaning(self) -> str:
        return _MEANING[self]


_MEANING: Final = {
    Why.HELD: "an experiment of the schedule had not ended",
    Why.REFUSED: "the API server did not take the experiment",
    Why.SUPERSEDED: "a later time was due as well by then, and only the latest is made up for",
    Why.TOO_LATE: "nobody was there until the starting deadline had passed",
}


@dataclass(frozen=True)
class Missed:
    """`latest` is the newest of the times, `why` its reason, `counts` how many there are for each reason."""

    latest: datetime
    why: Why
    counts: dict[Why, int]

    def __str__(self) -> str:
        said = (f"{count} because {why.meaning}" for why, count in sorted(self.counts.items()))
        return f"nothing is created for times up to {self.latest:%Y-%m-%d %H:%M} UTC: {'; '.join(said)}"


def missed(  # noqa: PLR0913 - what it depends on
    spec: ScheduleSpec,
    found: Plan,
    *,
    since: datetime,
    now: datetime,
    children: Collection[tuple[datetime, Experiment]] = (),
    refused: bool = False,
    held: bool = False,
) -> Missed | None:
    """The times after `since` that are given up by now; None when there are none.

    Args:
        found: what is decided now; the time that is started or held is not given up.
        children: the experiments of the schedule, each with the time that it was created for.
        refused: whether the API server did not take the experiment when it was last tried.
        held: whether one that had not ended at the last look is gone since.
    """
    if spec.suspend:
        return None
    before = found.start or found.held
    late = now - timedelta(seconds=spec.starting_deadline_seconds)
    reasons: list[tuple[datetime, Why]] = []
    for time in times_before(spec, before or now + timedelta(seconds=1)):
        if time <= since or len(reasons) == _MOST:
            break
        if any(time == start for start, _ in children):
            continue
        in_the_way = held or any(start < time and _lasted(one, time) for start, one in children)
        reasons.append((time, _why(time, late, held=in_the_way, refused=refused)))
    if not reasons:
        return None
    latest, why = max(reasons)
    return Missed(latest, why, dict(Counter(why for _, why in reasons)))


def _why(time: datetime, late: datetime, *, held: bool, refused: bool) -> Why:
    if held:
        return Why.HELD
    if refused:
        return Why.REFUSED
    return Why.TOO_LATE if time <= late else Why.SUPERSEDED


def _lasted(experiment: Experiment, time: datetime) -> bool:
    """Whether the experiment had not ended at that time."""
    status = experiment.status
    if status.phase is None or not status.phase.final:
        return True
    return status.finished_at is not None and status.finished_at > time
