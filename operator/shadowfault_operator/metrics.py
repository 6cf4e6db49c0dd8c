"""Prometheus metrics of the operator."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from shadowfault_operator.halt import UNKNOWN
from shadowfault_operator.model import Phase
from shadowfault_operator.schedule_metrics import ScheduleMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shadowfault_operator.halt import HaltState
    from shadowfault_operator.known import Known
    from shadowfault_operator.model import Key
    from shadowfault_operator.permissions import Permission

STUCK: Final = timedelta(minutes=1)


class Metrics:
    """All metrics over one registry of their own."""

    def __init__(
        self,
        known: Known,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        halt: Callable[[], HaltState] = lambda: UNKNOWN,
    ) -> None:
        self._known = known
        self._now = now
        self._halt = halt
        self.registry = CollectorRegistry()
        self.experiments = Gauge(
            "shadowfault_experiments", "Experiments by phase.", ["phase"], registry=self.registry
        )
        self.reasons = Gauge(
            "shadowfault_experiment_reasons",
            "Experiments by phase and the reason for which they are in it.",
            ["phase", "reason"],
            registry=self.registry,
        )
        self.stuck = Gauge(
            "shadowfault_stuck_experiments",
            "Experiments Pending or Recovering for more than a minute, but for suspended ones.",
            ["phase"],
            registry=self.registry,
        )
        self.overdue = Gauge(
            "shadowfault_overdue_seconds",
            "How long the longest overdue experiment is past its deadline and not restored; 0 when none is.",
            registry=self.registry,
        )
        self.halt_state = Gauge(
            "shadowfault_halt_state",
            "1 for the state of the global halt: lifted, in_force or unknown.",
            ["state"],
            registry=self.registry,
        )
        self.injections = Counter(
            "shadowfault_injections_total", "Injections into a target.", registry=self.registry
        )
        self.recoveries = Counter(
            "shadowfault_recoveries_total",
            "Experiments ended and restored.",
            ["reason"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "shadowfault_refusals_total", "Experiments refused.", ["reason"], registry=self.registry
        )
        self.recovery_seconds = Histogram(
            "shadowfault_recovery_seconds",
            "From the decision to end until nothing is left in the target's spec.",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
            registry=self.registry,
        )
        self.overrun_seconds = Histogram(
            "shadowfault_overrun_seconds",
            "How long after its deadline an experiment was restored.",
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
            registry=self.registry,
        )
        self.verdicts = Counter(
            "shadowfault_verdicts_total",
            "Verdicts on experiments that are over.",
            ["result"],
            registry=self.registry,
        )
        self.disarms = Counter(
            "shadowfault_disarm_requests_total",
            "Requests to pods to stop injecting.",
            ["result"],
            registry=self.registry,
        )
        self.scrapes = Counter(
            "shadowfault_scrapes_total",
            "Looks at the metrics of a pod under test, for stop conditions.",
            ["result"],
            registry=self.registry,
        )
        self.orphans = Counter(
            "shadowfault_orphans_total",
            "Remains of experiments that are gone, found in a target.",
            ["result"],
            registry=self.registry,
        )
        self.unmanaged = Gauge(
            "shadowfault_unmanaged_chaos",
            "Deployments in which someone else has switched chaos on: 1 for each.",
            ["namespace", "deployment"],
            registry=self.registry,
        )
        self.missing_permissions = Gauge(
            "shadowfault_missing_permissions",
            "Verbs that the operator needs and is not allowed: 1 for each. No namespace: in the cluster.",
            ["verb", "resource", "namespace"],
            registry=self.registry,
        )
        self.reconcile_errors = Counter(
            "shadowfault_reconcile_errors_total",
            "Passes over an experiment that failed and are tried again.",
            ["error"],
            registry=self.registry,
        )

        self.schedules = ScheduleMetrics(self.registry)

    def show_unmanaged(self, targets: Iterable[Key]) -> None:
        """Show these and no others."""
        self.unmanaged.clear()
        for target in targets:
            self.unmanaged.labels(target.namespace, target.name).set(1)

    def show_missing(self, permissions: Iterable[Permission]) -> None:
        """Show these and no others."""
        self.missing_permissions.clear()
        for one in permissions:
            self.missing_permissions.labels(one.verb, one.resource, one.namespace).set(1)

    def _show_reasons(self) -> None:
        self.reasons.clear()
        for (phase, reason), count in self._known.reasons().items():
            self.reasons.labels(phase.value, reason).set(count)

    def exposition(self) -> bytes:
        """The text format, https://prometheus.io/docs/instrumenting/exposition_formats/."""
        phases = self._known.phases()
        for phase in Phase:
            self.experiments.labels(phase.value).set(phases[phase])
        self._show_reasons()
        now = self._now()
        stuck = self._known.stuck(now - STUCK)
        for phase in (Phase.PENDING, Phase.RECOVERING):
            self.stuck.labels(phase.value).set(stuck[phase])
        self.overdue.set(self._known.overdue_seconds(now))
        halt = self._halt()
        state = ("lifted" if halt.reason is None else "in_force") if halt.known else "unknown"
        for one in ("lifted", "in_force", "unknown"):
            self.halt_state.labels(one).set(one == state)
        return generate_latest(self.registry)
