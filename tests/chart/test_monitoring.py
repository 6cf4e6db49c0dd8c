"""Alerts and dashboards ask for metrics that exist, and every alert has its runbook."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from shadowfault_api.metrics import Metrics as ServiceMetrics
from shadowfault_operator.known import Known
from shadowfault_operator.metrics import Metrics as OperatorMetrics
from shadowfault_operator.model import Phase
from shadowfault_packaging.dashboards import DASHBOARDS, FOLDER, text
from shadowfault_testing.chart import CHART, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

    from shadowfault_testing.chart import Helm

_RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
_EXPRESSIONS = {rule["alert"]: rule["expr"] for rule in _RULES} | {
    f"{dashboard.name}: {panel.title}: {number}": expression
    for dashboard in DASHBOARDS
    for panel in dashboard.panels
    for number, (expression, _) in enumerate(panel.queries)
}
_SELECTOR = re.compile(r"\b([a-z]+(?:_[a-z]+)+|up)\b(?!\s*\()(?:\{([^}]*)\})?")
_GROUPING = re.compile(r"\b(by|on|without|ignoring)\s*\(([^)]*)\)")
_OURS = {"job", "instance", "namespace", "le", ""}


def _series(registry: CollectorRegistry) -> Iterator[tuple[str, set[str]]]:
    """Names of series and their labels, of a registry that has counted nothing yet."""
    labels = {
        name: set(getattr(collector, "_labelnames", ()))
        for collector, names in registry._collector_to_names.items()
        for name in names
    }
    for family in registry.collect():
        own = labels.get(family.name, set()) | set(getattr(family, "_labelnames", ()))
        match family.type:
            case "counter":
                yield f"{family.name}_total", own
            case "histogram":
                yield from ((f"{family.name}_{part}", own | {"le"}) for part in ("bucket", "sum", "count"))
            case _:
                yield family.name, own


_SERIES = {
    "up": {"job"},
    **dict(_series(ServiceMetrics().registry)),
    **dict(_series(OperatorMetrics(Known()).registry)),
}


def unknown(expression: str) -> set[str]:
    """Metrics and labels of an expression that nothing exposes."""
    grouped = {label.strip() for _, labels in _GROUPING.findall(expression) for label in labels.split(",")}
    found = _SELECTOR.findall(_GROUPING.sub("", expression))
    wrong = {name for name, _ in found if name not in _SERIES}
    known = set().union(*(_SERIES[name] for name, _ in found if name in _SERIES)) | _OURS
    for name, matchers in found:
        wrong |= {
            label for label in re.findall(r"(\w+)\s*[=!]", matchers) if label not in _SERIES.get(name, ())
        }
    return wrong | (grouped - known)


@pytest.mark.parametrize("name", list(_EXPRESSIONS))
def test_metrics_and_labels_exist(name: str) -> None:
    assert unknown(_EXPRESSIONS[name]) == set()


def test_what_does_not_exist_is_found() -> None:
    assert unknown("sum by (colour) (rate(shadow_write_failure_total[5m]))") == {
        "shadow_write_failure_total",
        "colour",
    }
    assert unknown('max(shadow_outbox_rows{status="pending"})') == {"status"}


def test_phases_in_expressions_are_phases() -> None:
    named = {
        phase
        for expression in _EXPRESSIONS.values()
        for phases in re.findall(r'phase=~?"([^"]*)"', expression)
        for phase in phases.split("|")
    }
    assert named
    assert named <= {phase.value for phase in Phase}


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    headings = re.findall(r"^## (Shadowfault\w+)$", (ROOT / "docs" / "runbooks.md").read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in _RULES]


def test_dashboards_are_those_of_their_table() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(f"{one.name}.json" for one in DASHBOARDS)
    for dashboard in DASHBOARDS:
        assert (FOLDER / f"{dashboard.name}.json").read_text() == text(dashboard), "run `make chart-readme`"


@pytest.mark.helm
def test_the_chart_has_them_all(helm: Helm) -> None:
    objects = helm.objects("full")
    (rule,) = (item for item in objects if item["kind"] == "PrometheusRule")
    made = [one for group in rule["spec"]["groups"] for one in group["rules"]]
    assert [one["alert"] for one in made] == [one["alert"] for one in _RULES]
    for one in made:
        assert one["annotations"]["runbook_url"].endswith(f"docs/runbooks.md#{one['alert'].lower()}")
        assert one["expr"].split() == _EXPRESSIONS[one["alert"]].split()
    maps = [item for item in objects if "grafana_dashboard" in item["metadata"].get("labels", {})]
    assert len(maps) == len(DASHBOARDS)
    for item in maps:
        ((_, content),) = item["data"].items()
        assert json.loads(content)["panels"]
    monitors = {item["metadata"]["name"] for item in objects if item["kind"] == "ServiceMonitor"}
    assert monitors == {"shadowfault-api", "shadowfault-operator"}


@pytest.mark.helm
def test_what_is_stale_follows_from_a_value(helm: Helm) -> None:
    for seconds in (2700, 10_800):
        objects = helm.objects("full", f"monitoring.prometheusRule.verifierStaleSeconds={seconds}")
        (rules,) = (item for item in objects if item["kind"] == "PrometheusRule")
        (stale,) = (
            rule
            for group in rules["spec"]["groups"]
            for rule in group["rules"]
            if rule["alert"] == "ShadowfaultVerifierStale"
        )
        assert stale["expr"].endswith(f" > {seconds}")
