"""What the parts of the agent share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shadowfault_cluster.agent.objects import Json, name_of, namespace_of, uid_of
from shadowfault_cluster.processes import COOKIE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import aiohttp

    from shadowfault_cluster.agent.api import ApiClient
    from shadowfault_cluster.agent.config import AgentConfig
    from shadowfault_cluster.agent.events import EventRecorder

# In the environment of every process of a pod: CLUSTER_ID/POD_UID.
POD_MARKER = "SHADOWFAULT_POD"


def directory_name(pod: Json) -> str:
    """The name of a pod's directory: short, as a UNIX socket below TMPDIR has a path of 107 bytes at most."""
    return uid_of(pod)[:13]


@dataclass(frozen=True)
class NodeContext:
    """One for the whole agent. `services` gives the Services known at the moment."""

    config: AgentConfig
    client: ApiClient
    events: EventRecorder
    http: aiohttp.ClientSession
    services: Callable[[], Sequence[Json]]
    allocatable: Mapping[str, str]


@dataclass
class PodContext:
    """One pod. `pod` is its latest version; a finished pod has no address."""

    node: NodeContext
    pod: Json
    ip: str = ""
    has_token: bool = field(default=False)

    @property
    def path(self) -> str:
        """The pod's path in the API."""
        return f"/api/v1/namespaces/{namespace_of(self.pod)}/pods/{name_of(self.pod)}"

    @property
    def directory(self) -> Path:
        """All files of the pod."""
        return self.node.config.pods / directory_name(self.pod)

    @property
    def home(self) -> Path:
        """HOME and the working directory of its processes."""
        return self.directory / "home"

    @property
    def temporary(self) -> Path:
        """TMPDIR of its processes."""
        return self.directory / "tmp"

    @property
    def credentials(self) -> Path:
        """The service account's token and the kubeconfig made of it."""
        return self.directory / "serviceaccount"

    def log(self, container: str, run: int) -> Path:
        """The log of the run-th run (from 0) of a container."""
        return self.directory / "logs" / container / f"{run}.log"

    @property
    def marker(self) -> str:
        """The value of POD_MARKER."""
        return f"{self.node.config.cluster_id}/{uid_of(self.pod)}"

    def environment(self, declared: Mapping[str, str]) -> dict[str, str]:
        """The whole environment of a process: ours below what the pod declares, the marks above it."""
        base = {
            "PATH": self.node.config.search_path,
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "LANG": "C.UTF-8",
            "HOSTNAME": self.pod["spec"].get("hostname") or name_of(self.pod),
        }
        if self.has_token:
            base["KUBECONFIG"] = str(self.credentials / "kubeconfig")
        return base | dict(declared) | {COOKIE: self.node.config.cluster_id, POD_MARKER: self.marker}
