"""Starting children that cannot outlive us, and ending every process of a cluster."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Every process of a cluster carries its id in this variable, the containers included: they inherit it.
COOKIE = "SHADOWFAULT_CLUSTER_ID"

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Make orphans among our descendants our own children, however deep they were."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    death_signal: signal.Signals,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start `argv` with its output appended to `log`; it gets `death_signal` when we die, also by SIGKILL.

    Linux ties that to the *thread* that forked, so call this from the main
    thread of a process without others (also what makes a preexec_fn safe).
    """
    parent = os.getpid()

    def tie_to_parent() -> None:
        _prctl(_PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:  # it died between fork and prctl, so nobody will signal us
            os._exit(1)

    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own argument lists, no shell
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            pass_fds=pass_fds,
            preexec_fn=tie_to_parent,  # noqa: PLW1509 - single-threaded callers, see above
        )


def child_environment(cluster_id: str) -> dict[str, str]:
    """Our environment for a process of the cluster: with the cookie, and without what aims elsewhere."""
    unwanted = {"KUBECONFIG", "NOTIFY_SOCKET"}
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in unwanted and not name.lower().endswith("_proxy")
    }
    return environment | {COOKIE: cluster_id}


def kill_members(cluster_id: str, *, descendants: bool = False, timeout: float = 10.0) -> list[int]:
    """SIGKILL every process that carries the cluster's cookie, except ourselves, until none is left.

    With `descendants`, all of our descendants too (those that cleared their
    environment; complete only in a subreaper). Returns the process ids that
    were still there after `timeout` seconds (uninterruptible I/O).
    """
    deadline = time.monotonic() + timeout
    while True:
        _reap()
        found = {pid for pid in _pids() if _carries(pid, cluster_id)}
        if descendants:
            found |= _descendants()
        found.discard(os.getpid())
        if not found or time.monotonic() > deadline:
            return sorted(found)
        for pid in found:
            _kill(pid)
        time.sleep(0.01)  # until the kernel has torn them down; there is no event for other people's children


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _pids() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            yield int(entry.name)


def _carries(pid: int, cluster_id: str) -> bool:
    """Whether a living process was started with the cookie (a zombie's environment reads empty)."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except (OSError, ProcessLookupError):  # gone, or another user's
        return False
    return f"{COOKIE}={cluster_id}".encode() in environment.split(b"\0")


def _descendants() -> set[int]:
    parents: dict[int, int] = {}
    for pid in _pids():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (OSError, ProcessLookupError):
            continue
        # The second field is a name in brackets that may hold anything: proc_pid_stat(5).
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state != "Z":
            parents[pid] = int(parent)
    found: set[int] = set()
    frontier = {os.getpid()}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return found
