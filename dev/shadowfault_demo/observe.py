"""What the demo looks at: the API server, the pods' own metrics and health, the evidence table."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shadowfault_cluster import Cluster

# The two questions of the contract, to the letter.
FAILURES_SQL = """\
SELECT *
FROM evidence_records
WHERE event_type = 'SHADOW_WRITE_FAILURE'
ORDER BY occurred_at DESC
LIMIT 50;"""

DISCREPANCIES_SQL = """\
SELECT *
FROM evidence_records
WHERE event_type = 'SHADOW_WRITE_DISCREPANCY'
ORDER BY occurred_at DESC
LIMIT 50;"""


@dataclass(frozen=True)
class Pod:
    """A pod of the service that takes requests."""

    name: str
    address: str


class Staging:
    """Read access to everything in the demo's namespace."""

    NAMESPACE = "staging"

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.namespace = self.NAMESPACE
        self.data = cluster.directory / "data"
        self._database = self.data / "primary.db"

    def database_urls(self) -> dict[str, str]:
        """Where the service keeps its two databases: files that go with the cluster."""
        return {"primary": f"sqlite:///{self._database}", "shadow": f"sqlite:///{self.data / 'shadow.db'}"}

    def get(self, *what: str) -> dict[str, Any]:
        """`kubectl get ... -o json` in the namespace."""
        answer = self.cluster.kubectl("-n", self.namespace, "get", *what, "-o", "json").stdout
        parsed: dict[str, Any] = json.loads(answer)
        return parsed

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """One object, or None when there is none of that name."""
        answer = self.cluster.kubectl(
            "-n", self.namespace, "get", kind, name, "--ignore-not-found", "-o", "json"
        ).stdout
        return json.loads(answer) if answer.strip() else None

    def ready_pods(self) -> list[Pod]:
        """The service's ready pods that are not on their way out."""
        return [
            Pod(pod["metadata"]["name"], pod["status"]["podIP"])
            for pod in self.get("pods", "-l", "app.kubernetes.io/name=api")["items"]
            if "deletionTimestamp" not in pod["metadata"]
            and any(
                c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ())
            )
        ]

    def service_address(self) -> str:
        """The Service's stable address, http://address:port."""
        spec = self.get("service", "api")["spec"]
        return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"

    def health(self) -> list[dict[str, Any]]:
        """The `/health` document of each ready pod."""
        return [_http_json(f"http://{pod.address}:4000/health") for pod in self.ready_pods()]

    def metrics(self) -> dict[str, float]:
        """Series summed over the ready pods; keys as in the text format, name and labels."""
        total: dict[str, float] = {}
        for pod in self.ready_pods():
            text = httpx.get(f"http://{pod.address}:4000/metrics", timeout=5, trust_env=False).text
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    series = _series(sample.name, sample.labels)
                    total[series] = total.get(series, 0.0) + sample.value
        return total

    def sql(self, query: str, parameters: Iterable[Any] = ()) -> list[dict[str, Any]]:
        """Rows of the primary database, read only."""
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, tuple(parameters))]

    def refused_by_trigger(self, statement: str) -> str | None:
        """What the database answers to a statement that must not pass; None when it passed."""
        with closing(sqlite3.connect(self._database, timeout=10)) as connection:
            try:
                connection.execute(statement)
            except sqlite3.DatabaseError as refusal:
                return str(refusal)
            finally:
                connection.rollback()
        return None

    def failed_request_ids(self, experiment_uid: str) -> list[str]:
        """Request ids whose shadow write this experiment made fail, from evidence, in order of id."""
        rows = self.sql(
            "SELECT request_id FROM evidence_records WHERE event_type = 'SHADOW_WRITE_FAILURE'"
            " AND json_extract(details, '$.experimentUid') = ? ORDER BY request_id",
            (experiment_uid,),
        )
        return [row["request_id"] for row in rows]

    def failures(self) -> int:
        """How many shadow writes failed so far, from evidence."""
        rows = self.sql(
            "SELECT count(*) AS n FROM evidence_records WHERE event_type = 'SHADOW_WRITE_FAILURE'"
        )
        return int(rows[0]["n"])

    def outbox_pending(self) -> int:
        """Shadow writes that are neither done nor failed yet."""
        return int(self.sql("SELECT count(*) AS n FROM outbox WHERE state = 'pending'")[0]["n"])

    def last_injected_at(self) -> datetime | None:
        """When the newest injected fault happened, from evidence."""
        rows = self.sql(
            "SELECT max(occurred_at) AS at FROM evidence_records WHERE event_type = 'SHADOW_WRITE_FAILURE'"
        )
        return _moment(rows[0]["at"]) if rows[0]["at"] else None


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _series(name: str, labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{inside}}}" if inside else name


def _http_json(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(url, timeout=5, trust_env=False).json()
    return answer


def chaos_environment(deployment: Mapping[str, Any]) -> dict[str, str]:
    """CHAOS_* entries in a Deployment's pod template, whichever container has them."""
    return {
        entry["name"]: entry.get("value", "")
        for container in deployment["spec"]["template"]["spec"]["containers"]
        for entry in container.get("env", ())
        if entry["name"].startswith("CHAOS_")
    }
