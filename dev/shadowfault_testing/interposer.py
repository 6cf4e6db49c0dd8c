"""Between an operator and the API server: sees each request, and may lose it, its answer, or both.

Plain HTTP on the operator's side, the client certificate of a kubeconfig on the other. It lives on a thread
and an event loop of its own, so that it goes on while a test blocks or an operator is killed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import aiohttp
import yaml
from aiohttp import web

from shadowfault_testing.api import connection_info

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

_STANDSTILL_SECONDS: Final = 60.0
_GLANCE_SECONDS: Final = 0.03
_KEPT: Final = ("Content-Type", "Retry-After")
_DROPPED: Final = {"host", "authorization", "accept-encoding", "content-length", "transfer-encoding"}


@dataclass(frozen=True)
class Request:
    """A request as it came; `number` counts those that are no watches, from 1."""

    number: int
    method: str
    path: str
    query: dict[str, str]
    at: float = field(default_factory=time.monotonic)

    @property
    def writes(self) -> bool:
        return self.method != "GET"

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Answer:
    """Answered here in the API server's place; with `forward` after it has done what was asked."""

    status: int
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    forward: bool = False


# The request never arrives; it arrives and its answer does not; both arrive.
LOSE_REQUEST: Final = "lose the request"
LOSE_ANSWER: Final = "lose the answer"
UNHINDERED: Final = "pass"
Verdict: TypeAlias = str | Answer


def crash_points(requests: Sequence[Request]) -> list[tuple[Request, str]]:
    """Where an operator that sends these may die: before each is done, and after each that writes."""
    points = [(request, LOSE_REQUEST) for request in requests]
    return points + [(request, LOSE_ANSWER) for request in requests if request.writes]


@dataclass(frozen=True)
class Crash:
    """Where the operator is cut off, and whether that has come to pass."""

    number: int
    how: str
    happened: threading.Event = field(default_factory=threading.Event)


Rule: TypeAlias = "Callable[[Request], Verdict]"


async def _end_the_rest() -> None:
    """Requests of a client that was killed in the middle of them: left alone they outlive their loop."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=10)


class Interposer:
    """Forwards to the API server of `kubeconfig` from `url`. A context manager.

    Requests other than watches go through one at a time, in the order in which they came, so that "after the
    third one" is a state of the API server.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._info = connection_info(kubeconfig)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="interposer", daemon=True)
        self._rule: Rule = lambda _: UNHINDERED
        self._cut = False
        self._crash: Crash | None = None
        self._beginnings = 0
        self._open: set[asyncio.Transport] = set()
        self._watches_flow = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._under_way = 0
        self._answered_at = 0.0
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._hold_back: Callable[[Request], float] = lambda _: 0.0
        self.requests: list[Request] = []
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_exception: object) -> None:
        self._call(self._stop())
        self._call(_end_the_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def obey(self, rule: Rule | None) -> None:
        """Decide about each request to come by this rule; with None all pass."""
        self._rule = rule or (lambda _: UNHINDERED)

    def hold_back(self, seconds: Callable[[Request], float]) -> None:
        """Let others that come at the same time overtake a request."""
        self._hold_back = seconds

    def crash_at(self, number: int, how: str) -> Crash:
        """Lose this request or its answer, and let nothing pass from then on, as if the operator died."""
        self._crash = Crash(number, how)
        return self._crash

    def begin_again(self) -> None:
        """Everything passes, and requests are counted from 1."""
        self.obey(None)
        self._crash = None
        self._beginnings += 1
        self.requests.clear()
        self.mend()

    def quiet(self, seconds: float = 0.3) -> bool:
        """Whether no request, watches aside, has come for that long, and none waits for its answer."""
        if not self.requests or self._under_way:
            return False
        return time.monotonic() - max(self._answered_at, self.requests[-1].at) >= seconds

    def await_rest(self, done: Callable[[], bool] = lambda: True, *, most: int) -> None:
        """Wait until it is quiet and `done`: on a busy machine for as long as requests come.

        Raises:
            AssertionError: there were more than `most` requests, or none for a minute.
        """
        count, since = -1, 0.0
        while not (self.quiet() and done()):
            if len(self.requests) != count:
                count, since = len(self.requests), time.monotonic()
            assert count <= most, f"no rest within {most} requests: {self!r}"
            assert time.monotonic() - since < _STANDSTILL_SECONDS, f"nothing goes on: {self!r}"
            time.sleep(_GLANCE_SECONDS)

    def __repr__(self) -> str:
        """For the message of a test that waited in vain."""
        last = ", ".join(f"{one.number} {one}" for one in self.requests[-5:])
        return f"<interposer: {len(self.requests)} requests, {self._under_way} under way, the last: {last}>"

    def cut(self) -> None:
        """Nothing passes any more, and what is under way is cut; so by the time that this returns.

        On a busy machine it could come to pass after the next `mend` otherwise, and stay.
        """
        self._call(self._severing())

    def mend(self) -> None:
        """Undo it."""
        self._cut = False

    def hold_watches(self) -> None:
        """Watches go stale: they stay open and say nothing."""
        self._loop.call_soon_threadsafe(self._watches_flow.clear)

    def release_watches(self) -> None:
        """They say all that they had to say meanwhile."""
        self._loop.call_soon_threadsafe(self._watches_flow.set)

    def writes(self) -> list[Request]:
        """The requests so far that write something."""
        return [request for request in self.requests if request.writes]

    def write_kubeconfig(self, path: Path) -> Path:
        """A kubeconfig that leads here."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "between", "cluster": {"server": self.url}}],
            "users": [{"name": "anyone", "user": {"token": "none"}}],
            "contexts": [{"name": "between", "context": {"cluster": "between", "user": "anyone"}}],
            "current-context": "between",
        }
        path.write_text(yaml.safe_dump(document))
        return path

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _start(self) -> None:
        self._watches_flow.set()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._info.as_ssl_context(), limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        self._sever()
        assert self._runner is not None
        assert self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    async def _severing(self) -> None:
        self._sever()

    def _sever(self) -> None:
        self._cut = True
        for transport in tuple(self._open):
            transport.abort()

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        transport = incoming.transport
        if transport is None or self._cut:
            return _severed(transport)
        self._open.add(transport)
        try:
            if incoming.query.get("watch") in {"true", "1"}:
                return await self._watch(incoming)
            self._under_way += 1
            try:
                return await self._pass(incoming, transport)
            finally:
                self._under_way -= 1
                self._answered_at = time.monotonic()
        finally:
            self._open.discard(transport)

    async def _pass(self, incoming: web.Request, transport: asyncio.Transport) -> web.StreamResponse:
        beginnings = self._beginnings
        body = await incoming.read()
        query = dict(incoming.query)
        await asyncio.sleep(self._hold_back(Request(0, incoming.method, incoming.path, query)))
        async with self._one_at_a_time:
            # One that came before is of an operator that is dead by now.
            if self._cut or beginnings != self._beginnings:
                return _severed(transport)
            request = Request(len(self.requests) + 1, incoming.method, incoming.path, query)
            self.requests.append(request)
            crash = self._crash if self._crash and self._crash.number == request.number else None
            self._cut = crash is not None
            try:
                return await self._decided(incoming, body, crash.how if crash else self._rule(request))
            finally:
                if crash:
                    self._sever()
                    crash.happened.set()

    async def _decided(self, incoming: web.Request, body: bytes, verdict: Verdict) -> web.StreamResponse:
        if verdict == LOSE_REQUEST:
            return _severed(incoming.transport)
        if isinstance(verdict, Answer) and not verdict.forward:
            return _answered(verdict)
        # What has arrived is done, whether the one who waits for it still lives or not.
        answer = await asyncio.shield(asyncio.ensure_future(self._forward(incoming, body)))
        if isinstance(verdict, Answer):
            return _answered(verdict)
        return _severed(incoming.transport) if verdict == LOSE_ANSWER else answer

    async def _forward(self, incoming: web.Request, body: bytes) -> web.Response:
        async with self._sending(incoming, body) as answer:
            headers = {name: answer.headers[name] for name in _KEPT if name in answer.headers}
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)

    async def _watch(self, incoming: web.Request) -> web.StreamResponse:
        async with self._sending(incoming, b"") as answer:
            relayed = web.StreamResponse(
                status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]}
            )
            await relayed.prepare(incoming)
            async for chunk in answer.content.iter_any():
                await self._watches_flow.wait()
                await relayed.write(chunk)
            return relayed

    def _sending(self, incoming: web.Request, body: bytes) -> Any:  # noqa: ANN401 - aiohttp's own context manager
        assert self._session is not None
        headers = {name: value for name, value in incoming.headers.items() if name.lower() not in _DROPPED}
        return self._session.request(
            incoming.method,
            self._info.server + incoming.path_qs,
            data=body or None,
            headers=headers,
            skip_auto_headers=("Content-Type",),
        )


def _severed(transport: asyncio.Transport | None) -> web.Response:
    if transport is not None:
        transport.abort()
    return web.Response(status=502)


def _answered(answer: Answer) -> web.Response:
    body = {
        "kind": "Status",
        "status": "Failure",
        "reason": answer.reason,
        "message": f"{answer.status} by the interposer",
        "code": answer.status,
    }
    return web.json_response(body, status=answer.status, headers=answer.headers)
