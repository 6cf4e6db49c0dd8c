"""All that an install brings fits the API server's own schemas: no field unknown, none of a wrong type."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from shadowfault_testing.chart import ROOT, VALUES, Helm

if TYPE_CHECKING:
    from shadowfault_cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.helm]

# Kinds that the monitoring of a cluster brings; this API server has no schema of them.
FOREIGN = {"ServiceMonitor", "PrometheusRule"}

LOOK = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")


def as_template(item: dict[str, Any]) -> dict[str, Any]:
    """A pod as the template of one: alone it would need its service account to be there."""
    if item["kind"] != "Pod":
        return item
    pod = {"metadata": {"labels": item["metadata"].get("labels", {})}, "spec": item["spec"]}
    metadata = {key: item["metadata"][key] for key in ("name", "namespace")}
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": metadata, "template": pod}


def taken(cluster: Cluster, objects: list[dict[str, Any]]) -> None:
    """Have the API server look at each of them, strictly, and keep none."""
    items = [as_template(item) for item in objects if item["kind"] not in FOREIGN]
    for namespace in {item["metadata"].get("namespace") for item in items} - {None}:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        cluster.kubectl("apply", "-f", "-", input=json.dumps(body))
    # Another test may have installed some of them for good, under another manager.
    told = cluster.kubectl(*LOOK, "--force-conflicts", input=yaml.safe_dump_all(items)).stdout
    assert len(told.splitlines()) == len(items)


@pytest.mark.parametrize("case", VALUES)
def test_the_chart(cluster: Cluster, case: str) -> None:
    if shutil.which("helm") is None:
        pytest.skip("helm is not on PATH: the chart's objects were not validated")
    taken(cluster, Helm().objects(case))


def test_the_plain_manifests(cluster: Cluster) -> None:
    rendered = cluster.kubectl("kustomize", str(ROOT / "deploy")).stdout
    taken(cluster, [item for item in yaml.safe_load_all(rendered) if item["kind"] != "Namespace"])


def test_what_no_schema_knows_is_refused(cluster: Cluster) -> None:
    """Else the others would show nothing."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "date": {"a": "b"}}
    refused = cluster.kubectl(*LOOK, input=json.dumps(body), check=False)
    assert refused.returncode != 0
    assert "date" in refused.stderr
