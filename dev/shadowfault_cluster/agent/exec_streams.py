"""The two ways a command run by `kubectl exec` is connected: by pipes, or by a terminal (-t)."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shadowfault_cluster.agent.container import Container
    from shadowfault_cluster.agent.process import Process

_READ_BYTES = 64 * 1024


class Streams(Protocol):
    """A command's connections. close() may be called again."""

    def start(
        self, container: Container, command: Sequence[str], output: Callable[[str, bytes], None]
    ) -> Process:
        """Start the command connected to us. Raises OSError."""

    async def write(self, data: bytes) -> None:
        """Pass on input, waiting while the command does not read."""

    def end_input(self) -> None:
        """There will be no more input."""

    def resize(self, columns: int, rows: int) -> None:
        """The client's window has this size now."""

    def close(self) -> None:
        """The command has ended: pass on what is left of its output, and let go."""


class Pipes:
    """Separate stdout and stderr; stdin when the client has one."""

    def __init__(self, *, stdin: bool) -> None:
        """Nothing is opened until start()."""
        self._stdin = stdin
        self._input: int | None = None

    def start(
        self, container: Container, command: Sequence[str], output: Callable[[str, bytes], None]
    ) -> Process:
        """Start the command."""
        if not self._stdin:
            return container.start_beside(command, output)
        reading, self._input = os.pipe()
        os.set_blocking(self._input, False)
        try:
            return container.start_beside(command, output, stdin=reading)
        finally:
            os.close(reading)

    async def write(self, data: bytes) -> None:
        """Write to stdin; what nobody reads is dropped."""
        if self._input is not None and not await _write_all(self._input, data):
            self.end_input()

    def end_input(self) -> None:
        """Close stdin."""
        if self._input is not None:
            os.close(self._input)
            self._input = None

    def resize(self, columns: int, rows: int) -> None:
        """Pipes have no size."""

    def close(self) -> None:
        """Close stdin; the output is the process's own affair."""
        self.end_input()


class Terminal:
    """One terminal for everything."""

    def __init__(self) -> None:
        """Nothing is opened until start()."""
        self._ours: int | None = None
        self._output: Callable[[str, bytes], None] | None = None

    def start(
        self, container: Container, command: Sequence[str], output: Callable[[str, bytes], None]
    ) -> Process:
        """Start the command as the leader of a session on the terminal."""
        self._output = output
        self._ours, theirs = os.openpty()
        os.set_blocking(self._ours, False)
        try:
            process = container.start_beside(command, output, terminal=theirs)
        except OSError:
            self.close()
            raise
        finally:
            os.close(theirs)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return process

    def _read(self) -> bool:
        """Pass on what can be read now; False when that was nothing, or the end."""
        if self._ours is None or self._output is None:
            return False
        try:
            data = os.read(self._ours, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the command has let go of the terminal
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._ours)
            return False
        self._output("stdout", data)
        return True

    async def write(self, data: bytes) -> None:
        """Type."""
        if self._ours is not None:
            await _write_all(self._ours, data)

    def end_input(self) -> None:
        """A terminal stays open; who wants to end input types Ctrl-D."""

    def resize(self, columns: int, rows: int) -> None:
        """Tell the command by SIGWINCH."""
        if self._ours is not None:
            fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        """Drain and close the terminal."""
        while self._read():
            pass
        if self._ours is not None:
            asyncio.get_running_loop().remove_reader(self._ours)
            os.close(self._ours)
            self._ours = None


async def _write_all(fd: int, data: bytes) -> bool:
    """Write to a non-blocking descriptor; False when nobody reads it any more."""
    loop = asyncio.get_running_loop()
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            writable = asyncio.Event()
            loop.add_writer(fd, writable.set)
            try:
                await writable.wait()
            finally:
                loop.remove_writer(fd)
        except OSError:
            return False
    return True
