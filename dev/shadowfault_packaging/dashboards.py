"""Write the chart's Grafana dashboards: `python -m shadowfault_packaging.dashboards`.

A dashboard is a table of panels here; the JSON that Grafana wants is made from it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

FOLDER: Final = Path(__file__).parents[2] / "charts" / "shadowfault" / "files" / "dashboards"
_COLUMNS: Final = 3
_WIDTH: Final = 24 // _COLUMNS
_HEIGHT: Final = 8
_SCHEMA: Final = 39


@dataclass(frozen=True)
class Panel:
    """One panel. `queries` are pairs of PromQL and legend; `unit` is one of Grafana's."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: Literal["timeseries", "stat"] = "timeseries"
    description: str = ""


@dataclass(frozen=True)
class Dashboard:
    """One dashboard and the name of its file."""

    name: str
    title: str
    panels: tuple[Panel, ...]


_WRITE: Final = "entity_type, operation"
DASHBOARDS: Final = (
    Dashboard(
        "experiments",
        "shadowfault / experiments",
        (
            Panel("Experiments by phase", (("sum by (phase) (shadowfault_experiments)", "{{phase}}"),)),
            Panel(
                "Faults injected",
                (
                    (
                        f"sum by ({_WRITE}) (rate(chaos_injected_faults_total[$__rate_interval]))",
                        "{{entity_type}} {{operation}}",
                    ),
                ),
                "ops",
                description="Stands still within a second of the end of an experiment.",
            ),
            Panel(
                "Ends, by reason",
                (("sum by (reason) (increase(shadowfault_recoveries_total[$__range]))", "{{reason}}"),),
                kind="stat",
            ),
            Panel(
                "Refusals, by reason",
                (("sum by (reason) (increase(shadowfault_refusals_total[$__range]))", "{{reason}}"),),
                kind="stat",
            ),
            Panel(
                "Time to restore a target",
                tuple(
                    (
                        f"histogram_quantile({quantile}, sum by (le) (rate(shadowfault_recovery_seconds_bucket[$__rate_interval])))",
                        f"p{round(quantile * 100)}",
                    )
                    for quantile in (0.5, 0.99)
                ),
                "s",
            ),
            Panel(
                "Restored after the deadline by",
                (
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(shadowfault_overrun_seconds_bucket[$__rate_interval])))",
                        "p99",
                    ),
                ),
                "s",
            ),
            Panel(
                "Orders to stop, by result",
                (
                    (
                        "sum by (result) (rate(shadowfault_disarm_requests_total[$__rate_interval]))",
                        "{{result}}",
                    ),
                ),
                "ops",
            ),
            Panel(
                "Passes that failed and are tried again",
                (
                    (
                        "sum by (error) (rate(shadowfault_reconcile_errors_total[$__rate_interval]))",
                        "{{error}}",
                    ),
                ),
                "ops",
            ),
            Panel(
                "Injections",
                (("sum(increase(shadowfault_injections_total[$__range]))", "injections"),),
                kind="stat",
            ),
            Panel(
                "Times of schedules that nothing was created for, by reason",
                (
                    (
                        "sum by (namespace, schedule, reason) (increase(shadowfault_schedule_missed_total[$__range])) > 0",
                        "{{namespace}}/{{schedule}} {{reason}}",
                    ),
                ),
                kind="stat",
            ),
        ),
    ),
    Dashboard(
        "dual-write",
        "shadowfault / dual write",
        (
            Panel(
                "Answers to users, by status",
                (("sum by (status) (rate(http_requests_total[$__rate_interval]))", "{{status}}"),),
                "reqps",
                description="No shadow fault may show here.",
            ),
            Panel(
                "Time to answer, p99",
                (
                    (
                        "histogram_quantile(0.99, sum by (le, route) (rate(http_request_duration_seconds_bucket[$__rate_interval])))",
                        "{{route}}",
                    ),
                ),
                "s",
            ),
            Panel(
                "Shadow writes",
                (
                    ("sum(rate(shadow_write_successes_total[$__rate_interval]))", "made"),
                    (
                        "sum by (failure_type) (rate(shadow_write_failures_total[$__rate_interval]))",
                        "failed: {{failure_type}}",
                    ),
                    (
                        "sum by (reason) (rate(shadow_writes_deferred_total[$__rate_interval]))",
                        "deferred: {{reason}}",
                    ),
                ),
                "ops",
            ),
            Panel(
                "Discrepancies open, by cause",
                (
                    (
                        "sum by (cause) (max by (cause, entity_type, discrepancy_type) (shadow_discrepancies_open))",
                        "{{cause}}",
                    ),
                ),
                description="Unexplained is the one that matters. Every replica shows the same: hence the maximum.",
            ),
            Panel(
                "Since the verifier's last run",
                (
                    (
                        "time() - max by (entity_type) (shadow_discrepancy_last_check_timestamp)",
                        "{{entity_type}}",
                    ),
                ),
                "s",
            ),
            Panel("Outbox", (("max by (state) (shadow_outbox_rows)", "{{state}}"),)),
            Panel(
                "Longest wait in the outbox",
                (("time() - max(shadow_outbox_oldest_pending_timestamp_seconds)", "oldest pending"),),
                "s",
            ),
            Panel("Queues in memory", (("sum(shadow_queue_depth)", "waiting"),)),
            Panel("Circuit breakers", (("sum by (state) (shadow_breaker_state)", "{{state}}"),)),
            Panel(
                "Duration of a shadow write, p99",
                (
                    (
                        "histogram_quantile(0.99, sum by (le, success) (rate(shadow_write_duration_seconds_bucket[$__rate_interval])))",
                        "success {{success}}",
                    ),
                ),
                "s",
            ),
        ),
    ),
)


def grafana(dashboard: Dashboard) -> dict[str, Any]:
    """The model that Grafana imports; the data source is chosen in the dashboard."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    panels = [
        {
            "id": number + 1,
            "type": panel.kind,
            "title": panel.title,
            "description": panel.description,
            "datasource": source,
            "gridPos": {
                "h": _HEIGHT,
                "w": _WIDTH,
                "x": number % _COLUMNS * _WIDTH,
                "y": number // _COLUMNS * _HEIGHT,
            },
            "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
            "targets": [
                {"refId": chr(ord("A") + n), "expr": expression, "legendFormat": legend, "datasource": source}
                for n, (expression, legend) in enumerate(panel.queries)
            ],
        }
        for number, panel in enumerate(dashboard.panels)
    ]
    return {
        "uid": f"shadowfault-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["shadowfault"],
        "schemaVersion": _SCHEMA,
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "15s",
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }


def text(dashboard: Dashboard) -> str:
    """The content of its file."""
    return json.dumps(grafana(dashboard), indent=1) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for one in DASHBOARDS:
        (FOLDER / f"{one.name}.json").write_text(text(one))
