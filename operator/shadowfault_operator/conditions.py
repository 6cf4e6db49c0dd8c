"""Conditions of a ChaosExperiment: Ready, Reconciling and Stalled as kstatus reads them, and our own three.

https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shadowfault_operator.durations import format_instant
from shadowfault_operator.model import VERDICT, Phase
from shadowfault_operator.verdict import Result

if TYPE_CHECKING:
    from datetime import datetime

    from shadowfault_operator.model import Json
    from shadowfault_operator.verdict import Verdict

TYPES: Final = ("Ready", "Reconciling", "Stalled", "Injected", "Recovered", "Refused")
METRICS_AVAILABLE: Final = "MetricsAvailable"

# A finished experiment is Ready: there is nothing left to do and nobody has to look.
_TRUE: Final[dict[Phase, frozenset[str]]] = {
    Phase.PENDING: frozenset({"Reconciling"}),
    Phase.RUNNING: frozenset({"Ready", "Injected"}),
    Phase.RECOVERING: frozenset({"Reconciling", "Injected"}),
    Phase.FINISHED: frozenset({"Ready", "Recovered"}),
    Phase.REFUSED: frozenset({"Stalled", "Refused"}),
}

# Beside them, once a run is over and judged; readers of the kstatus conditions have no part in it.
_JUDGED: Final = {Result.PASSED: "True", Result.FAILED: "False", Result.INCONCLUSIVE: "Unknown"}


@dataclass(frozen=True)
class Conditions:
    """Writes conditions after those there were: lastTransitionTime moves only where a status changes."""

    previous: tuple[Json, ...]
    generation: int
    now: datetime

    def of(self, phase: Phase, reason: str, message: str) -> tuple[Json, ...]:
        """All conditions of the phase, and those that are of none; a verdict is of the end it came after."""
        others = (item for item in self.previous if item.get("type") not in {*TYPES, VERDICT})
        return (*(self._one(kind, kind in _TRUE[phase], reason, message) for kind in TYPES), *others)

    def stalled(self, reason: str, message: str) -> tuple[Json, ...]:
        """The previous ones with Stalled true: the operator cannot go on for now, and why."""
        others = (item for item in self.previous if item.get("type") != "Stalled")
        return (*others, self._one("Stalled", True, reason, message))

    def standing(self, stalled: bool, reason: str, message: str) -> tuple[Json, ...]:
        """Ready and Stalled alone, for an object that has no phases."""
        return (
            self._one("Ready", not stalled, reason, message),
            self._one("Stalled", stalled, reason, message),
        )

    def judged(self, verdict: Verdict) -> tuple[Json, ...]:
        """The previous ones and the verdict: True passed, False failed, Unknown is inconclusive."""
        others = (item for item in self.previous if item.get("type") != VERDICT)
        status = _JUDGED[verdict.result]
        return (*others, self._with(VERDICT, status, verdict.reason, verdict.message))

    def metrics_available(self, available: bool, reason: str, message: str) -> tuple[Json, ...]:
        """The previous ones with MetricsAvailable set."""
        others = (item for item in self.previous if item.get("type") != METRICS_AVAILABLE)
        return (*others, self._one(METRICS_AVAILABLE, available, reason, message))

    def _one(self, kind: str, true: bool, reason: str, message: str) -> Json:
        return self._with(kind, "True" if true else "False", reason, message)

    def _with(self, kind: str, status: str, reason: str, message: str) -> Json:
        before = next((item for item in self.previous if item.get("type") == kind), {})
        since = before.get("lastTransitionTime") if before.get("status") == status else None
        return {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "observedGeneration": self.generation,
            "lastTransitionTime": since or format_instant(self.now),
        }
