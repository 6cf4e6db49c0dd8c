"""Ask a real API server what it takes: verdicts with their messages and warnings, as any user."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import httpx
import kopf
import yaml

from shadowfault_testing.api import MERGE, deployments, eventually, experiments, schedules
from shadowfault_testing.objects import container, deployment, experiment, schedule

if TYPE_CHECKING:
    from types import TracebackType

    from shadowfault_cluster import Cluster

Json: TypeAlias = dict[str, Any]

MANIFESTS: Final = Path(__file__).parents[2] / "crds"
NAMESPACES: Final = "/api/v1/namespaces"
CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ALLOWED: Final = {"chaos.shadowfault.dev/allowed": "true"}


@dataclass(frozen=True)
class Verdict:
    """An answer: HTTP status, body, and the texts of its Warning headers."""

    status: int
    body: Json
    warnings: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300

    @property
    def message(self) -> str:
        """Why it was refused; empty when it was not."""
        return "" if self.accepted else str(self.body.get("message", self.body))

    def __str__(self) -> str:
        return f"{self.status} {self.message}"


class ApiServer:
    """One kept connection to the API server of `cluster`, as the administrator."""

    def __init__(self, cluster: Cluster) -> None:
        document = yaml.safe_load(cluster.kubeconfig.read_text())
        connection, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        info = kopf.ConnectionInfo(
            server=connection["server"],
            ca_data=connection["certificate-authority-data"],
            certificate_data=user["client-certificate-data"],
            private_key_data=user["client-key-data"],
        )
        self._http = httpx.Client(
            base_url=connection["server"], verify=info.as_ssl_context(), timeout=30, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        content_type: str = "application/json",
        as_user: str | None = None,
        **parameters: str,
    ) -> Verdict:
        """One request; `parameters` go into the query, such as dryRun="All"."""
        headers = {"Content-Type": content_type} | ({"Impersonate-User": as_user} if as_user else {})
        answer = self._http.request(method, path, json=body, headers=headers, params=parameters)
        warnings = tuple(text.split('"', 1)[1].rstrip('"') for text in answer.headers.get_list("warning"))
        # A kind that is not served yet is a 404 in plain text.
        plain = "json" not in answer.headers.get("content-type", "")
        return Verdict(answer.status_code, {"message": answer.text} if plain else answer.json(), warnings)

    def create(self, path: str, body: Json, *, as_user: str | None = None) -> Verdict:
        return self.ask("POST", path, body, as_user=as_user)

    def would_create(self, path: str, body: Json, *, as_user: str | None = None) -> Verdict:
        """As `create`, and nothing is kept."""
        return self.ask("POST", path, body, as_user=as_user, dryRun="All")

    def merge(self, path: str, patch: Json, *, as_user: str | None = None) -> Verdict:
        """A merge patch."""
        return self.ask("PATCH", path, patch, content_type=MERGE, as_user=as_user)

    def get(self, path: str) -> Json:
        verdict = self.ask("GET", path)
        assert verdict.accepted, f"GET {path}: {verdict}"
        return verdict.body

    def new_namespace(self, prefix: str = "t", labels: dict[str, str] | None = None, suffix: str = "") -> str:
        """Create a namespace of a name of its own, opted in unless `labels` are given."""
        name = f"{prefix}-t{secrets.token_hex(4)}{suffix}"
        verdict = self.create(
            NAMESPACES, {"metadata": {"name": name, "labels": ALLOWED if labels is None else labels}}
        )
        assert verdict.accepted, str(verdict)
        return name


def install(cluster: Cluster) -> None:
    """Install the manifests of crds/ and return when each is seen to be in force."""
    cluster.kubectl("apply", "-f", str(MANIFESTS))
    with ApiServer(cluster) as server:
        eventually("the policies to be in force", lambda: _in_force(server), seconds=60)


def _in_force(server: ApiServer) -> bool:
    """Whether each policy objects to what it is there to object to."""
    aimed = server.would_create(experiments("default"), experiment("probe", rate=0.9))
    carrying = server.would_create(
        deployments("default"),
        deployment(
            "probe",
            replicas=0,
            containers=[
                container(
                    env=[
                        {"name": "NODE_ENV", "value": "production"},
                        {"name": "CHAOS_ENABLED", "value": "true"},
                    ]
                )
            ],
        ),
    )
    planned = server.would_create(schedules("default"), schedule("probe", spec={"rate": 1.0}))
    return (
        "shadowfault-experiments" in aimed.message
        and "shadowfault-schedules" in planned.message
        and any("shadowfault-advice" in warning for warning in aimed.warnings)
        and any("shadowfault-schedule-advice" in warning for warning in planned.warnings)
        and "shadowfault-deployments" in carrying.message
    )
