"""What a service shows and takes over HTTP, free of any framework: health, disarm, metrics.

Each takes what `boot()` gave, None included, so that a caller needs no case for chaos switched off.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shadowfault.injector import FaultInjector

FAULTS_METRIC: Final = "chaos_injected_faults"


class Disarming(Enum):
    """What came of a request to stop. Only `REFUSED` is an error: the faults are another experiment's."""

    STOPPED = "stopped"
    NOTHING_INSTALLED = "nothing installed"
    REFUSED = "refused"


def health(injector: FaultInjector | None) -> Mapping[str, Any]:
    """Build the `chaos` member of a health document."""
    if injector is None:
        return {"enabled": False, "active": False}
    return injector.describe()


def disarm(injector: FaultInjector | None, experiment_uid: str) -> Disarming:
    """Stop the faults of this experiment, for good."""
    if injector is None:
        return Disarming.NOTHING_INSTALLED
    return Disarming.STOPPED if injector.disarm(experiment_uid) else Disarming.REFUSED


def exposition(injector: FaultInjector | None, *, openmetrics: bool = False) -> str:
    """Write `chaos_injected_faults_total` in Prometheus' text format, or as OpenMetrics without its EOF.

    The two differ in the name of a counter's family.
    """
    family = FAULTS_METRIC if openmetrics else f"{FAULTS_METRIC}_total"
    lines = [f"# HELP {family} Faults injected on any surface.\n", f"# TYPE {family} counter\n"]
    faults = {} if injector is None else injector.faults()
    for (entity_type, operation), count in sorted(faults.items()):
        labels = f'entity_type="{_escape(entity_type)}",operation="{_escape(operation)}"'
        lines.append(f"{FAULTS_METRIC}_total{{{labels}}} {count}\n")
    return "".join(lines)


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
