"""The process that outlives a cluster to clean up after it.

`python -m shadowfault_cluster.keeper`, started by Cluster.start. It takes the
cluster's name and network, starts the supervisor, and waits: for the supervisor
to end, for a signal, or for its starter to be gone. Then it ends every process
of the cluster and removes the state directory. It does little so that little
can go wrong with it, and if it is killed all the same, the supervisor notices
(PR_SET_PDEATHSIG) and does that work itself.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import secrets
import selectors
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shadowfault_cluster import locks, processes, runner, teardown
from shadowfault_cluster.errors import ClusterError, ClusterInUseError
from shadowfault_cluster.layout import Layout
from shadowfault_cluster.network import NetworkClaim, claim_network
from shadowfault_cluster.reporting import StatusWriter

if TYPE_CHECKING:
    import subprocess

# The starter writes this before it closes its end of the life line: go on without me.
DETACH = b"d"
# The supervisor gives the agent 10 s to end its pods.
_STOP_TIMEOUT_SECONDS = 20.0
_CHECK_SECONDS = 0.5
# Whoever asks whether a cluster runs holds its lock for a moment; a cluster holds it for good.
_CLAIM_SECONDS = 2.0


@dataclass
class LifeLine:
    """Tells whether the starter is still there, once it has not let us go.

    A pipe that closes with the starter, and the parent's process id beside it:
    a starter that forked may have left its end of the pipe open in a child.
    """

    descriptor: int | None
    parent: int

    def cut(self) -> bool:
        """Whether the cluster must end because its starter has."""
        return self.descriptor is not None and os.getppid() != self.parent

    def read(self) -> bool:
        """Take what came over the pipe; true when the cluster must end."""
        if self.descriptor is None:
            return False
        detached = os.read(self.descriptor, 1) == DETACH
        os.close(self.descriptor)
        self.descriptor = None
        return not detached


class Keeper:
    """Waits for the end of one supervisor."""

    def __init__(self, supervisor: subprocess.Popen[bytes], life_line: LifeLine) -> None:
        """Take over signals; `supervisor` has just been started."""
        self._supervisor = supervisor
        self._life_line = life_line
        self._kill_at: float | None = None
        self._asked = False
        # A self-pipe: a signal wakes the selector.
        self._wake_read, wake_write = os.pipe()
        for descriptor in (self._wake_read, wake_write):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._ask_to_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def wait(self) -> None:
        """Return when the supervisor is gone."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            if self._life_line.descriptor is not None:
                selector.register(self._life_line.descriptor, selectors.EVENT_READ)
            while not self._supervisor_gone():
                for key, _ in selector.select(_CHECK_SECONDS):
                    if key.fd == self._wake_read:
                        os.read(self._wake_read, 4096)
                        continue
                    selector.unregister(key.fileobj)
                    if self._life_line.read():
                        self._asked = True
                if self._asked or self._life_line.cut():
                    self._stop_supervisor()

    def _ask_to_stop(self, *_: object) -> None:
        self._asked = True

    def _stop_supervisor(self) -> None:
        now = time.monotonic()
        if self._kill_at is None:
            self._kill_at = now + _STOP_TIMEOUT_SECONDS
            self._supervisor.terminate()
        elif now > self._kill_at:
            self._supervisor.kill()

    def _supervisor_gone(self) -> bool:
        # As a subreaper we inherit the cluster's orphans; waiting for any child keeps none as a zombie.
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._supervisor.pid:
                self._supervisor.returncode = os.waitstatus_to_exitcode(status)
                return True


@dataclass(frozen=True)
class Claims:
    """A cluster's name and network, which nobody else gets while they are held."""

    lock: locks.FileLock
    network: NetworkClaim

    @classmethod
    def take(cls, layout: Layout) -> Claims:
        """Claim both. Raises ClusterError when the name is taken or no network is free."""
        deadline = time.monotonic() + _CLAIM_SECONDS
        while (lock := locks.acquire(layout.lock)) is None:
            if time.monotonic() > deadline:
                raise ClusterInUseError(layout.name)
            time.sleep(0.02)
        try:
            return cls(lock, claim_network())
        except BaseException:
            lock.remove_and_release()
            raise

    @property
    def descriptors(self) -> tuple[int, int]:
        """What a child has to inherit to hold the claims too."""
        return self.lock.descriptor, self.network.socket.fileno()

    def release(self) -> None:
        """Give both up."""
        self.network.release()
        os.close(self.lock.descriptor)


def keep(layout: Layout, *, binaries: Path, status: StatusWriter, life_line: LifeLine) -> int:
    """Run a cluster from its first process to its last. Returns the exit status."""
    claims = Claims.take(layout)
    cluster_id = secrets.token_hex(8)
    try:
        teardown.remove_leftovers(layout)
        layout.directory.mkdir(mode=0o700)
        layout.logs.mkdir()
        supervisor = processes.spawn(
            [
                sys.executable,
                "-P",  # nothing in the working directory stands for a module of ours
                "-m",
                "shadowfault_cluster.supervisor",
                f"--directory={layout.directory}",
                f"--network={claims.network.network.index}",
                f"--binaries={binaries}",
                f"--status-fd={status.descriptor}",
            ],
            log=layout.log("supervisor"),
            environment=processes.child_environment(cluster_id),
            death_signal=signal.SIGTERM,
            # The claims stay held as long as either of us lives.
            pass_fds=(status.descriptor, *claims.descriptors),
        )
        Keeper(supervisor, life_line).wait()
        if supervisor.returncode:
            # Said by the supervisor itself, unless it was killed.
            log = runner.tail(layout.log("supervisor"))
            status.failed(f"the cluster's supervisor ended with {supervisor.returncode}:\n{log}")
        return supervisor.returncode or 0
    finally:
        teardown.remove_everything(layout, cluster_id, descendants=True)
        claims.release()


def main() -> None:
    """Entry point; the arguments are those of Cluster.start."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--binaries", type=Path, required=True)
    parser.add_argument("--status-fd", type=int, required=True)
    parser.add_argument("--life-fd", type=int, required=True)
    parser.add_argument("--starter", type=int, required=True)
    arguments = parser.parse_args()
    for descriptor in (arguments.status_fd, arguments.life_fd):
        fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    processes.become_subreaper()
    status = StatusWriter(arguments.status_fd)
    life_line = LifeLine(arguments.life_fd, arguments.starter)
    try:
        sys.exit(
            keep(Layout(arguments.directory), binaries=arguments.binaries, status=status, life_line=life_line)
        )
    except (ClusterError, OSError) as error:
        status.failed(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
