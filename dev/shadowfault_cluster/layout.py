"""Where a cluster keeps its files, and what a cluster may be called."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import platformdirs

from shadowfault_cluster.errors import ClusterError

if TYPE_CHECKING:
    from pathlib import Path

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


def cache_root() -> Path:
    """Our folder in the user's cache (XDG_CACHE_HOME is honoured)."""
    return platformdirs.user_cache_path("shadowfault")


def clusters_root() -> Path:
    """The folder that holds a state directory per running cluster."""
    return cache_root() / "clusters"


def validate_name(name: str) -> str:
    """Return `name`; raise ClusterError when it cannot name a cluster."""
    if not _NAME.fullmatch(name):
        raise ClusterError(
            f"{name!r} cannot name a cluster: use 1 to 40 lower-case letters, digits and '-', "
            "beginning and ending with a letter or digit, for example 'dev'"
        )
    return name


def random_name() -> str:
    """A name nobody else uses, for clusters that live as long as a test or a demo."""
    return f"tmp-{secrets.token_hex(4)}"


@dataclass(frozen=True)
class Layout:
    """The files of one cluster, below its state directory."""

    directory: Path

    @classmethod
    def of(cls, name: str) -> Layout:
        """The layout of the cluster called `name`."""
        return cls(clusters_root() / validate_name(name))

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.directory.name

    @property
    def lock(self) -> Path:
        """Held (flock) for as long as the cluster lives; beside the directory, as that comes and goes."""
        return self.directory.with_name(f"{self.name}.lock")

    @property
    def record(self) -> Path:
        """What the cluster is: see record.ClusterRecord."""
        return self.directory / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "kubeconfig"

    @property
    def controller_manager_kubeconfig(self) -> Path:
        """The controller manager's own kubeconfig."""
        return self.directory / "controller-manager.kubeconfig"

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.directory / "pki"

    @property
    def logs(self) -> Path:
        """A log file per process of the cluster."""
        return self.directory / "logs"

    @property
    def etcd(self) -> Path:
        """The data directory of etcd."""
        return self.directory / "etcd"

    @property
    def audit_policy(self) -> Path:
        """What the API server writes into its audit log."""
        return self.directory / "audit-policy.json"

    @property
    def audit_log(self) -> Path:
        """Audit events, one JSON document a line."""
        return self.log("audit")

    def log(self, component: str) -> Path:
        """The log file of one process."""
        return self.logs / f"{component}.log"
