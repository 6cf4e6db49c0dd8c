"""Raw requests to the API server of a local cluster, with field managers and patch types as one says them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import httpx
import kopf
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Json: TypeAlias = dict[str, Any]
T = TypeVar("T")

MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"

_EXPERIMENTS: Final = "/apis/chaos.shadowfault.dev/v1alpha1"


class ApiRefusalError(Exception):
    """An answer other than 2xx."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


def connection_info(kubeconfig: Path) -> kopf.ConnectionInfo:
    """The server that a kubeconfig names, and who it says we are."""
    document = yaml.safe_load(kubeconfig.read_text())
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    return kopf.ConnectionInfo(
        server=cluster["server"],
        ca_data=cluster.get("certificate-authority-data"),
        certificate_data=user.get("client-certificate-data"),
        private_key_data=user.get("client-key-data"),
        token=user.get("token"),
    )


class Api:
    """The API server that a kubeconfig names, as the user it names."""

    def __init__(self, kubeconfig: Path) -> None:
        info = connection_info(kubeconfig)
        self._client = httpx.Client(
            base_url=info.server,
            headers=info.as_http_headers(),
            verify=info.as_ssl_context(),
            timeout=30,
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def request(
        self, method: str, path: str, body: Json | None = None, content_type: str = "application/json"
    ) -> Json:
        """One request.

        Raises:
            ApiRefusalError: the answer is not 2xx.
        """
        content = None if body is None else json.dumps(body)
        answer = self._client.request(method, path, content=content, headers={"Content-Type": content_type})
        if not answer.is_success:
            raise ApiRefusalError(answer.status_code, answer.text)
        return dict(answer.json())

    def find(self, path: str) -> Json | None:
        """GET, with None for what is not there."""
        try:
            return self.request("GET", path)
        except ApiRefusalError as error:
            if error.status == 404:
                return None
            raise


def deployments(namespace: str, name: str = "") -> str:
    """Path of Deployments."""
    return f"/apis/apps/v1/namespaces/{namespace}/deployments" + (f"/{name}" if name else "")


def experiments(namespace: str, name: str = "") -> str:
    """Path of ChaosExperiments."""
    return f"{_EXPERIMENTS}/namespaces/{namespace}/chaosexperiments" + (f"/{name}" if name else "")


def schedules(namespace: str, name: str = "") -> str:
    """Path of ChaosSchedules."""
    return f"{_EXPERIMENTS}/namespaces/{namespace}/chaosschedules" + (f"/{name}" if name else "")


def eventually(what: str, observe: Callable[[], T | None], *, seconds: float = 30.0) -> T:
    """The first truthy observation.

    Raises:
        TimeoutError: there was none in time; says what was waited for and what was seen last.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen = observe()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}; last seen: {seen!r}")
        time.sleep(0.03)
