"""cluster.json: what a running cluster is, for its own processes and for whoever attaches to it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shadowfault_cluster.network import Network

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class ClusterRecord:
    """One cluster. Addresses are strings as Kubernetes spells them; pids are by component name."""

    name: str
    id: str
    network: str
    apiserver: str
    etcd: str
    node_name: str
    kubelet: str
    pod_network: str
    service_network: str
    binaries: str
    state: str = "starting"
    started_at: str = ""
    pids: dict[str, int] = field(default_factory=dict)

    @property
    def addresses(self) -> Network:
        """The cluster's network as an object."""
        return Network(int(self.network.split(".")[1]))

    def write(self, path: Path) -> None:
        """Replace `path` in one step: a reader sees the old record or the new one."""
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> ClusterRecord:
        """Read a record; raises OSError or ValueError when there is none worth the name."""
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = {entry.name for entry in dataclasses.fields(cls)}
        try:
            return cls(**{name: value for name, value in document.items() if name in known})
        except TypeError as error:
            raise ValueError(f"{path}: {error}") from error
