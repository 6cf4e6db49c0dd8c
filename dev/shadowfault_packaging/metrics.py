"""`python -m shadowfault_packaging.metrics` writes docs/metrics.md from what the code declares."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shadowfault_api.metrics import DatabaseFigures
from shadowfault_api.metrics import Metrics as ServiceMetrics
from shadowfault_operator.known import Known
from shadowfault_operator.metrics import Metrics as OperatorMetrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

PAGE: Final = Path(__file__).parents[2] / "docs" / "metrics.md"
_HEAD: Final = """\
# Metrics

Generated from the code by `python -m shadowfault_packaging.metrics`. The alerts on them are in
`charts/shadowfault/files/alerts.yaml`, what to do about each in [runbooks.md](runbooks.md).
"""
_OPERATOR: Final = """
## The operator

On its port, at `/metrics`. Counters and histograms begin at 0 with the process; gauges say what is so now.

"""
_SERVICE: Final = """
## The service

On each pod, at `/metrics`. Counters and histograms are of one process: sum them over the pods. What is marked
*database* is read from the primary and is the same on every pod: take the maximum. Reading takes a tenth of
the time at most: after a read of 1 s, scrapes show its figures for 9 s. Runs are judged by
`primary_writes_total`, `shadow_write_failures_total` and `shadow_discrepancies_open`.

"""
_TABLE: Final = "| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n"


def page() -> str:
    """The text of docs/metrics.md."""
    service = ServiceMetrics()
    # Some are there only once there is something to say.
    service.database = DatabaseFigures(last_seal=datetime.now(UTC))
    return "".join(
        (
            _HEAD,
            _OPERATOR + _TABLE + _rows(OperatorMetrics(Known()).registry),
            _SERVICE + _TABLE + _rows(service.registry),
        )
    )


def _rows(registry: CollectorRegistry) -> str:
    declared = {
        name: tuple(collector._labelnames)  # noqa: SLF001 - declared nowhere else
        for collector, names in registry._collector_to_names.items()  # noqa: SLF001
        for name in names
        if hasattr(collector, "_labelnames")
    }
    rows = []
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        own = declared.get(family.name)
        labels = ", ".join(own if own is not None else getattr(family, "_labelnames", ()))
        kind = family.type if own is not None else f"{family.type}, *database*"
        rows.append(f"| `{name}` | {kind} | {labels} | {family.documentation} |\n")
    return "".join(sorted(rows))


if __name__ == "__main__":
    PAGE.write_text(page())
