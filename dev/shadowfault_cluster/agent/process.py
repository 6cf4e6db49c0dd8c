"""One local process in its own session, tied to the agent's life, its output piped to a callback."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import termios
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_READ_BYTES = 64 * 1024


class StartError(Exception):
    """The process could not be started: no such command, directory or permission."""


@dataclass(frozen=True)
class Surroundings:
    """What a process finds when it starts: its whole environment, and its working directory."""

    environment: Mapping[str, str]
    directory: Path


class Process:
    """A running process and, by its process group, what it started.

    Needs Linux 5.3 (pidfd) and a single-threaded caller: the kernel ties the
    death signal to the thread that forked, and preexec_fn is unsafe with others.
    """

    def __init__(self, popen: subprocess.Popen[bytes], output: Callable[[str, bytes], None]) -> None:
        """Watch a process that was just started; use start()."""
        self._popen = popen
        self._output = output
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self._pipes: dict[int, str] = {}
        for stream, pipe in (("stdout", popen.stdout), ("stderr", popen.stderr)):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                self._pipes[pipe.fileno()] = stream
                self._loop.add_reader(pipe.fileno(), self._read, pipe.fileno())
        self._pidfd = os.pidfd_open(popen.pid)
        self._loop.add_reader(self._pidfd, self._ended)

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        surroundings: Surroundings,
        output: Callable[[str, bytes], None],
        *,
        stdin: int = subprocess.DEVNULL,
        terminal: int | None = None,
    ) -> Self:
        """Start `argv`; `output(stream, data)` is called with what it prints. Raises StartError.

        With `terminal`, the descriptor of a terminal, that is its stdin, stdout and stderr, and
        `output` is not called.
        """
        parent = os.getpid()

        def tie_to_agent() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)
            if terminal is not None:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        environment, directory = surroundings.environment, surroundings.directory
        if not directory.is_dir():
            raise StartError(f"working directory {directory} does not exist; it is a path of this machine")
        try:
            popen = subprocess.Popen(  # noqa: S603 - running a pod's command is what a node does
                argv,
                env=environment,
                cwd=directory,
                stdin=stdin if terminal is None else terminal,
                stdout=subprocess.PIPE if terminal is None else terminal,
                stderr=subprocess.PIPE if terminal is None else terminal,
                start_new_session=True,
                preexec_fn=tie_to_agent,  # noqa: PLW1509 - single-threaded, see the class
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise StartError(f'exec "{argv[0]}": {reason} (PATH={environment.get("PATH", "")})') from error
        return cls(popen, output)

    @property
    def pid(self) -> int:
        """The process id, also the id of its group and session."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._exit.done()

    async def wait(self) -> int:
        """Return the exit code once it has ended: 128+n after signal n, as container runtimes report it."""
        return await asyncio.shield(self._exit)

    def signal(self, number: signal.Signals) -> None:
        """Signal the process and its group; nothing happens when it has ended."""
        if not self._exit.done():
            _signal_group(self.pid, number)

    async def stop(self, grace: float) -> int:
        """SIGTERM, SIGKILL after `grace` seconds; returns the exit code."""
        self.signal(signal.SIGTERM)
        killer = self._loop.call_later(grace, self.signal, signal.SIGKILL)
        try:
            return await self.wait()
        finally:
            killer.cancel()

    def _read(self, fd: int) -> bool:
        """Pass on what can be read now; False when that was nothing, or the end."""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._output(self._pipes[fd], data)
            return True
        self._close(fd)
        return False

    def _close(self, fd: int) -> None:
        stream = self._pipes.pop(fd)
        self._loop.remove_reader(fd)
        pipe = self._popen.stdout if stream == "stdout" else self._popen.stderr
        if pipe is not None:
            pipe.close()

    def _ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        # A container's end ends all of it. While its leader is a zombie nobody else can get the group's id.
        _signal_group(self.pid, signal.SIGKILL)
        code = self._popen.wait()
        for fd in list(self._pipes):
            while self._read(fd):
                pass
            if fd in self._pipes:  # something that left the group still holds the other end
                self._close(fd)
        self._exit.set_result(code if code >= 0 else 128 - code)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def kill_marked(marker: str) -> int:
    """SIGKILL every process whose initial environment has a line that begins with `marker` (NAME=VALUE...).

    For what has left its process group (daemons of a container). Returns how many there were.
    """
    wanted = marker.encode()
    killed = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            if any(line.startswith(wanted) for line in variables):
                os.kill(int(entry.name), signal.SIGKILL)
                killed += 1
        except OSError:  # gone, or another user's
            continue
    return killed
