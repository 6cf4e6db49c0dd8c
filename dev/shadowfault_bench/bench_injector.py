"""The injector: nothing on the path when off; when on, one keyed hash and little beside it."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import shadowfault
from shadowfault_bench.harness import Bound

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_bench.harness import Bench

_CALLS = 200_000
_IDS = [f"request-{number}" for number in range(1000)]


def run(bench: Bench) -> None:
    """Microseconds of one whole decision, on and off, and the same against the hash it cannot do without."""
    calls = bench.size(_CALLS, least=10_000)
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    environment = {"CHAOS_ENABLED": "true", "CHAOS_FAIL_RATE": "0.1", "CHAOS_SEED": "bench"}
    on = shadowfault.boot(environment)
    timed = shadowfault.boot({**environment, "CHAOS_EXPIRES_AT": until})
    off = shadowfault.boot({})

    bench.figure("decision, off", _samples(bench, lambda: _decide(off, calls)), "µs")
    limit = Bound("at most", 1.0)
    bench.figure("decision, on", _samples(bench, lambda: _decide(on, calls)), "µs", limit)
    bench.figure("decision, on, with a deadline", _samples(bench, lambda: _decide(timed, calls)), "µs", limit)
    bench.figure("decision, on, by request id", _samples(bench, lambda: _decide_ids(on, calls)), "µs", limit)
    bench.figure("BLAKE2b alone", _samples(bench, lambda: _hash(calls)), "µs")
    bench.ratio("decision, on / BLAKE2b alone", lambda: _decide(on, calls), lambda: _hash(calls))


def _samples(bench: Bench, once: Callable[[], float]) -> list[float]:
    return [once() for _ in range(bench.rounds)]


def _decide(injector: shadowfault.FaultInjector | None, calls: int) -> float:
    surface = shadowfault.Surface.SHADOW_WRITE

    def loop() -> None:
        for _ in range(calls):
            if injector is not None:
                injector.check(surface, "Listing", "create")

    return _microseconds(loop, calls)


def _decide_ids(injector: shadowfault.FaultInjector | None, calls: int) -> float:
    assert injector is not None
    surface = shadowfault.Surface.SHADOW_WRITE

    def loop() -> None:
        for number in range(calls):
            injector.check(surface, "Listing", "create", request_id=_IDS[number % 1000])

    return _microseconds(loop, calls)


def _hash(calls: int) -> float:
    """Copy a keyed state, feed it, take the digest: what any implementation of the construction has to do."""
    copy = hashlib.blake2b(b"7:Listing6:create0:n", key=b"bench", digest_size=8).copy

    def loop() -> None:
        for _ in range(calls):
            state = copy()
            state.update(b"12345")
            state.digest()

    return _microseconds(loop, calls)


def _microseconds(loop: Callable[[], None], calls: int) -> float:
    """Processor time: a decision waits for nothing, and the machine may be shared."""
    began = time.thread_time()
    loop()
    return (time.thread_time() - began) / calls * 1e6
