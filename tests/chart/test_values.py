"""What the chart takes and what it refuses, with which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from shadowfault_packaging import chart_readme
from shadowfault_testing.chart import CHART, VALUES, RefusedError

if TYPE_CHECKING:
    from shadowfault_testing.chart import Helm

_TEXT = (CHART / "values.yaml").read_text()
_NAMES = yaml.safe_load((Path(__file__).parents[1] / "data" / "production_names.yaml").read_text())["cases"]


def test_the_readme_is_that_of_the_values() -> None:
    assert (CHART / "README.md").read_text() == chart_readme.readme(), "run `make chart-readme`"
    assert chart_readme.undocumented(_TEXT) == []


def test_an_undocumented_value_is_found() -> None:
    assert chart_readme.undocumented("a:\n  # -- Said.\n  b: 1\n  c: 2\n") == ["a.c"]
    assert chart_readme.documented("a:\n  # -- Said\n  # twice.\n  b: {x: 1}\n") == [
        chart_readme.Value("a.b", {"x": 1}, "Said twice.")
    ]


def test_the_schema_knows_the_values_and_no_others() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def walk(values: dict[str, Any], part: dict[str, Any], path: str) -> None:
        if part.get("additionalProperties") is not False:
            return
        assert set(values) | {"global"} == set(part["properties"]) | {"global"}, path
        for name, value in values.items():
            if isinstance(value, dict) and "properties" in part["properties"][name]:
                walk(value, part["properties"][name], f"{path}.{name}")

    walk(yaml.safe_load(_TEXT), schema, "values")


@pytest.mark.helm
@pytest.mark.parametrize("case", list(VALUES))
def test_lint(helm: Helm, case: str) -> None:
    files = [f"--values={path}" for path in VALUES[case]]
    helm.run(
        "lint", "--strict", "--kube-version", "1.34.0", "--namespace", helm.namespace, str(CHART), *files
    )


@pytest.mark.helm
@pytest.mark.parametrize(
    "item",
    [
        'operater={"replicas":1}',
        'operator={"replica":1}',
        'api={"service":{"prot":4000}}',
        'crds={"keeep":true}',
        'networkPolicies={"apiServerPort":[443]}',
        'monitoring={"dashboards":{"enable":true}}',
        'operator={"resources":{"request":{}}}',
        'image={"pullPolicy":"Sometimes"}',
        'operator={"logLevel":"verbose"}',
        'verifier={"schedule":"sometimes"}',
        'verifier={"fullSweepEvery":"daily"}',
        'verifier={"shards":0}',
        'image={"digest":"sha256:1"}',
        'allowedNamespaces=["Staging"]',
        'allowedNamespaces=["staging","staging"]',
        'api={"settings":{"chaos":"on"}}',
    ],
)
def test_typos_are_refused(helm: Helm, item: str) -> None:
    with pytest.raises(RefusedError, match="values don't meet the specifications of the schema"):
        helm.text("default", item)


@pytest.mark.helm
@pytest.mark.parametrize(
    ("item", "message"),
    [
        ('operator={"replicas":2}', "/operator/replicas"),
        ('allowedNamespaces=["shop-prod"]', '"shop-prod" looks like production'),
        ('allowedNamespaces=["kube-system"]', "belongs to the cluster"),
        ('allowedNamespaces=["shadowfault-system"]', "is the operator's own namespace"),
        ('operator={"extraEnv":[{"name":"CHAOS_ENABLED","value":"true"}]}', "of services under test"),
        (
            'api={"settings":{"CHAOS_ENABLED":"true"},"enabled":true}',
            "set CHAOS_ENABLED by a ChaosExperiment",
        ),
        ('api={"enabled":true}', "api.enabled needs two databases"),
        ('api={"enabled":true,"nodeEnv":"production"}', 'api.nodeEnv: "production"'),
        ('api={"enabled":true,"namespace":"shadowfault-system"}', "give the API another one"),
        ('postgresql={"bundled":true}', "set api.enabled=true too"),
    ],
)
def test_unsafe_values_are_refused_with_a_reason(helm: Helm, item: str, message: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        helm.text("default", item)
    assert message in str(refusal.value)


@pytest.mark.helm
def test_bundled_and_external_databases_together_are_refused(helm: Helm) -> None:
    with pytest.raises(RefusedError, match="choose one"):
        helm.text("trial", 'database={"primary":{"existingSecret":"mine"}}')


@pytest.mark.helm
def test_production_is_what_the_policies_and_the_operator_say_it_is(helm: Helm) -> None:
    """By name; one render for all that are none, and one each for the others."""
    names = [case for case in _NAMES if not case.get("labels") and case["name"] == case["name"].lower()]
    harmless = [
        case["name"] for case in names if not case["production"] and case["name"].replace("-", "").isalnum()
    ]
    helm.text("default", f"allowedNamespaces={json.dumps(harmless)}")
    for case in names:
        if case["production"] and "." not in case["name"] and "_" not in case["name"]:
            with pytest.raises(RefusedError, match="looks like production"):
                helm.text("default", f"allowedNamespaces={json.dumps([case['name']])}")
