"""POST /api/listings: what a user notices of the shadow, while it is healthy and while it hangs.

The service is a process of its own, as deployed, with its defaults; the clients are another one, over HTTP on
loopback; primary and shadow are two databases of one PostgreSQL server with fsync on. All of it shares the
processors: where there are two, what the shadow costs PostgreSQL is in the ratio too.

Off is the same service without outbox and shadow writer: see `single_write`. The hung shadow is behind a
proxy that stops passing bytes on as the load begins, the healthy one behind a proxy that does not.
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import harmonic_mean
from typing import TYPE_CHECKING, Final

import psycopg
from sqlalchemy import make_url

from shadowfault_bench.harness import Bound
from shadowfault_bench.load import generate_apart
from shadowfault_bench.processes import processor_seconds
from shadowfault_testing.databases import DatabasePair, postgresql_pair
from shadowfault_testing.postgres import PostgresServer
from shadowfault_testing.proxy import TcpProxy
from shadowfault_testing.service import FAST, ServiceProcess, launch_service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shadowfault_bench.harness import Bench

_WRITES: Final = 4000
_SLICES: Final = 8
# Three batches run into their deadline of 2 s before the breaker opens; the load goes on for long after.
_WRITES_HUNG: Final = 5000
_WARM_UP: Final = 500
_CLIENTS: Final = 16

_ON: Final = "shadowfault_api"
_OFF: Final = "shadowfault_bench.single_write"
# Tests are in a hurry; here the defaults count.
_DEFAULTS: Final = {**{name.upper(): "" for name in FAST}, "SHUTDOWN_DELAY_SECONDS": "0"}


@dataclass
class _Running:
    """A service that is up, and what was measured of it, slice by slice.

    `service` and `postgresql` are seconds of processor time, `waiting` rows in flight at the last answer.
    """

    server: PostgresServer
    pair: DatabasePair
    process: ServiceProcess
    writes: int = 0
    seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    service: float = 0.0
    postgresql: float = 0.0
    waiting: list[float] = field(default_factory=list)

    async def load(self, writes: int) -> float:
        """Create, and let what that leaves behind come to rest; returns creates a second."""
        before = self._processor_seconds()
        load = await generate_apart(self.process.url, writes, _CLIENTS)
        self.waiting.append(float(_pending(self.pair)))
        while _pending(self.pair):  # noqa: ASYNC110 - another process empties it
            await asyncio.sleep(0.02)
        after = self._processor_seconds()
        self.writes += writes
        self.seconds += load.seconds
        self.times += load.times
        self.service += after[0] - before[0]
        self.postgresql += after[1] - before[1]
        return load.rate

    def _processor_seconds(self) -> tuple[float, float]:
        assert self.server.pid is not None
        return processor_seconds(self.process.process.pid), processor_seconds(self.server.pid)

    def report(self, bench: Bench, name: str) -> None:
        """Show what is behind the ratio."""
        bench.figure(f"shadow {name}", [self.writes / self.seconds], "creates/s")
        bench.figure(f"shadow {name}, p99", [_p99(self.times) * 1000], "ms")
        bench.figure(f"shadow {name}, processor, service", [self.service / self.writes * 1000], "ms/create")
        bench.figure(
            f"shadow {name}, processor, PostgreSQL", [self.postgresql / self.writes * 1000], "ms/create"
        )


def run(bench: Bench) -> None:
    """Measure on a PostgreSQL server of its own."""
    with PostgresServer.start(fsync=True) as server:
        _rate(bench, server)
        _hung(bench, server)


def _rate(bench: Bench, server: PostgresServer) -> None:
    """Both services are up throughout and take turns in short slices, so that a busy machine slows both."""
    writes = bench.size(_WRITES, least=_CLIENTS * _SLICES)
    with (
        asyncio.Runner() as runner,
        postgresql_pair(server) as with_shadow,
        postgresql_pair(server) as without,
    ):
        stack = AsyncExitStack()
        on = runner.run(_started(stack, server, with_shadow, _ON))
        off = runner.run(_started(stack, server, without, _OFF))

        def slices(one: _Running, other: _Running) -> tuple[float, float]:
            rates = [
                (runner.run(one.load(writes // _SLICES)), runner.run(other.load(writes // _SLICES)))
                for _ in range(_SLICES)
            ]
            # Both made as many: the mean rate is the harmonic one.
            return harmonic_mean(rate for rate, _ in rates), harmonic_mean(rate for _, rate in rates)

        try:
            bench.paired(
                f"rate, shadow on / off, {writes} creates, {_CLIENTS} clients",
                lambda: slices(on, off),
                Bound("at least", 0.85),
            )
        finally:
            runner.run(stack.aclose())
        on.report(bench, "on")
        off.report(bench, "off")
        bench.figure("in flight at the last answer", on.waiting, "rows")


def _hung(bench: Bench, server: PostgresServer) -> None:
    """Both services are under load at the same time: a tail is what a busy machine disturbs first."""
    writes = bench.size(_WRITES_HUNG, least=_CLIENTS)

    def both() -> tuple[float, float]:
        with postgresql_pair(server) as one, postgresql_pair(server) as other:
            return asyncio.run(_p99_of_both(server, one, other, writes))

    bench.paired(
        f"p99, shadow hung / healthy, {writes} creates and {_CLIENTS // 2} clients each",
        both,
        Bound("at most", 1.2),
    )


async def _p99_of_both(
    server: PostgresServer, one: DatabasePair, other: DatabasePair, writes: int
) -> tuple[float, float]:
    async with AsyncExitStack() as stack:
        proxies, services = [], []
        for pair in (one, other):
            proxy = await stack.enter_async_context(TcpProxy(server.port))
            through = make_url(pair.shadow).set(port=proxy.port).render_as_string(hide_password=False)
            behind = DatabasePair(pair.primary, through, pair.backend)
            services.append(await _started(stack, server, behind, _ON))
            proxies.append(proxy)
        proxies[0].hang()
        hung, healthy = await asyncio.gather(
            *(generate_apart(service.process.url, writes, _CLIENTS // 2) for service in services)
        )
    return _p99(hung.times), _p99(healthy.times)


async def _started(
    stack: AsyncExitStack, server: PostgresServer, pair: DatabasePair, module: str
) -> _Running:
    """Start a service and warm it up; the stack ends it."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    variables = {**_DEFAULTS, **pair.environment()}
    process = launch_service(Path(folder) / "service.log", variables, module=module)
    stack.callback(process.kill)
    # It waits for its shadow, and that may be behind a proxy on this loop.
    await asyncio.to_thread(lambda: process.url)
    await generate_apart(process.url, _WARM_UP, _CLIENTS)
    return _Running(server, pair, process)


def _p99(times: Sequence[float]) -> float:
    """Of a hundred one took longer."""
    return sorted(times)[int(len(times) * 0.99)]


def _pending(pair: DatabasePair) -> int:
    with closing(psycopg.connect(pair.primary, autocommit=True)) as connection:
        row = connection.execute("SELECT count(*) FROM outbox WHERE state = 'pending'").fetchone()
    assert row is not None
    return int(row[0])
