"""Prometheus metrics of schedules: the series of one go with it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

from shadowfault_operator.missed import Why

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from shadowfault_operator.missed import Missed
    from shadowfault_operator.model import Key

_OF_ONE = ("namespace", "schedule")


class State(StrEnum):
    """What a schedule does."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    STALLED = "stalled"


class ScheduleMetrics:
    """What a scrape shows of the schedules that are there."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._states: dict[Key, State] = {}
        self._schedules = Gauge("shadowfault_schedules", "Schedules by state.", ["state"], registry=registry)
        self._next = Gauge(
            "shadowfault_schedule_next_timestamp_seconds",
            "When a schedule is due next, in Unix seconds; absent while it is suspended or stalled.",
            _OF_ONE,
            registry=registry,
        )
        self._last = Gauge(
            "shadowfault_schedule_last_timestamp_seconds",
            "The time that the latest experiment of a schedule was created for, in Unix seconds.",
            _OF_ONE,
            registry=registry,
        )
        self._created = Counter(
            "shadowfault_schedule_created_total",
            "Experiments that a schedule created.",
            _OF_ONE,
            registry=registry,
        )
        self._missed = Counter(
            "shadowfault_schedule_missed_total",
            "Times of a schedule that nothing is created for any more: Held, Refused, Superseded or TooLate.",
            [*_OF_ONE, "reason"],
            registry=registry,
        )
        self._count()

    def show(self, key: Key, state: State, last: datetime | None, due: datetime | None) -> None:
        """Show what a schedule has come to."""
        if key not in self._states:
            # An increase is seen only of what was there before it.
            self._created.labels(key.namespace, key.name)
            for why in Why:
                self._missed.labels(key.namespace, key.name, why.value)
        self._states[key] = state
        self._count()
        for gauge, time in ((self._last, last), (self._next, due)):
            if time is None:
                gauge.remove_by_labels(_labels(key))
            else:
                gauge.labels(key.namespace, key.name).set(time.timestamp())

    def created(self, key: Key) -> None:
        """An experiment was created."""
        self._created.labels(key.namespace, key.name).inc()

    def missed(self, key: Key, what: Missed) -> None:
        """Times were given up."""
        for why, count in what.counts.items():
            self._missed.labels(key.namespace, key.name, why.value).inc(count)

    def forget(self, key: Key) -> None:
        """The schedule is gone."""
        if self._states.pop(key, None) is None:
            return
        self._count()
        for metric in (self._last, self._next, self._created, self._missed):
            metric.remove_by_labels(_labels(key))

    def keep_only(self, keys: Iterable[Key]) -> None:
        """Forget all others: what was deleted while nobody watched."""
        for key in set(self._states) - set(keys):
            self.forget(key)

    def _count(self) -> None:
        for state in State:
            self._schedules.labels(state.value).set(list(self._states.values()).count(state))


def _labels(key: Key) -> dict[str, str]:
    return {"namespace": key.namespace, "schedule": key.name}
