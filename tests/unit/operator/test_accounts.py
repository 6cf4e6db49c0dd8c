"""Asking pods for an account: nobody waits for it, and whatever they do ends in an answer."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from shadowfault.account import Account
from shadowfault_operator.accounts import HttpAccounts
from shadowfault_operator.clock import Clock
from shadowfault_operator.errors import UnavailableError
from shadowfault_operator.model import Phase
from shadowfault_operator.ports import Pod, Serving
from shadowfault_operator.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from shadowfault_operator.model import Experiment, Key
    from shadowfault_operator.target import Target

GOOD = Account("experiment-uid", 12, 13, {"missing_in_shadow": 12}, 12, 0, 0, 100)
VERIFYING = {"state": "verifying"}


@dataclass
class Pods:
    """What is listed, one entry a look; the last one stays."""

    looks: list[Serving | Exception]
    seen: int = 0

    async def serving(self, _namespace: str, _target: object) -> Serving:
        found = self.looks[min(self.seen, len(self.looks) - 1)]
        self.seen += 1
        if isinstance(found, Exception):
            raise found
        return found


def pods(*addresses: str) -> Serving:
    return Serving(tuple(Pod(f"pod-{address}", address) for address in addresses), any=True)


@dataclass
class Bench:
    """Pods on loopback and whoever asks them; time passes only where a test says so."""

    accounts: HttpAccounts
    experiment: Experiment
    target: Target
    done: asyncio.Queue[Key]
    asked: list[Any] = field(default_factory=list)

    async def answer(self) -> Account | Finding | None:
        self.accounts.ask(self.experiment, self.target)
        async with asyncio.timeout(20):
            key = await self.done.get()
        assert key == self.experiment.key
        return self.accounts.answer(key, self.experiment.uid)


@asynccontextmanager
async def bench(
    scene: Any,
    answers: list[web.Response | dict[str, Any]],
    looks: list[Serving | Exception] | None = None,
    steady: Callable[[], float] = lambda: 0.0,
    later: timedelta = timedelta(),
) -> AsyncIterator[Bench]:
    asked: list[Any] = []

    async def account(request: web.Request) -> web.Response:
        asked.append((request.host.split(":")[0], await request.json()))
        given = answers[min(len(asked), len(answers)) - 1]
        if isinstance(given, dict):
            return web.json_response(given, status=202 if given == VERIFYING else 200)
        return web.Response(status=given.status, body=given.body, headers={"Location": "/elsewhere"})

    app = web.Application()

    async def elsewhere(_request: web.Request) -> web.Response:
        return web.json_response(GOOD.document())

    app.add_routes([web.post("/chaos/account", account), web.post("/elsewhere", elsewhere)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    scene.containers[0]["ports"] = [{"containerPort": 1}, {"name": "http", "containerPort": port}]
    status = replace(scene.running(), phase=Phase.FINISHED, finished_at=scene.now)
    done: asyncio.Queue[Key] = asyncio.Queue()
    surroundings: Any = Pods(looks or [pods("127.0.0.1")])
    clock = Clock(lambda: scene.now + later, steady)
    accounts = HttpAccounts(surroundings, clock, done.put_nowait, pauses=(0.001, 0.004))
    made = Bench(accounts, scene.experiment(status), scene.target(), done, asked)
    try:
        yield made
    finally:
        await accounts.close()
        await runner.cleanup()


async def test_the_answer_comes_later_and_is_about_this_experiment(scene: Any) -> None:
    async with bench(scene, [VERIFYING, VERIFYING, GOOD.document()]) as at:
        at.accounts.ask(at.experiment, at.target)
        at.accounts.ask(at.experiment, at.target)
        key = at.experiment.key
        assert (at.asked, at.accounts.answer(key, at.experiment.uid)) == ([], None)
        under_way = at.accounts._asking[key]
        at.accounts.ask(at.experiment, at.target)
        assert at.accounts._asking[key] is under_way
        assert await at.answer() == GOOD
        assert at.asked == [("127.0.0.1", {"experimentUid": "experiment-uid"})] * 3
        assert at.accounts.answer(key, "a later one of the same name") is None
        at.accounts.forget(key)
        assert at.accounts.answer(key, at.experiment.uid) is None


@pytest.mark.parametrize(
    ("given", "finding"),
    [
        (web.Response(status=404), Finding.NOT_KEPT),
        (web.Response(status=405), Finding.NOT_KEPT),
        (web.Response(status=307), Finding.NOT_KEPT),
        (web.Response(body=b"not json"), Finding.UNREADABLE),
        (web.Response(body=b"[" * 60_000), Finding.UNREADABLE),
        (web.Response(body=b" " * 200_000), Finding.UNREADABLE),
        (GOOD.document() | {"experimentUid": "another"}, Finding.UNREADABLE),
        (web.Response(status=503), Finding.UNREACHABLE),
        (VERIFYING, Finding.NOT_IN_TIME),
    ],
)
async def test_whatever_a_pod_says_there_is_an_answer(scene: Any, given: Any, finding: Finding) -> None:
    ticks = iter(range(0, 100_000, 30))
    async with bench(scene, [given], steady=lambda: next(ticks)) as at:
        assert await at.answer() is finding
        # What may change is asked again, what will not is not.
        assert (len(at.asked) > 1) == (finding is not Finding.NOT_KEPT)


async def test_a_target_at_work_on_it_gets_more_time_than_one_that_is_silent(scene: Any) -> None:
    for given, least, most in ((VERIFYING, 9, 11), (web.Response(status=503), 1, 3)):
        ticks = iter(range(0, 100_000, 60))
        async with bench(scene, [given], steady=lambda ticks=ticks: next(ticks)) as at:  # type: ignore[misc]
            await at.answer()
            assert least <= len(at.asked) <= most


async def test_an_operator_that_comes_late_asks_all_the_same(scene: Any) -> None:
    async with bench(scene, [VERIFYING, GOOD.document()], later=timedelta(days=1)) as at:
        assert await at.answer() == GOOD


async def test_one_pod_that_answers_is_enough(scene: Any) -> None:
    async with bench(scene, [GOOD.document()], [pods("127.0.0.9", "127.0.0.8", "127.0.0.1")]) as at:
        assert await at.answer() == GOOD


async def test_nobody_there_is_soon_an_answer(scene: Any) -> None:
    async with bench(scene, [GOOD.document()], [Serving()]) as at:
        assert await at.answer() is Finding.NO_POD
    # Between the old pods and the new ones there may be none for a moment.
    async with bench(scene, [GOOD.document()], [Serving(), pods("127.0.0.1")]) as at:
        assert await at.answer() == GOOD
    ticks = iter(range(0, 100_000, 30))
    async with bench(scene, [GOOD.document()], [Serving(any=True)], lambda: next(ticks)) as at:
        assert await at.answer() is Finding.NO_POD


async def test_an_api_server_that_is_away_is_waited_for(scene: Any) -> None:
    looks = [*([UnavailableError("away")] * 5), pods("127.0.0.1")]
    ticks = iter(range(0, 100_000, 50))
    async with bench(scene, [GOOD.document()], looks, lambda: next(ticks)) as at:
        assert await at.answer() == GOOD


async def test_a_defect_of_ours_is_an_answer_too(scene: Any) -> None:
    async with bench(scene, [GOOD.document()], [RuntimeError("a defect")]) as at:
        assert await at.answer() is Finding.UNREACHABLE


async def test_who_is_forgotten_is_not_asked_about(scene: Any) -> None:
    async with bench(scene, [GOOD.document()], [Serving(any=True), pods("127.0.0.1")]) as at:
        at.accounts.ask(at.experiment, at.target)
        _, task = at.accounts._asking[at.experiment.key]
        at.accounts.forget(at.experiment.key)
        await asyncio.wait([task])
        assert task.cancelled()
        assert at.done.empty()
        assert await at.answer() == GOOD


async def test_stopped_it_asks_no_more_and_begins_nothing(scene: Any) -> None:
    async with bench(scene, [VERIFYING]) as at:
        at.accounts.ask(at.experiment, at.target)
        _, under_way = at.accounts._asking[at.experiment.key]
        await at.accounts.stop()
        assert under_way.cancelled()
        at.accounts.forget(at.experiment.key)
        at.accounts.ask(at.experiment, at.target)
        assert not at.accounts._asking
