"""Ending what is left of a cluster: its processes first, then its files."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from shadowfault_cluster import locks, processes
from shadowfault_cluster.layout import Layout, clusters_root
from shadowfault_cluster.record import ClusterRecord

# Set it to a directory to have each cluster's logs copied there when it ends.
KEEP_LOGS = "SHADOWFAULT_CLUSTER_KEEP_LOGS"


def remove_everything(layout: Layout, cluster_id: str, *, descendants: bool = False) -> None:
    """Kill every process of the cluster and remove its state directory and lock file."""
    survivors = processes.kill_members(cluster_id, descendants=descendants)
    if survivors:
        sys.stderr.write(f"could not kill {survivors}\n")
    _keep_logs(layout)
    shutil.rmtree(layout.directory, ignore_errors=True)
    layout.lock.unlink(missing_ok=True)


def remove_stale() -> None:
    """Remove what clusters left behind whose keeper and supervisor were both killed."""
    for lock_path in clusters_root().glob("*.lock"):
        lock = locks.acquire(lock_path)
        if lock is not None:
            remove_leftovers(Layout(lock_path.with_suffix("")))
            lock.remove_and_release()


def remove_leftovers(layout: Layout) -> None:
    """The same for one cluster, whose lock the caller holds (and keeps)."""
    try:
        cluster_id = ClusterRecord.read(layout.record).id
    except (OSError, ValueError):
        pass
    else:
        processes.kill_members(cluster_id)
    shutil.rmtree(layout.directory, ignore_errors=True)


def _keep_logs(layout: Layout) -> None:
    """Copy the logs of the cluster's processes and of its containers to where the user wants them."""
    target = os.environ.get(KEEP_LOGS)
    if not target:
        return
    try:
        for log in layout.directory.rglob("*.log"):
            kept = Path(target) / layout.name / log.relative_to(layout.directory)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, kept)
    except OSError as error:
        sys.stderr.write(f"could not keep the logs in {target}: {error}\n")
