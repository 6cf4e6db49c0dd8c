"""Stop conditions with pods of the service under load: each ends the run, and the target is as it was."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from shadowfault_demo.traffic import create_listings, request_ids
from shadowfault_testing.api import eventually
from shadowfault_testing.objects import container
from shadowfault_testing.operator import OperatorProcess
from shadowfault_testing.pods import server_container, shell_container

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shadowfault_cluster import Cluster
    from shadowfault_testing.objects import Json
    from shadowfault_testing.operator import Ground

pytestmark = pytest.mark.cluster

REPLICAS = 2


@pytest.fixture
def own_operator(own_ground: Ground, installed: Cluster, tmp_path: Path) -> Iterator[OperatorProcess]:
    """One that looks at metrics more often than it would elsewhere."""
    log = tmp_path / "operator.log"
    process = OperatorProcess(
        installed.kubeconfig, own_ground.namespace, log, SHADOWFAULT_SCRAPE_SECONDS="0.2"
    )
    process.start()
    yield process
    process.stop()
    assert "Traceback" not in log.read_text(), log.read_text()


@dataclass
class Target:
    """The service as a Deployment of two replicas."""

    ground: Ground
    folder: Path
    name: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DATABASE_URL": f"sqlite:///{self.folder / 'primary.db'}",
            "SHADOW_DATABASE_URL": f"sqlite:///{self.folder / 'shadow.db'}",
        }

    def pods(self) -> list[str]:
        """Addresses of the pods that are ready and not on their way out."""
        path = f"/api/v1/namespaces/{self.ground.namespace}/pods?labelSelector=app={self.name}"
        return [
            pod["status"]["podIP"]
            for pod in self.ground.api.request("GET", path)["items"]
            if "deletionTimestamp" not in pod["metadata"]
            and any(
                item["type"] == "Ready" and item["status"] == "True"
                for item in pod["status"].get("conditions", [])
            )
        ]

    def load(self, run: str, count: int = 40) -> None:
        """Create that many listings on each pod."""
        for number, address in enumerate(self.pods()):
            create_listings(f"http://{address}:4000", request_ids(f"{run}-{number}", count), workers=4)

    def sql(self, database: str, statement: str) -> None:
        with closing(sqlite3.connect(self.folder / f"{database}.db", timeout=20)) as connection:
            connection.execute(statement)
            connection.commit()


@pytest.fixture
def target(own_ground: Ground, tmp_path: Path) -> Target:
    made = Target(own_ground, tmp_path, "")
    service = container(
        env=[
            *({"name": name, "value": value} for name, value in made.environment.items()),
            {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
        command=["shadowfault", "api"],
        ports=[{"name": "http", "containerPort": 4000}],
        readinessProbe={"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
    )
    made.name = own_ground.deploy(containers=[service], replicas=REPLICAS)
    own_ground.kubectl("rollout", "status", f"deployment/{made.name}", "--timeout=60s")
    return made


def primary_breaks(target: Target) -> None:
    """The critical write fails, which no shadow fault may ever bring about."""
    target.sql("primary", "ALTER TABLE listings RENAME TO gone")
    target.load("broken")


def shadow_fails(target: Target) -> None:
    target.load("failing")


def shadow_loses(target: Target) -> None:
    """A row is missing in the shadow, and no recorded failure says why."""
    target.load("kept", 10)
    eventually("the shadow to have rows", lambda: rows(target, "shadow") == rows(target, "primary"))
    target.sql("shadow", "DELETE FROM listings WHERE id IN (SELECT id FROM listings LIMIT 1)")
    done = subprocess.run(
        [sys.executable, "-m", "shadowfault_cli", "verify", "--exit-zero", "--output", "json"],
        env={**target.environment, "PATH": os.environ["PATH"]},
        cwd=target.folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout.splitlines()[-1])["unexplained"] == 1


def rows(target: Target, database: str) -> int:
    with closing(sqlite3.connect(target.folder / f"{database}.db", timeout=20)) as connection:
        return int(connection.execute("SELECT count(*) FROM listings").fetchone()[0])


@pytest.mark.parametrize(
    ("rate", "conditions", "provoke", "message"),
    [
        (0.01, None, primary_breaks, "primaryErrorRatio is 1 ("),
        (1.0, {"shadowFailures": 25}, shadow_fails, "above its limit of 25"),
        (0.000001, None, shadow_loses, "unexplainedDiscrepancies is 1, above its limit of 0"),
    ],
    ids=["primary errors, by default", "shadow failures", "an unexplained discrepancy, by default"],
)
def test_a_condition_that_is_met_ends_the_run_and_restores_the_target(
    own_ground: Ground,
    own_operator: OperatorProcess,
    target: Target,
    rate: float,
    conditions: dict[str, int] | None,
    provoke: Callable[[Target], None],
    message: str,
) -> None:
    before = own_ground.target(target.name)["spec"]
    given = {} if conditions is None else {"stopConditions": conditions}
    name = own_ground.run(target.name, rate=rate, **given)
    own_ground.kubectl("rollout", "status", f"deployment/{target.name}", "--timeout=60s")
    eventually(
        "the metrics to be read", lambda: metrics_condition(own_ground, name) == ("True", "MetricsRead")
    )
    eventually("the old pods to be gone", lambda: len(target.pods()) == REPLICAS)

    provoke(target)
    status = own_ground.await_phase(name, "Finished", "StopConditionMet")
    assert message in status["message"]
    assert own_ground.target(target.name)["spec"] == before
    # An Event follows the status that it tells of.
    said = ["Accepted", "Injected", "Recovered", "StopConditionMet"]
    eventually("the Events", lambda: own_ground.run_events(name) == said)
    assert own_operator.metric('shadowfault_recoveries_total{reason="StopConditionMet"}') == 1
    own_ground.delete(name)


def metrics_condition(ground: Ground, name: str) -> tuple[str, str] | None:
    conditions = ground.status(name).get("conditions", [])
    found = [item for item in conditions if item["type"] == "MetricsAvailable"]
    return (found[0]["status"], found[0]["reason"]) if found else None


SILENT = shell_container("exec sleep 600", name="api", ports=[{"name": "http", "containerPort": 8080}])


@pytest.mark.parametrize(
    ("pods", "reason", "result"),
    [
        (server_container(name="api"), "MetricsMissing", "read"),
        (SILENT, "MetricsUnavailable", "unreachable"),
    ],
    ids=["they answer, and tell nothing", "they do not answer"],
)
def test_a_target_that_tells_nothing_is_a_condition_and_the_run_goes_on(
    own_ground: Ground, own_operator: OperatorProcess, pods: Json, reason: str, result: str
) -> None:
    target = own_ground.deploy(containers=[pods])
    own_ground.kubectl("rollout", "status", f"deployment/{target}", "--timeout=60s")
    name = own_ground.run(target)
    eventually("the condition", lambda: metrics_condition(own_ground, name) == ("False", reason))
    looks = f'shadowfault_scrapes_total{{result="{result}"}}'
    before = own_operator.metric(looks)
    version = (own_ground.experiment(name) or {})["metadata"]["resourceVersion"]
    eventually("some more looks", lambda: own_operator.metric(looks) > before + 5)
    # They write nothing.
    assert (own_ground.experiment(name) or {})["metadata"]["resourceVersion"] == version
    assert own_ground.status(name)["phase"] == "Running"
    assert own_ground.events(name) == ["Accepted", "Injected", reason]
    own_ground.delete(name)
