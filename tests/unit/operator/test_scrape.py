"""What a pod may answer to a scrape: what is expected, too slow, too much, or nonsense."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_api.http.exposition import render
from shadowfault_api.metrics import DatabaseFigures
from shadowfault_api.metrics import Metrics as ServiceMetrics
from shadowfault_operator import scrape
from shadowfault_operator.ports import Pod
from shadowfault_operator.scrape import HttpScraper, UnreadableError, parse
from shadowfault_operator.stopconditions import Reading

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def exposed(metrics: ServiceMetrics) -> str:
    return render(metrics.registry.collect()).decode()


def test_what_the_service_exposes_is_understood() -> None:
    metrics = ServiceMetrics()
    assert parse(exposed(metrics)) == Reading(0, 0, 0, 0)
    metrics.primary_writes.labels("Listing", "create", "success").inc(7)
    metrics.primary_writes.labels("Listing", "update", "refused").inc(2)
    metrics.primary_writes.labels("Listing", "create", "error").inc(1)
    metrics.failures.labels("Listing", "create", "injected").inc(3)
    metrics.failures.labels("Listing", "create", "timeout").inc(2)
    metrics.database = DatabaseFigures(
        open_discrepancies={
            ("Listing", "missing_in_shadow", "unexplained"): 2,
            ("Listing", "data_mismatch", "unexplained"): 1,
            ("Listing", "missing_in_shadow", "injected"): 9,
        }
    )
    assert parse(exposed(metrics)) == Reading(10, 1, 5, 3)


def test_what_is_not_exposed_is_not_zero() -> None:
    assert parse("") == Reading()
    assert parse("# TYPE primary_writes_total counter\n") == Reading(0, 0)
    assert parse('my_primary_writes_total{outcome="error"} 5\nprimary_writes_total_more 1\n') == Reading()


@pytest.mark.parametrize(
    "text",
    [
        "primary_writes_total{ 5\n",
        "primary_writes_total NaN\n",
        "primary_writes_total +Inf\n",
        "primary_writes_total -1\n",
        "primary_writes_total five\n",
        "shadow_discrepancies_open{cause} 1\n",
    ],
)
def test_nonsense_gives_no_reading(text: str) -> None:
    if text.startswith("shadow_discrepancies_open"):
        text += 'shadow_discrepancies_open{cause="unexplained"} -3\n'
    with pytest.raises(UnreadableError, match="malformed"):
        parse(text)


_NAMES = st.sampled_from(
    [
        "primary_writes_total",
        "# TYPE primary_writes_total",
        "shadow_discrepancies_open",
        "shadow_write_failures_total{",
    ]
)
_LINES = st.one_of(
    st.text(max_size=40), st.builds(lambda name, rest: f"{name} {rest} 1", _NAMES, st.text(max_size=30))
)


@given(st.lists(_LINES, max_size=8).map("\n".join))
def test_whatever_a_pod_says_it_is_a_reading_or_none(text: str) -> None:
    try:
        reading = parse(text)
    except UnreadableError:
        return
    assert all(value is None or value >= 0 for value in vars(reading).values())


@asynccontextmanager
async def pod(handler: Handler) -> AsyncIterator[tuple[HttpScraper, Pod, int]]:
    app = web.Application()
    app.router.add_get("/metrics", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    scraper = HttpScraper()
    try:
        yield scraper, Pod("api-0", "127.0.0.1"), runner.addresses[0][1]
    finally:
        await scraper.close()
        await runner.cleanup()


async def why(handler: Handler) -> str:
    async with pod(handler) as (scraper, one, port):
        with pytest.raises(UnreadableError) as unreadable:
            await scraper.read(one, port)
        return str(unreadable.value)


async def test_a_pod_is_read() -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(text="# TYPE primary_writes_total counter\nprimary_writes_total 3\n")

    async with pod(answer) as (scraper, one, port):
        assert await scraper.read(one, port) == Reading(3, 0)


async def test_an_error_is_no_reading() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=500, text="primary_writes_total 3\n")

    assert await why(answer) == "refused"


async def test_nobody_is_sent_elsewhere() -> None:
    async def answer(_: web.Request) -> web.Response:
        raise web.HTTPFound("http://127.0.0.1:1/metrics")

    assert await why(answer) == "refused"


async def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "_LARGEST_BODY", 10_000)
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"# nothing at all\n" * 100)
            sent += 1
            await asyncio.sleep(0)

    assert await why(answer) == "too large"


async def test_a_pod_that_hangs_costs_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "_TOTAL_SECONDS", 0.1)

    async def answer(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    assert await why(answer) == "unreachable"


async def test_a_pod_that_is_gone_is_unreachable() -> None:
    async def answer(_: web.Request) -> web.Response:
        raise AssertionError

    async with pod(answer) as (_, one, port):
        pass
    scraper = HttpScraper()
    with pytest.raises(UnreadableError, match="unreachable"):
        await scraper.read(one, port)
    await scraper.close()
