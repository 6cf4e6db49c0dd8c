"""The installed product as a user meets it: helm, kubectl and HTTP, and the seed's SQL through psql."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.parser import text_string_to_metric_families

from shadowfault_testing.api import eventually
from shadowfault_testing.kind import NODE_PORT, CommandError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from shadowfault_testing.kind import Kind
    from shadowfault_testing.objects import Json

SYSTEM: Final = "shadowfault-system"
STAGING: Final = "staging"
RELEASE: Final = "shadowfault"
CHART: Final = Path(__file__).parents[2] / "charts" / "shadowfault"
KIND: Final = "chaosexperiments.chaos.shadowfault.dev"
REPLICAS: Final = 2
# The chart's own labels and port; a Service of the suite's own, so that it is reached from outside.
_ENTRANCE: Final = f"""\
apiVersion: v1
kind: Service
metadata: {{name: e2e-entrance, namespace: {STAGING}}}
spec:
  type: NodePort
  selector: {{app.kubernetes.io/name: shadowfault, app.kubernetes.io/component: api}}
  ports: [{{name: http, port: 4000, targetPort: http, nodePort: {NODE_PORT}}}]
"""


@dataclass
class Product:
    """One release in one cluster."""

    kind: Kind
    image: str
    extra_values: tuple[str, ...] = field(default=())

    @property
    def api_url(self) -> str:
        return self.kind.api_url

    # The release

    def install(self, *values: str) -> None:
        """Install with everything of values-trial.yaml, or bring up to date, and wait until it is up."""
        self._helm("upgrade", "--install", "--create-namespace", *values)
        self.settle()

    def upgrade(self, *values: str) -> None:
        """`helm upgrade`, and wait until it is up."""
        self._helm("upgrade", *values)
        self.settle()

    def uninstall(self) -> None:
        """`helm uninstall`; what it ends first, it ends by its own hook."""
        self.kind.helm("-n", SYSTEM, "uninstall", RELEASE, "--wait", "--timeout", "5m")

    def settle(self) -> None:
        """Wait until the databases, the service and the operator are rolled out, and policies in force."""
        for what in ("statefulset/postgresql-primary", "statefulset/postgresql-shadow", "deployment/api"):
            self.rolled_out(what)
        self.kind.kubectl(
            "-n", SYSTEM, "rollout", "status", "deployment/shadowfault-operator", "--timeout=180s"
        )
        self.kind.kubectl("apply", "-f", "-", stdin=_ENTRANCE)
        eventually("the service to answer", self.answers, seconds=60)
        # A policy is in force a moment after it is stored; only a refusal shows that it is.
        eventually("the policies to be in force", self.refuses_production, seconds=60)

    def _helm(self, verb: str, *more: str) -> None:
        repository, tag = self.image.rsplit(":", 1)
        options = [one for one in more if one.startswith("--")]
        settings = [
            f"image.repository={repository}",
            f"image.tag={tag}",
            f"api.replicas={REPLICAS}",
            # All pods in one step, for the suite's sake.
            "api.rollingUpdate.maxSurge=100%",
            "networkPolicies.apiFrom[0].ipBlock.cidr=0.0.0.0/0",
            # The suite runs it when it wants to: at a quarter of an hour one would refuse the other.
            "verifier.suspend=true",
            *self.extra_values,
            *(one for one in more if not one.startswith("--")),
        ]
        self.kind.helm(
            *(verb, RELEASE, str(CHART), "--namespace", SYSTEM, *options),
            *("--values", str(CHART / "values-trial.yaml"), "--timeout", "5m"),
            *(part for value in settings for part in ("--set", value)),
        )

    def answers(self) -> bool:
        done = self.kubectl("exec", "deployment/api", "--", "true", check=False)
        return done.returncode == 0

    def refuses_production(self) -> bool:
        """Whether the API server refuses an experiment in a namespace that is production by its name."""
        self.kind.kubectl(
            "apply",
            "-f",
            "-",
            stdin=json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "metadata": {
                        "name": "shop-production",
                        "labels": {"chaos.shadowfault.dev/allowed": "true"},
                    },
                }
            ),
        )
        return self.apply(manifest("probe", "shop-production"), check=False, dry_run=True).returncode != 0

    # kubectl in staging

    def kubectl(
        self, *args: str, stdin: str | None = None, check: bool = True, seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        return self.kind.kubectl("-n", STAGING, *args, stdin=stdin, check=check, seconds=seconds)

    def apply(
        self, document: Json, *, check: bool = True, dry_run: bool = False
    ) -> subprocess.CompletedProcess[str]:
        options = ["--dry-run=server"] if dry_run else []
        return self.kind.kubectl("apply", *options, "-f", "-", stdin=json.dumps(document), check=check)

    def find(self, what: str, name: str, namespace: str = STAGING) -> Json | None:
        answer = self.kind.kubectl(
            "-n", namespace, "get", what, name, "--ignore-not-found", "-o", "json"
        ).stdout
        return json.loads(answer) if answer.strip() else None

    def rolled_out(self, what: str = "deployment/api") -> None:
        self.kubectl("rollout", "status", what, "--timeout=180s")

    def deployment(self) -> Json:
        found = self.find("deployment", "api")
        assert found is not None
        return found

    def template(self) -> Json:
        return dict(self.deployment()["spec"]["template"])

    def chaos_env(self) -> dict[str, str]:
        """CHAOS_* of the Deployment's pod template."""
        return {
            entry["name"]: entry.get("value", "")
            for container in self.template()["spec"]["containers"]
            for entry in container.get("env", ())
            if entry["name"].startswith("CHAOS_")
        }

    def _listed(self) -> list[Json]:
        listed = self.kubectl("get", "pods", "-l", "app.kubernetes.io/component=api", "-o", "json").stdout
        return list(json.loads(listed)["items"])

    def _ending(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self._listed() if "deletionTimestamp" in pod["metadata"]]

    def pods(self) -> list[str]:
        """Names of the service's ready pods that are not on their way out."""
        return [
            pod["metadata"]["name"]
            for pod in self._listed()
            if "deletionTimestamp" not in pod["metadata"]
            and any(
                c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ())
            )
        ]

    # Experiments

    def start(self, name: str, **spec: Any) -> None:  # noqa: ANN401 - JSON
        self.apply(manifest(name, **spec))

    def run(self, name: str, **spec: Any) -> Json:  # noqa: ANN401 - JSON
        """Apply an experiment, and wait until every pod runs with it, and those of before are gone.

        A pod on its way out is still sent requests for as long as the nodes take to hear of it.
        """
        self.start(name, **spec)
        status = self.await_phase(name, "Running")
        self.rolled_out()
        eventually("the pods of before to be gone", lambda: not self._ending(), seconds=60)
        return status

    def status(self, name: str) -> Json:
        return dict((self.find(KIND, name) or {}).get("status") or {})

    def await_phase(self, name: str, phase: str, reason: str | None = None, *, seconds: float = 90) -> Json:
        def reached() -> Json | None:
            status = self.status(name)
            return status if status.get("phase") == phase else None

        status = eventually(f"{name} to be {phase}", reached, seconds=seconds)
        assert reason is None or status["reason"] == reason, status
        return status

    def delete(self, name: str) -> datetime:
        """Delete an experiment; when kubectl returned."""
        self.kubectl("delete", KIND, name, "--wait=true", "--timeout=60s")
        return datetime.now(UTC)

    # What the service and its databases say

    def http(self, pod: str, path: str) -> str:
        """GET from one pod, through the API server."""
        return self.kubectl(
            "get", "--raw", f"/api/v1/namespaces/{STAGING}/pods/{pod}:4000/proxy{path}"
        ).stdout

    def metric(self, name: str, **labels: str) -> float:
        """A metric summed over the service's ready pods and over all labels not given."""
        return sum(value for pod in self.pods() for value in self._samples(pod, name, labels))

    def _samples(self, pod: str, name: str, labels: dict[str, str]) -> Iterator[float]:
        for family in text_string_to_metric_families(self.http(pod, "/metrics")):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    yield sample.value

    def sql(self, statement: str, database: str = "primary") -> list[dict[str, str]]:
        """Rows of one statement, by psql in the database's own pod; every value as text."""
        answer = self.kubectl(
            *("exec", "-i", f"statefulset/postgresql-{database}", "--"),
            *("psql", "--username", "postgres", "--dbname", "shadowfault", "--csv", "--quiet"),
            *("--set", "ON_ERROR_STOP=1"),
            stdin=statement,
        ).stdout
        return list(csv.DictReader(io.StringIO(answer)))

    def listings(self, run: str) -> int:
        """How many listings of a run of traffic the primary has."""
        rows = self.sql(f"SELECT count(*) AS n FROM listings WHERE title LIKE 'Listing {run}-%'")  # noqa: S608
        return int(rows[0]["n"])

    def failures(self, uid: str | None = None) -> int:
        """How many shadow writes failed, by evidence: all, or those of one experiment."""
        where = f" AND details->>'experimentUid' = '{uid}'" if uid else ""
        query = "SELECT count(*) AS n FROM evidence_records WHERE event_type = 'SHADOW_WRITE_FAILURE'"
        return int(self.sql(query + where)[0]["n"])

    def last_fault_at(self) -> datetime | None:
        """When the newest injected fault happened, by evidence."""
        rows = self.sql(
            "SELECT extract(epoch FROM max(occurred_at)) AS at FROM evidence_records "
            "WHERE event_type = 'SHADOW_WRITE_FAILURE' AND details->>'failureType' = 'injected'"
        )
        return datetime.fromtimestamp(float(rows[0]["at"]), UTC) if rows[0]["at"] else None

    def outbox_drained(self, seconds: float = 60) -> None:
        """Wait until no shadow write is in flight."""
        eventually(
            "the outbox to be empty of pending rows",
            lambda: self.sql("SELECT count(*) AS n FROM outbox WHERE state = 'pending'")[0]["n"] == "0",
            seconds=seconds,
        )

    def verify(self, name: str) -> Json:
        """Run the verifier's CronJob now, and return its report."""
        reports = [one for one in self.verified_by_pods(name) if "mode" in one]
        if len(reports) != 1:
            raise CommandError(f"job {name} printed {len(reports)} reports:\n{self._job_log(name)}")
        return reports[0]

    def verified_by_pods(self, name: str) -> list[Json]:
        """Run the verifier's CronJob now, and return what its pods report."""
        self.start_verifying(name)
        return self.verified(name)

    def start_verifying(self, name: str) -> None:
        """Run the verifier's CronJob now."""
        self.kubectl("create", "job", name, "--from=cronjob/shadow-discrepancy-verifier")

    def verified(self, name: str) -> list[Json]:
        """Wait for the end of a run of the verifier, and return what its pods report."""
        eventually(f"job {name} to end", lambda: self._job_is_over(name), seconds=120)
        lines = self._job_log(name).splitlines()
        return [dict(json.loads(line)) for line in lines if line.startswith('{"runId"')]

    def _job_is_over(self, name: str) -> bool:
        status = (self.find("job", name) or {}).get("status", {})
        conditions = status.get("conditions", ())
        return any(one["type"] in {"Complete", "Failed"} and one["status"] == "True" for one in conditions)

    def _job_log(self, name: str) -> str:
        return self.kubectl("logs", "-l", f"batch.kubernetes.io/job-name={name}", "--tail=-1").stdout


def manifest(name: str, namespace: str = STAGING, **spec: Any) -> Json:  # noqa: ANN401 - JSON
    """A ChaosExperiment on the service: half of the shadow writes for ten minutes unless told otherwise."""
    return {
        "apiVersion": "chaos.shadowfault.dev/v1alpha1",
        "kind": "ChaosExperiment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "targetRef": {"kind": "Deployment", "name": "api"},
            "rate": 0.5,
            "seed": "e2e",
            "duration": "10m",
            **spec,
        },
    }
