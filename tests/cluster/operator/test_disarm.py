"""The whole way: pods of the service under an experiment, and a delete that stops them at once."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_testing.api import eventually
from shadowfault_testing.objects import container

if TYPE_CHECKING:
    from pathlib import Path

    from shadowfault_testing.operator import Ground, OperatorProcess

pytestmark = pytest.mark.cluster


def chaos_of_pods(ground: Ground, target: str) -> list[dict[str, Any]]:
    """What the ready pods of the target say of their chaos."""
    path = f"/api/v1/namespaces/{ground.namespace}/pods?labelSelector=app={target}"
    found = []
    for pod in ground.api.request("GET", path)["items"]:
        ready = any(
            item["type"] == "Ready" and item["status"] == "True"
            for item in pod["status"].get("conditions", [])
        )
        if ready and "deletionTimestamp" not in pod["metadata"]:
            try:
                with urllib.request.urlopen(
                    f"http://{pod['status']['podIP']}:4000/health", timeout=2
                ) as answer:
                    found.append(dict(json.load(answer)["chaos"]))
            except OSError:
                continue
    return found


def test_the_pods_are_told_to_stop(ground: Ground, operator: OperatorProcess, tmp_path: Path) -> None:
    databases = [
        {"name": name, "value": f"sqlite:///{tmp_path / file}"}
        for name, file in (("DATABASE_URL", "primary.db"), ("SHADOW_DATABASE_URL", "shadow.db"))
    ]
    service = container(
        env=[*databases, {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        command=["shadowfault", "api"],
        ports=[{"name": "http", "containerPort": 4000}],
        readinessProbe={"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
    )
    target = ground.deploy(containers=[service], replicas=2)
    ground.kubectl("rollout", "status", f"deployment/{target}", "--timeout=60s")
    assert [chaos["enabled"] for chaos in chaos_of_pods(ground, target)] == [False, False]
    name = ground.run(target, rate=1.0)
    ground.kubectl("rollout", "status", f"deployment/{target}", "--timeout=60s")
    eventually(
        "both pods to inject",
        lambda: [chaos.get("active") for chaos in chaos_of_pods(ground, target)] == [True, True],
    )
    ground.delete(name)
    eventually(
        "both pods to be told",
        lambda: operator.metric('shadowfault_disarm_requests_total{result="disarmed"}') == 2,
    )
    ground.kubectl("rollout", "status", f"deployment/{target}", "--timeout=60s")
    eventually(
        "clean pods",
        lambda: [chaos["enabled"] for chaos in chaos_of_pods(ground, target)] == [False, False],
    )
