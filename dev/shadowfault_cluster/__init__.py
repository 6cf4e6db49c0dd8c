"""The local cluster: a real Kubernetes control plane, and pods as local processes.

`Cluster.start()` in tests and the demo, `shadowfault cluster up` for people.
It is a development ground, not a runtime: see docs/architecture.md.
"""

from __future__ import annotations

from shadowfault_cluster.cluster import Cluster, running_clusters
from shadowfault_cluster.errors import (
    ClusterError,
    ClusterInUseError,
    ClusterNotFoundError,
    ClusterStartError,
    ControlPlaneUnavailableError,
    UnsupportedPlatformError,
)

__all__ = [
    "Cluster",
    "ClusterError",
    "ClusterInUseError",
    "ClusterNotFoundError",
    "ClusterStartError",
    "ControlPlaneUnavailableError",
    "UnsupportedPlatformError",
    "running_clusters",
]
