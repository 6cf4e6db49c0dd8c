"""A load generator with little to do: creates over kept connections, the next one when the last is answered.

`python -m shadowfault_bench.load URL WRITES CLIENTS` prints one JSON document: how long it took, and how long
each create took, in seconds. A process of its own, so that its work is not done on the service's loop.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

_CREATED: Final = b"HTTP/1.1 201 "
_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


@dataclass(frozen=True)
class Load:
    """What a load came to: from the first request to the last answer, and each request by itself."""

    seconds: float
    times: list[float]

    @property
    def rate(self) -> float:
        """Creates a second."""
        return len(self.times) / self.seconds


async def generate(url: str, writes: int, clients: int) -> Load:
    """Create `writes` listings over `clients` connections.

    Raises:
        RuntimeError: an answer was not 201, or a connection was lost.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    numbers = iter(range(writes))
    times: list[float] = []
    protocols = [_Client(parts.netloc, numbers, times) for _ in range(clients)]
    for protocol in protocols:
        loop = asyncio.get_running_loop()
        await loop.create_connection(partial(_itself, protocol), parts.hostname, parts.port)
    began = time.perf_counter()
    for protocol in protocols:
        protocol.send()
    await asyncio.gather(*(protocol.done for protocol in protocols))
    return Load(time.perf_counter() - began, times)


async def generate_apart(url: str, writes: int, clients: int) -> Load:
    """Do the same in a process of its own.

    Raises:
        RuntimeError: it failed; its own message is on stderr.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __spec__.name, url, str(writes), str(clients), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("the load generator failed")
    return Load(**json.loads(output))


class _Client(asyncio.Protocol):
    """One connection; `done` ends when there are no more numbers to send."""

    def __init__(self, host: str, numbers: Iterator[int], times: list[float]) -> None:
        self._head = f"POST /api/listings HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        self._numbers = numbers
        self._times = times
        self._transport: asyncio.WriteTransport | None = None
        self._received = b""
        self._began = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def send(self) -> None:
        """Send the next request, or be done."""
        assert self._transport is not None
        number = next(self._numbers, None)
        if number is None:
            self.done.set_result(None)
            self._transport.close()
            return
        body = f'{{"title": "Listing {number}", "price": {number}}}'
        self._received = b""
        self._began = time.perf_counter()
        self._transport.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n{body}".encode())

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(_END_OF_HEAD)
        if end < 0:
            return
        if not self._received.startswith(_CREATED):
            self.done.set_exception(RuntimeError(self._received.decode(errors="replace")))
            return
        head = self._received[:end].lower()
        length = int(head[head.index(_LENGTH) + len(_LENGTH) :].split(b"\r\n", 1)[0])
        if len(self._received) < end + len(_END_OF_HEAD) + length:
            return
        self._times.append(time.perf_counter() - self._began)
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(f"the connection was lost: {exc!r}"))


def _itself(protocol: _Client) -> _Client:
    return protocol


if __name__ == "__main__":
    json.dump(asdict(asyncio.run(generate(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))), sys.stdout)
