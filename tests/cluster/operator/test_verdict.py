"""The whole way: pods of the service, faults, an end, and the verdict from the service's own account."""

from __future__ import annotations

import signal
import sqlite3
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shadowfault_testing.api import eventually
from shadowfault_testing.objects import container

if TYPE_CHECKING:
    from pathlib import Path

    from shadowfault_testing.operator import Ground, OperatorProcess

pytestmark = pytest.mark.cluster


def service(ground: Ground, folder: Path, **fields: Any) -> str:
    """A Deployment of the bundled service over two SQLite files."""
    databases = [
        {"name": name, "value": f"sqlite:///{folder / file}"}
        for name, file in (("DATABASE_URL", "primary.db"), ("SHADOW_DATABASE_URL", "shadow.db"))
    ]
    pod = container(
        env=[*databases, {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        command=["shadowfault", "api"],
        ports=[{"name": "http", "containerPort": 4000}],
        readinessProbe={"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
    )
    target = ground.deploy(containers=[pod], **fields)
    rolled_out(ground, target)
    return target


def rolled_out(ground: Ground, target: str) -> None:
    ground.kubectl("rollout", "status", f"deployment/{target}", "--timeout=60s")


def pods(ground: Ground, target: str) -> list[str]:
    path = f"/api/v1/namespaces/{ground.namespace}/pods?labelSelector=app={target}"
    return [
        pod["status"]["podIP"]
        for pod in ground.api.request("GET", path)["items"]
        if "podIP" in pod["status"] and "deletionTimestamp" not in pod["metadata"]
    ]


def post(address: str, path: str, body: dict[str, Any]) -> None:
    answer = httpx.post(f"http://{address}:4000{path}", json=body, timeout=10, trust_env=False)
    answer.raise_for_status()


def injected_by(address: str) -> float:
    """Faults this pod has on record."""
    answer = httpx.get(f"http://{address}:4000/metrics", timeout=10, trust_env=False)
    lines = answer.raise_for_status().text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("chaos_injected_faults_total{"))


def verdict(ground: Ground, name: str) -> dict[str, Any]:
    return dict(eventually("the verdict", lambda: ground.status(name).get("verdict"), seconds=90))


def condition(ground: Ground, name: str) -> dict[str, str]:
    (found,) = [item for item in ground.status(name)["conditions"] if item["type"] == "Verdict"]
    return dict(found)


def test_a_run_ends_with_a_verdict_that_outlives_pods_and_operator(
    own_ground: Ground, own_operator: OperatorProcess, tmp_path: Path
) -> None:
    own_operator.start()
    target = service(own_ground, tmp_path)
    before = own_ground.target(target)["spec"]
    name = own_ground.run(target, rate=1.0)
    rolled_out(own_ground, target)
    (pod,) = eventually("one pod", lambda: len(found := pods(own_ground, target)) == 1 and found)
    for _ in range(3):
        post(pod, "/api/listings", {"title": "Test", "price": 1500})
    # A shadow write comes after the answer; one that comes after the disarm is made.
    eventually("three faults", lambda: injected_by(pod) == 3)
    own_ground.set_spec(name, suspend=True)
    own_ground.await_phase(name, "Finished", "SuspendedWhileRunning")
    assert own_ground.target(target)["spec"] == before
    given = verdict(own_ground, name)
    assert (given["result"], given["reason"]) == ("Passed", "AllExplained")
    assert given["account"] == {
        "injected": 3,
        "shadowFailures": 3,
        "discrepancies": {"missing_in_shadow": 3},
        "explained": 3,
        "unexplained": 0,
        "primaryErrors": 0,
        "primaryRequests": 3,
    }
    assert (condition(own_ground, name)["status"], condition(own_ground, name)["reason"]) == (
        "True",
        "AllExplained",
    )
    eventually("one Event", lambda: own_ground.events(name).count("VerdictPassed") == 1)
    assert own_operator.metric('shadowfault_verdicts_total{result="Passed"}') == 1
    assert " Passed " in own_ground.kubectl("get", "chaosexperiments", name)

    # As if the operator had died before it could write it, and all pods are new.
    own_operator.stop(signal.SIGKILL)
    own_ground.kubectl("rollout", "restart", f"deployment/{target}")
    rolled_out(own_ground, target)
    left = [item for item in own_ground.status(name)["conditions"] if item["type"] != "Verdict"]
    own_ground.set_status(name, {"verdict": None, "conditions": left})
    own_operator.start()
    again = verdict(own_ground, name)
    assert again["account"] == given["account"]
    assert again["result"] == "Passed"


def test_what_nobody_injected_fails(
    own_ground: Ground, own_operator: OperatorProcess, tmp_path: Path
) -> None:

    own_operator.start()
    target = service(own_ground, tmp_path)
    (pod,) = pods(own_ground, target)
    post(pod, "/api/listings", {"title": "Test", "price": 1500})
    shadow = sqlite3.connect(tmp_path / "shadow.db", timeout=10)
    eventually("the shadow write", lambda: shadow.execute("SELECT count(*) FROM listings").fetchone()[0] == 1)
    name = own_ground.run(target, rate=1.0)
    rolled_out(own_ground, target)
    with shadow:
        shadow.execute("DELETE FROM listings")
    shadow.close()
    own_ground.set_spec(name, suspend=True)
    given = verdict(own_ground, name)
    assert (given["result"], given["reason"]) == ("Failed", "UnexplainedDiscrepancies")
    assert (given["account"]["unexplained"], given["account"]["injected"]) == (1, 0)
    assert condition(own_ground, name)["status"] == "False"


def test_where_nobody_can_be_asked_it_is_inconclusive(
    own_ground: Ground, own_operator: OperatorProcess
) -> None:
    own_operator.start()
    target = own_ground.deploy()
    name = own_ground.run(target)
    own_ground.kubectl("scale", f"deployment/{target}", "--replicas=0")
    own_ground.await_phase(name, "Finished", "ScaledToZero")
    given = verdict(own_ground, name)
    assert (given["result"], given["reason"]) == ("Inconclusive", "NoReadyPod")
    assert "account" not in given
    assert condition(own_ground, name)["status"] == "Unknown"
