"""POST /api/listings while the shadow is healthy, unreachable or hung: what a user notices of the shadow.

Unreachable is the nearest to a service without a shadow: the outbox row is written, and no shadow write. One
service, in this process, clients over ASGI, two databases of one local PostgreSQL server. The hung shadow is
behind a proxy that stops passing bytes on, and is compared with one behind a proxy that does not.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import make_url

from shadowfault_api.logs import configure_logging
from shadowfault_bench.harness import Bound
from shadowfault_testing.databases import DatabasePair, postgresql_pair
from shadowfault_testing.postgres import PostgresServer
from shadowfault_testing.proxy import TcpProxy
from shadowfault_testing.service import running

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_bench.harness import Bench
    from shadowfault_testing.service import Service

_WRITES: Final = 1000
_CLIENTS: Final = 8


@dataclass(frozen=True)
class _Measured:
    rate: float
    p99: float


def run(bench: Bench) -> None:
    """Measure on a PostgreSQL server of its own."""
    configure_logging("ERROR")  # a line for each request is no part of what is compared
    writes = bench.size(_WRITES, least=_CLIENTS)
    with PostgresServer.start() as server:

        def measure(state: str) -> _Measured:
            with postgresql_pair(server) as pair:
                return asyncio.run(_measure(pair, state, writes))

        def rate(state: str) -> Callable[[], float]:
            return lambda: measure(state).rate

        def p99(state: str) -> Callable[[], float]:
            return lambda: measure(state).p99

        what = f"{writes} creates, {_CLIENTS} clients"
        bench.ratio(
            f"rate, shadow healthy / unreachable, {what}",
            rate("healthy"),
            rate("unreachable"),
            Bound("at least", 0.85),
        )
        bench.ratio(f"p99, shadow hung / healthy, {what}", p99("hung"), p99("proxied"), Bound("at most", 1.2))


async def _measure(pair: DatabasePair, state: str, writes: int) -> _Measured:
    async with TcpProxy(make_url(pair.shadow).port or 0) as proxy:
        databases = pair
        if state != "healthy":
            through = make_url(pair.shadow).set(port=proxy.port).render_as_string(hide_password=False)
            databases = DatabasePair(pair.primary, through, pair.backend)
        if state == "unreachable":
            await proxy.down()
        async with running(databases, **_SETTINGS) as service:
            await _create(service, _CLIENTS)  # connections are made once
            if state == "hung":
                proxy.hang()  # under the writes, as it happens
            began = time.perf_counter()
            times = await _create(service, writes)
            rate = len(times) / (time.perf_counter() - began)
    times.sort()
    return _Measured(rate, times[int(len(times) * 0.99)])


# The defaults of the service, and an end that waits for nothing.
_SETTINGS: Final[dict[str, Any]] = {
    "shadow_timeout_seconds": 2.0,
    "shadow_claim_seconds": 30.0,
    "shadow_sweep_seconds": 2.0,
    "shadow_batch_seconds": 0.02,
    "shadow_breaker_reset_seconds": 5.0,
    "shutdown_grace_seconds": 0.0,
    "evidence_seal_seconds": 0.0,
}


async def _create(service: Service, writes: int) -> list[float]:
    left = iter(range(writes))
    times: list[float] = []

    async def client() -> None:
        for number in left:
            began = time.perf_counter()
            await service.create(f"Listing {number}", number)
            times.append(time.perf_counter() - began)

    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return times
