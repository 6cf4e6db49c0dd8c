"""A TCP proxy in front of a changing set of backends."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from shadowfault_cluster.agent.endpoints import Address

_log = logging.getLogger(__name__)
_CONNECT_SECONDS = 5.0


class Balancer:
    """Hands out backends: the one with the fewest open connections, in turn among equals."""

    def __init__(self) -> None:
        """Without backends nobody answers."""
        self._open: dict[Address, int] = {}
        self._backends: tuple[Address, ...] = ()
        self._turn = 0

    @property
    def backends(self) -> tuple[Address, ...]:
        """The backends new connections can go to."""
        return self._backends

    @backends.setter
    def backends(self, backends: tuple[Address, ...]) -> None:
        self._backends = backends

    def order(self) -> list[Address]:
        """The backends in the order in which a new connection tries them."""
        self._turn += 1
        count = len(self._backends)
        rotated = [self._backends[(self._turn + step) % count] for step in range(count)]
        return sorted(rotated, key=lambda backend: self._open.get(backend, 0))

    def opened(self, backend: Address) -> None:
        """A connection to `backend` is open."""
        self._open[backend] = self._open.get(backend, 0) + 1

    def closed(self, backend: Address) -> None:
        """A connection to `backend` is closed."""
        self._open[backend] -= 1
        if not self._open[backend]:
            del self._open[backend]


class _Side(asyncio.Protocol):
    """One half of a proxied connection: what it receives is written to the other half."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: _Side | None = None
        self.ended = False  # it has sent all it will send
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        # Nothing is read before both halves know each other: some servers speak first.
        self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        """Pass the half-close on, and keep our other direction open."""
        self.ended = True
        if self.peer is None or self.peer.transport is None or self.peer.ended:
            return False  # closes this half, and with it the other
        if not self.peer.transport.is_closing():
            self.peer.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer is not None and self.peer.transport is not None:
            # What was received before is still flushed; a reset goes through as a reset.
            if exc is None:
                self.peer.transport.close()
            else:
                self.peer.transport.abort()
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()


class _Front(_Side):
    """The client's half: connects to a backend before it reads."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self._proxy = proxy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._proxy.accept(self)


class Proxy:
    """Listens on one address for as long as there is a backend.

    Without one it does not listen, so that clients are refused at once, as they
    are by kube-proxy's rules for a Service without endpoints.
    """

    def __init__(self, listen: Address) -> None:
        """Nothing listens until set_backends()."""
        self.listen = listen
        self.balancer = Balancer()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def set_backends(self, backends: tuple[Address, ...]) -> None:
        """Change the backends of new connections. Raises OSError when the address is taken."""
        self.balancer.backends = backends
        if backends and self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: _Front(self), *self.listen, backlog=1024)
        elif not backends:
            self._stop_listening()

    def close(self) -> None:
        """Stop listening and cut every connection."""
        self._stop_listening()
        for task in self._connections:
            task.cancel()

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def accept(self, front: _Side) -> None:
        """Serve one client."""
        task = asyncio.get_running_loop().create_task(self._serve(front))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, front: _Side) -> None:
        if front.transport is None:
            return
        try:
            for backend in self.balancer.order():
                back = await _connect(backend)
                if back is not None:
                    await self._splice(front, back, backend)
                    return
        finally:
            front.transport.abort()

    async def _splice(self, front: _Side, back: _Side, backend: Address) -> None:
        """Pass everything on in both directions until both ends are closed."""
        front.peer, back.peer = back, front
        self.balancer.opened(backend)
        try:
            if not front.lost.done():  # else the client has left meanwhile
                for side in (front, back):
                    if side.transport is not None:
                        side.transport.resume_reading()
                await asyncio.wait({front.lost, back.lost})
        finally:
            self.balancer.closed(backend)
            if back.transport is not None:
                back.transport.abort()


async def _connect(backend: Address) -> _Side | None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, side = await loop.create_connection(_Side, *backend)
    except OSError as error:  # TimeoutError is one
        _log.debug("backend %s:%d: %s", *backend, error)
        return None
    return side
