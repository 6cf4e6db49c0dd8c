"""Cluster: a running local cluster, for tests, the demo and the command line."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from shadowfault_cluster import assets, control, locks, support, teardown
from shadowfault_cluster.components import KUBECTL
from shadowfault_cluster.errors import (
    ClusterError,
    ClusterInUseError,
    ClusterNotFoundError,
)
from shadowfault_cluster.keeper_process import KeeperProcess
from shadowfault_cluster.layout import Layout, clusters_root, random_name, validate_name
from shadowfault_cluster.progress import LineReporter
from shadowfault_cluster.record import ClusterRecord

if TYPE_CHECKING:
    import ipaddress
    from collections.abc import Callable
    from types import TracebackType

_STOP_TIMEOUT_SECONDS = 40.0


def _ignore(_: str) -> None:
    pass


class Cluster:
    """A local cluster that runs. Get one by `start` or `attach`."""

    def __init__(self, layout: Layout, record: ClusterRecord, keeper: KeeperProcess | None = None) -> None:
        """For `start` and `attach` only."""
        self._layout = layout
        self._record = record
        self._keeper = keeper

    @classmethod
    def start(
        cls, name: str | None = None, *, on_progress: Callable[[str], None] = _ignore, detach: bool = False
    ) -> Cluster:
        """Start a cluster and return when it is usable: pods can be created and run.

        It ends with `stop()`, at the end of a `with` block, and with this
        process, however that ends; with `detach` only by `stop()`. Without a
        name it gets a random one. `on_progress` is told of each step, of building
        the control plane too, which takes minutes the first time.

        Raises UnsupportedPlatformError, ControlPlaneUnavailableError,
        ClusterInUseError, ClusterStartError; all are ClusterErrors.
        """
        layout = Layout.of(name or random_name())
        support.require_support()
        if is_running(layout):  # said again, race-free, by the keeper; here it spares the wait for a build
            raise ClusterInUseError(layout.name)
        binaries = assets.ensure(LineReporter(on_progress))
        teardown.remove_stale()
        keeper = KeeperProcess(layout, binaries)
        try:
            keeper.wait_until_ready(on_progress)
            record = ClusterRecord.read(layout.record)
            if detach:
                keeper.detach()
                return cls(layout, record)
        except BaseException:
            keeper.stop()
            raise
        return cls(layout, record, keeper)

    @classmethod
    def attach(cls, name: str) -> Cluster:
        """Return the running cluster called `name`. Raises ClusterNotFoundError."""
        layout = Layout.of(name)
        try:
            if is_running(layout):
                return cls(layout, ClusterRecord.read(layout.record))
        except (OSError, ValueError):
            pass  # it is just coming or going
        raise ClusterNotFoundError(
            f"no local cluster named {name!r} is running; `shadowfault cluster up --name {name}` starts one"
        )

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self._layout.name

    @property
    def directory(self) -> Path:
        """The state directory; it goes with the cluster."""
        return self._layout.directory

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self._layout.kubeconfig

    @property
    def network(self) -> ipaddress.IPv4Network:
        """The 127.X.0.0/16 that is this cluster's own."""
        return self._record.addresses.cidr

    @property
    def record(self) -> ClusterRecord:
        """What cluster.json says now (process ids change)."""
        return ClusterRecord.read(self._layout.record)

    def environment(self) -> dict[str, str]:
        """This process's environment, with KUBECONFIG and PATH leading to this cluster and its kubectl."""
        path = os.pathsep.join([self._record.binaries, os.environ.get("PATH", os.defpath)])
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002 - as in subprocess.run
        check: bool = True,
        kubeconfig: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the cluster's own kubectl, as the administrator or as `kubeconfig` says.

        The user's KUBECONFIG and contexts play no part. Raises ClusterError with
        kubectl's own words when it fails and `check` is true.
        """
        environment = self.environment() | {"KUBECONFIG": str(kubeconfig or self.kubeconfig)}
        result = subprocess.run(  # noqa: S603 - our own binary, no shell
            [str(Path(self._record.binaries) / KUBECTL), *args],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and result.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(args)}: {result.stderr.strip() or result.stdout.strip()}")
        return result

    def status(self) -> dict[str, Any]:
        """{"state": ..., "components": {name: {"state", "pid", "restarts"}}} from the supervisor."""
        return control.request(self._record.id, {"do": "status"})

    def stop_component(self, name: str, *, kill: bool = False) -> None:
        """Stop one component (see components.py for names) and keep it stopped; with `kill` by SIGKILL."""
        number = signal.SIGKILL if kill else signal.SIGTERM
        control.request(self._record.id, {"do": "stop", "component": name, "signal": int(number)})

    def start_component(self, name: str) -> None:
        """Start a stopped component; returns when it is ready."""
        control.request(self._record.id, {"do": "start", "component": name}, timeout=150.0)

    def restart(self, name: str, *, kill: bool = False) -> None:
        """Stop a component and start it again; returns when it is ready."""
        self.stop_component(name, kill=kill)
        self.start_component(name)

    def stop(self) -> None:
        """End every process of the cluster and remove its files; nothing happens the second time."""
        if self._keeper is not None:
            self._keeper.stop()
            return
        if not is_running(self._layout):
            return
        try:
            control.request(self._record.id, {"do": "shutdown"})
        except ClusterError:
            self._signal("keeper", signal.SIGTERM)
        if not self._wait_until_gone():
            self._signal("supervisor", signal.SIGKILL)  # the keeper cleans up
            if not self._wait_until_gone():
                raise ClusterError(f"cluster {self.name} does not end; see {self._layout.logs}")

    def _signal(self, process: str, number: signal.Signals) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError):  # already on its way out
            os.kill(self.record.pids[process], number)

    def _wait_until_gone(self) -> bool:
        deadline = time.monotonic() + _STOP_TIMEOUT_SECONDS
        while is_running(self._layout):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)  # the end of another process's child: nothing to wait on
        return True

    def __enter__(self) -> Self:
        """Stop it at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()


def is_running(layout: Layout) -> bool:
    """Whether a keeper or supervisor holds the cluster's lock."""
    if not layout.lock.exists():
        return False
    lock = locks.acquire(layout.lock)
    if lock is None:
        return True
    teardown.remove_leftovers(layout)
    lock.remove_and_release()
    return False


def running_clusters() -> list[Cluster]:
    """Every cluster of this user that is ready or on its way, by name."""
    found = []
    for path in sorted(clusters_root().glob("*.lock")):
        try:
            found.append(Cluster.attach(validate_name(path.stem)))
        except ClusterError:
            continue
    return found
