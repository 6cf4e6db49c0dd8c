"""What a run has done to its target, by the target's own metrics, and whether that is enough to end it. Pure.

Pods that carry the experiment began after the injection, so what their counters say has happened since. Each
pod keeps what it has counted: a container that starts again begins at 0 and adds to it, a pod that is gone
leaves it behind. Unexplained discrepancies come from the database that all pods share: the highest one says
how many are open, and what has come on top of the least that was seen counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from shadowfault_operator.nets import Objection
from shadowfault_operator.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shadowfault_operator.model import ConditionName, StopConditions

# Looks in a row that have to say the same before it is believed that metrics cannot be read, or can again.
STEADY: Final = 3


@dataclass(frozen=True)
class Reading:
    """What one pod says. A counter is None where the pod does not expose it."""

    primary_writes: float | None = None
    primary_errors: float | None = None
    shadow_failures: float | None = None
    unexplained: float | None = None

    def missing(self) -> frozenset[ConditionName]:
        """The stop conditions that this pod cannot be judged by."""
        found: dict[ConditionName, float | None] = {
            "primaryErrorRatio": self.primary_writes,
            "unexplainedDiscrepancies": self.unexplained,
            "shadowFailures": self.shadow_failures,
        }
        return frozenset(name for name, value in found.items() if value is None)


@dataclass(frozen=True)
class _Counted:
    """What a pod has counted: before its last restart, and since."""

    before: tuple[float, float, float] = (0.0, 0.0, 0.0)
    since: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def advance(self, reading: Reading) -> _Counted:
        now = (reading.primary_writes or 0.0, reading.primary_errors or 0.0, reading.shadow_failures or 0.0)
        # One that went down began anew, and with it the others: they are of one process.
        if any(new < old for new, old in zip(now, self.since, strict=True)):
            return _Counted(self.total(), now)
        return replace(self, since=now)

    def total(self) -> tuple[float, float, float]:
        first, second, third = (old + new for old, new in zip(self.before, self.since, strict=True))
        return first, second, third


@dataclass(frozen=True)
class Tally:
    """What all pods have counted since the injection, by UID of the pod.

    `baseline` is the least number of unexplained discrepancies that was seen open; None before one was seen.
    """

    pods: Mapping[str, _Counted] = field(default_factory=dict)
    baseline: float | None = None
    unexplained: float = 0.0

    def add(self, readings: Mapping[str, Reading]) -> Tally:
        """The tally after one more look at the pods that answered."""
        pods = {**self.pods}
        for uid, reading in readings.items():
            pods[uid] = pods.get(uid, _Counted()).advance(reading)
        found = [reading.unexplained for reading in readings.values() if reading.unexplained is not None]
        if not found:
            return replace(self, pods=pods)
        most = max(found)
        baseline = most if self.baseline is None else min(self.baseline, most)
        return Tally(pods, baseline, most - baseline)

    def figures(self) -> Figures:
        """The sums."""
        totals = [pod.total() for pod in self.pods.values()]
        writes, errors, failures = (sum(one[number] for one in totals) for number in range(3))
        return Figures(round(writes), round(errors), round(failures), round(self.unexplained))


@dataclass(frozen=True)
class Figures:
    """What has happened since the injection."""

    primary_writes: int = 0
    primary_errors: int = 0
    shadow_failures: int = 0
    unexplained: int = 0


@dataclass(frozen=True)
class Availability:
    """Whether the metrics of all ready pods were read, and if not, why: a condition of the experiment."""

    available: bool
    reason: Reason
    message: str

    def same(self, other: Availability | None) -> bool:
        """Whether both say the same, but for numbers in their messages."""
        return other is not None and self.reason is other.reason


@dataclass(frozen=True)
class Observation:
    """What is known of a run. `availability` is None as long as no pod of it was there to be asked."""

    figures: Figures = Figures()
    availability: Availability | None = None
    baseline: int | None = None


def judge(limits: StopConditions, figures: Figures) -> Objection | None:
    """The first stop condition that is met: its value is above its limit."""
    for met in (_primary(limits, figures), *_counts(limits, figures)):
        if met is not None:
            return Objection(Reason.STOP_CONDITION_MET, met)
    return None


def _primary(limits: StopConditions, figures: Figures) -> str | None:
    limit, writes, errors = limits.primary_error_ratio, figures.primary_writes, figures.primary_errors
    if not limits.judges("primaryErrorRatio") or writes < limits.minimum_requests or writes <= 0:
        return None
    if errors / writes <= limit:
        return None
    return (
        f"primaryErrorRatio is {errors / writes:.4g} ({errors} of {writes} primary writes), "
        f"above its limit of {limit:g}"
    )


def _counts(limits: StopConditions, figures: Figures) -> Iterable[str | None]:
    counts: tuple[tuple[ConditionName, int, int | None], ...] = (
        ("unexplainedDiscrepancies", figures.unexplained, limits.unexplained_discrepancies),
        ("shadowFailures", figures.shadow_failures, limits.shadow_failures),
    )
    for name, value, limit in counts:
        if limits.judges(name) and limit is not None and value > limit:
            yield f"{name} is {value}, above its limit of {limit}"


def availability(
    limits: StopConditions, readings: Mapping[str, Reading], failures: Mapping[str, str]
) -> Availability | None:
    """What one look at the ready pods says; `failures` are those that gave no reading, and why.

    Args:
        failures: by name of the pod, or of what else failed, one word each.
    """
    if failures:
        kinds = ", ".join(sorted(set(failures.values())))
        return Availability(
            False,
            Reason.METRICS_UNAVAILABLE,
            f"{len(failures)} of {len(failures) + len(readings)} pods cannot be judged ({kinds}); "
            "the run goes on, its deadline holds",
        )
    if not readings:
        return None
    missing = {name for reading in readings.values() for name in reading.missing() if limits.judges(name)}
    if missing:
        return Availability(
            False,
            Reason.METRICS_MISSING,
            f"the target does not expose what {', '.join(sorted(missing))} is judged by; "
            "the run goes on, its deadline holds",
        )
    return Availability(True, Reason.METRICS_READ, "stop conditions are judged by the target's metrics")


@dataclass(frozen=True)
class Steady:
    """An availability that has held for some looks: one that comes and goes is not written each time."""

    held: Availability | None = None
    other: Availability | None = None
    times: int = 0

    def next(self, seen: Availability | None) -> Steady:
        """After one more look. The first good news is believed at once."""
        if seen is None:
            return self
        if seen.same(self.held):
            return Steady(self.held)
        if self.held is None and seen.available:
            return Steady(seen)
        times = self.times + 1 if seen.same(self.other) else 1
        return Steady(seen) if times >= STEADY else Steady(self.held, seen, times)
