"""What the agent is told by the cluster's state directory."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from shadowfault_cluster.processes import COOKIE
from shadowfault_cluster.record import ClusterRecord


@dataclass(frozen=True)
class AgentConfig:
    """One node of one cluster."""

    directory: Path
    cluster_id: str
    apiserver: str
    node_name: str
    host_ip: str
    kubelet_port: int
    pod_network: IPv4Network
    pod_capacity: int

    @classmethod
    def load(cls, directory: Path) -> AgentConfig:
        """Read cluster.json below `directory`. Raises OSError, ValueError."""
        record = ClusterRecord.read(directory / "cluster.json")
        address, _, port = record.kubelet.removeprefix("https://").partition(":")
        network = IPv4Network(record.pod_network)
        return cls(
            directory=directory.resolve(),
            cluster_id=os.environ.get(COOKIE, record.id),
            apiserver=record.apiserver,
            node_name=record.node_name,
            host_ip=address,
            kubelet_port=int(port),
            pod_network=network,
            # A few addresses more than pods: a new pod starts while the old one still ends.
            pod_capacity=network.num_addresses - 16,
        )

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.directory / "pki"

    @property
    def pods(self) -> Path:
        """A directory per pod."""
        return self.directory / "pods"

    @property
    def search_path(self) -> str:
        """PATH of every container: the console scripts of this environment, then the system's folders."""
        system = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
        return os.pathsep.join([str(Path(sys.prefix) / "bin"), *system])
