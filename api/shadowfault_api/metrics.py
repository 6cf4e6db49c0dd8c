"""The metrics of one process, and those read from the database for a scrape.

The contract's counters live in the process: sum them over replicas. `shadow_discrepancies_total`,
`shadow_discrepancy_last_check_timestamp` and the outbox gauges come from the primary database, which the
replicas share and the verifier writes: every replica shows the same, so take the maximum.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from shadowfault_api.shadow.breaker import BreakerState, CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from prometheus_client.metrics_core import Metric

# `_created` doubles the number of series and says nothing a rate needs.
disable_created_metrics()  # type: ignore[no-untyped-call]

_WRITE_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_OPERATION: Final = ("entity_type", "operation")


@dataclass(frozen=True, slots=True)
class DatabaseFigures:
    """What a scrape reads from the primary database.

    `oldest_pending` is when the write that waits the longest for the shadow was made. `discrepancies` counts
    all ever found, by (entity type, discrepancy type); `open_discrepancies` those not resolved, by (entity
    type, discrepancy type, cause). `unsealed_evidence` counts records without a seal.

    By entity type: `full_sweeps`, when the verifier's last sweep that is through began; `uncovered`, the
    share of the rows that the one going on has not looked at; `sweeps_due`, when that one is to be through.
    """

    outbox: dict[str, int] = field(default_factory=dict)
    oldest_pending: datetime | None = None
    discrepancies: dict[tuple[str, str], int] = field(default_factory=dict)
    open_discrepancies: dict[tuple[str, str, str], int] = field(default_factory=dict)
    last_checks: dict[str, datetime] = field(default_factory=dict)
    full_sweeps: dict[str, datetime] = field(default_factory=dict)
    uncovered: dict[str, float] = field(default_factory=dict)
    sweeps_due: dict[str, datetime] = field(default_factory=dict)
    unsealed_evidence: int = 0
    last_seal: datetime | None = None


# OpenMetrics allows an exemplar this many characters, the name of its label included.
_EXEMPLAR_LENGTH: Final = 128
_EXEMPLAR_LABEL: Final = "request_id"


def exemplar(request_id: str | None) -> dict[str, str] | None:
    """The exemplar of a request; None where there is no id, or one too long for the format."""
    if not request_id or len(request_id) + len(_EXEMPLAR_LABEL) > _EXEMPLAR_LENGTH:
        return None
    return {_EXEMPLAR_LABEL: request_id}


class Metrics:
    """Every metric of the service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.database = DatabaseFigures()
        registry = self.registry
        self.failures = Counter(
            "shadow_write_failures_total",
            "Shadow writes that failed, injected or real.",
            (*_OPERATION, "failure_type"),
            registry=registry,
        )
        self.successes = Counter(
            "shadow_write_successes_total", "Shadow writes that were made.", _OPERATION, registry=registry
        )
        self.durations = Histogram(
            "shadow_write_duration_seconds",
            "Time from the beginning of an attempt to its end.",
            (*_OPERATION, "success"),
            buckets=_WRITE_BUCKETS,
            registry=registry,
        )
        self.faults = Counter(
            "chaos_injected_faults_total", "Faults injected on any surface.", _OPERATION, registry=registry
        )
        self.deferred = Counter(
            "shadow_writes_deferred_total",
            "Shadow writes left in the outbox for later, by reason.",
            (*_OPERATION, "reason"),
            registry=registry,
        )
        self.non_critical_failures = Counter(
            "non_critical_write_failures_total",
            "Non-critical writes that failed and that no user noticed.",
            (*_OPERATION, "failure_type"),
            registry=registry,
        )
        self.shadow_reads = Counter(
            "shadow_reads_total",
            "Reads the shadow was asked for in place of the primary, by outcome.",
            (*_OPERATION, "outcome"),
            registry=registry,
        )
        self.requests = Counter(
            "http_requests_total", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self.primary_writes = Counter(
            "primary_writes_total",
            "Critical writes by what the user saw: success, refused (4xx), error (5xx).",
            (*_OPERATION, "outcome"),
            registry=registry,
        )
        self.request_durations = Histogram(
            "http_request_duration_seconds",
            "Time from a request's head to the end of its answer.",
            ("method", "route"),
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self.refresh_failures = Counter(
            "metrics_refresh_failures_total",
            "Scrapes, and reads of the database for them, that left old figures: it did not answer in time.",
            registry=registry,
        )
        self._breaker = Gauge(
            "shadow_breaker_state",
            "1 for the state the circuit breaker of shadow writes is in.",
            ("state",),
            registry=registry,
        )
        self._queue = Gauge("shadow_queue_depth", "Shadow writes waiting in this process.", registry=registry)
        registry.register(_FromDatabase(lambda: self.database))

    def watch(self, queue_depth: Callable[[], int], breaker: CircuitBreaker) -> None:
        """Read the queue's depth and the breaker's state whenever they are asked for."""
        self._queue.set_function(queue_depth)
        for state in BreakerState:
            self._breaker.labels(state.value).set_function(partial(_is_in, breaker, state))


def _is_in(breaker: CircuitBreaker, state: BreakerState) -> bool:
    return breaker.state is state


class _FromDatabase(Collector):
    """Turns the figures of the last refresh into series."""

    def __init__(self, figures: Callable[[], DatabaseFigures]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        figures = self._figures()
        found = CounterMetricFamily(
            "shadow_discrepancies",
            "Discrepancies the verifier found, the resolved ones too.",
            labels=("entity_type", "discrepancy_type"),
        )
        for labels, count in sorted(figures.discrepancies.items()):
            found.add_metric(labels, count)
        still = GaugeMetricFamily(
            "shadow_discrepancies_open",
            "Discrepancies not resolved, by cause; cause unexplained is the one that matters.",
            labels=("entity_type", "discrepancy_type", "cause"),
        )
        for causes, count in sorted(figures.open_discrepancies.items()):
            still.add_metric(causes, count)
        checked = GaugeMetricFamily(
            "shadow_discrepancy_last_check_timestamp",
            "When the verifier last finished, in Unix seconds.",
            labels=("entity_type",),
        )
        for entity_type, moment in sorted(figures.last_checks.items()):
            checked.add_metric((entity_type,), moment.timestamp())
        outbox = GaugeMetricFamily(
            "shadow_outbox_rows",
            "Rows of the outbox: pending are in flight, failed await repair.",
            labels=("state",),
        )
        for state in ("pending", "failed"):
            outbox.add_metric((state,), figures.outbox.get(state, 0))
        oldest = GaugeMetricFamily(
            "shadow_outbox_oldest_pending_timestamp_seconds",
            "When the oldest write that waits was made, in Unix seconds; absent where none waits.",
        )
        if figures.oldest_pending is not None:
            oldest.add_metric((), figures.oldest_pending.timestamp())
        return (found, still, checked, outbox, oldest, *_sweeps(figures), *_evidence(figures))


def _sweeps(figures: DatabaseFigures) -> Iterable[Metric]:
    for name, meaning, values in (
        (
            "shadow_verifier_full_sweep_timestamp_seconds",
            "When the last sweep that is through began, in Unix seconds: every row was compared since.",
            {name: moment.timestamp() for name, moment in figures.full_sweeps.items()},
        ),
        (
            "shadow_verifier_sweep_uncovered_ratio",
            "Share of the rows that the sweep going on has not looked at yet; 0 where none goes on.",
            figures.uncovered,
        ),
        (
            "shadow_verifier_sweep_due_timestamp_seconds",
            "When the rotating sweep that goes on is to be through, in Unix seconds.",
            {name: moment.timestamp() for name, moment in figures.sweeps_due.items()},
        ),
    ):
        family = GaugeMetricFamily(name, meaning, labels=("entity_type",))
        for entity_type, value in sorted(values.items()):
            family.add_metric((entity_type,), value)
        yield family


def _evidence(figures: DatabaseFigures) -> Iterable[Metric]:
    unsealed = GaugeMetricFamily(
        "evidence_unsealed_records",
        "Evidence records no seal covers yet. More than a few seconds' worth: a transaction is open for "
        "long, or nothing seals.",
    )
    unsealed.add_metric((), figures.unsealed_evidence)
    yield unsealed
    sealed = GaugeMetricFamily(
        "evidence_last_seal_timestamp_seconds",
        "When the newest seal was made, in Unix seconds; 0 where there is none.",
    )
    sealed.add_metric((), 0.0 if figures.last_seal is None else figures.last_seal.timestamp())
    yield sealed
