"""Container logs: written line by line in the CRI format, read back as `kubectl logs` asks.

A line of a file is `TIME stdout|stderr F|P TEXT`, as the container runtimes
write it (F: a full line, P: a part of one, the rest follows).
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from shadowfault_cluster.agent.objects import micro_timestamp, utcnow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from pathlib import Path

# The kubelet's containerLogMaxSize, and the longest part of a line the runtimes write.
_MAX_FILE = 10 * 1024 * 1024
_MAX_PART = 16 * 1024
# What a reader that does not keep up may leave unread before it is cut off, in pieces of output.
_MAX_UNREAD = 4096


@dataclass(frozen=True)
class LogOptions:
    """v1.PodLogOptions, as far as a log is concerned. `since` is a moment in UTC."""

    follow: bool = False
    tail: int | None = None
    since: dt.datetime | None = None
    timestamps: bool = False
    limit_bytes: int | None = None
    stream: str = "All"


class ContainerLog:
    """The log of one run of one container. One file, and the one before it when it grows too large."""

    def __init__(self, path: Path) -> None:
        """Create or go on with the file at `path`."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path
        self._file: BinaryIO | None = path.open("ab", buffering=0)
        self._size = self._file.tell()
        self._partial = {"stdout": b"", "stderr": b""}
        self._followers: set[asyncio.Queue[bytes | None]] = set()

    def feed(self, stream: str, data: bytes) -> None:
        """Take output of `stream` (stdout or stderr), in pieces of any size."""
        *lines, rest = (self._partial[stream] + data).split(b"\n")
        prefix = f"{micro_timestamp(utcnow())} {stream} ".encode()
        written: list[bytes] = []
        for line in lines:
            written.append(b"%sF %s\n" % (prefix, _write_parts(line, prefix, written)))
        self._partial[stream] = _write_parts(rest, prefix, written)
        self._write(b"".join(written))

    def close(self) -> None:
        """Write what is left of unfinished lines, and end every follower."""
        now = micro_timestamp(utcnow())
        for stream, rest in self._partial.items():
            if rest:
                self._write(b"%s %s P %s\n" % (now.encode(), stream.encode(), rest))
        if self._file is not None:
            self._file.close()
            self._file = None
        for follower in self._followers:
            _end(follower)

    def follow(self) -> asyncio.Queue[bytes | None]:
        """A queue of everything written from now on; None is the end."""
        follower: asyncio.Queue[bytes | None] = asyncio.Queue(_MAX_UNREAD)
        if self._file is None:
            _end(follower)
        else:
            self._followers.add(follower)
        return follower

    def unfollow(self, follower: asyncio.Queue[bytes | None]) -> None:
        """Stop filling a queue that follow() returned."""
        self._followers.discard(follower)

    def _write(self, data: bytes) -> None:
        if not data or self._file is None:
            return
        if self._size + len(data) > _MAX_FILE:
            self._file.close()
            self.path.replace(_rotated(self.path))
            self._file = self.path.open("ab", buffering=0)
            self._size = 0
        self._file.write(data)
        self._size += len(data)
        for follower in list(self._followers):
            if follower.full():
                self._followers.discard(follower)
                _end(follower)
            else:
                follower.put_nowait(data)


def _write_parts(line: bytes, prefix: bytes, written: list[bytes]) -> bytes:
    """Move the full parts of a long line to `written`, and return the rest."""
    full = len(line) // _MAX_PART * _MAX_PART
    starts = range(0, full, _MAX_PART)
    written += [b"%sP %s\n" % (prefix, line[start : start + _MAX_PART]) for start in starts]
    return line[full:]


def _end(follower: asyncio.Queue[bytes | None]) -> None:
    if follower.full():
        follower.get_nowait()
    follower.put_nowait(None)


def _rotated(path: Path) -> Path:
    return path.with_suffix(".log.1")


async def read_log(path: Path, options: LogOptions, live: ContainerLog | None = None) -> AsyncIterator[bytes]:
    """Yield what `kubectl logs` prints of the log at `path`.

    With `follow` go on as `live` grows, until it is closed. Raises FileNotFoundError.
    """
    left = options.limit_bytes
    async for text in _texts(path, options, live):
        if left is not None and len(text) >= left:
            yield text[:left]
            return
        left = None if left is None else left - len(text)
        yield text


async def _texts(path: Path, options: LogOptions, live: ContainerLog | None) -> AsyncIterator[bytes]:
    # Nothing is awaited between these two lines, so nothing is written between them: no gap, no overlap.
    follower = live.follow() if live is not None and options.follow else None
    history = _history(path)
    try:
        yield b"".join(_rendered(history, options))
        if follower is None or live is None:
            return
        live_options = replace(options, tail=None)
        while (written := await follower.get()) is not None:
            yield b"".join(_rendered(written.split(b"\n")[:-1], live_options))
    finally:
        if follower is not None and live is not None:
            live.unfollow(follower)


def tail_of(path: Path, *, lines: int, size: int) -> str:
    """The last lines of a log, at most `size` bytes of them: a termination message."""
    shown = b"".join(_rendered(_history(path), LogOptions(tail=lines)))
    return shown[-size:].decode("utf-8", "replace")


def _history(path: Path) -> list[bytes]:
    older = _rotated(path)
    data = (older.read_bytes() if older.exists() else b"") + path.read_bytes()
    records = data.split(b"\n")
    return records[:-1]


def _rendered(records: Iterable[bytes], options: LogOptions) -> Iterator[bytes]:
    lines = _selected(records, options)
    # The API counts lines, and a long line is several records: join them before the tail is taken.
    return iter(deque(lines, options.tail)) if options.tail is not None else lines


def _selected(records: Iterable[bytes], options: LogOptions) -> Iterator[bytes]:
    started: dict[bytes, bytes] = {}
    for record in records:
        moment, stream, tag, text = record.split(b" ", 3)
        if options.stream != "All" and stream.decode() != options.stream.lower():
            continue
        if options.since is not None and dt.datetime.fromisoformat(moment.decode()) < options.since:
            continue
        head = b"" if stream in started or not options.timestamps else moment + b" "
        line = started.pop(stream, b"") + head + text
        if tag == b"F":
            yield line + b"\n"
        else:
            started[stream] = line
    yield from started.values()
