"""Around every request: its id, a limit on its body, a log line, metrics, an answer to the unforeseen."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shadowfault_api.accounts.tally import Tally
from shadowfault_api.http import problems
from shadowfault_api.http.context import CRITICAL_WRITE, InvalidRequestIdError, begin, request_id_of
from shadowfault_api.logs import describe_exception
from shadowfault_api.metrics import Metrics, exemplar
from shadowfault_api.tracing import Tracing

_log: Final = structlog.get_logger("shadowfault.http")
LARGEST_BODY: Final = 64 * 1024
_ABANDON_SECONDS: Final = 0.5
# Probes and scrapes come every second; their log lines would hide the others.
_QUIET_PATHS: Final = frozenset({"/health", "/ready", "/metrics"})


class InFlight:
    """The tasks of requests that are not answered yet."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count the task of this request among them."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    async def abandon(self) -> None:
        """Wait a moment for what the server has cancelled, then cancel it once more and see it answered.

        In that moment a driver tells the database to end the statement, so that what is answered with 503 is
        not committed later. Where the database does not listen it gives up when it is cancelled once more.
        """
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_ABANDON_SECONDS)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_ABANDON_SECONDS)


class RequestMiddleware:
    """Plain ASGI: a handler runs in the task, and so in the logging context, of its request."""

    def __init__(  # noqa: PLR0913 - by name
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        tally: Tally,
        draining: Callable[[], bool],
        tracing: Tracing,
        in_flight: InFlight,
    ) -> None:
        self._app = app
        self._in_flight = in_flight
        self._metrics = metrics
        self._tally = tally
        self._draining = draining
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection's request; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        answer = _Answer(send, self._draining)
        structlog.contextvars.clear_contextvars()
        method = scope["method"] if scope["method"] in _METHODS else "other"
        with self._in_flight.one(), self._tracing.request(method, scope["headers"]) as span:
            try:
                await self._answer(scope, receive, answer)
            finally:
                route = getattr(scope.get("route"), "path", "unmatched")
                span.end(answer.request_id, route, int(answer.status))
                self._report(scope, method, answer, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        try:
            answer.request_id = begin(scope)
            structlog.contextvars.bind_contextvars(requestId=answer.request_id)
            await self._app(scope, _limited(receive), answer.send)
        except InvalidRequestIdError as error:
            answer.request_id = request_id_of(scope)
            structlog.contextvars.bind_contextvars(requestId=answer.request_id)
            await answer.problem(scope, problems.Problem(HTTPStatus.BAD_REQUEST, str(error)))
        except asyncio.CancelledError:
            # The process ends before the database answers: what becomes of a write is not known here.
            await answer.problem(scope, problems.unavailable("The service is stopping."))
            if not self._draining():
                raise
        except Exception as error:  # noqa: BLE001 - the last line: a user gets an answer, the log gets the cause
            _log.error("request_failed", **describe_exception(error))
            problem = problems.Problem(HTTPStatus.INTERNAL_SERVER_ERROR, problems.UNFORESEEN)
            await answer.problem(scope, problem)

    def _report(self, scope: Scope, method: str, answer: "_Answer", seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        status = answer.status
        self._tally.note(method, route, status)
        self._metrics.requests.labels(method, route, str(status)).inc()
        written = scope.get(CRITICAL_WRITE)
        if written is not None:
            self._metrics.primary_writes.labels(*written, _outcome(int(status))).inc()
        self._metrics.request_durations.labels(method, route).observe(seconds, exemplar(answer.request_id))
        if scope["path"] in _QUIET_PATHS and status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return
        _log.info("request", method=method, route=route, status=int(status), seconds=round(seconds, 6))


def _outcome(status: int) -> str:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "error"
    return "refused" if status >= HTTPStatus.BAD_REQUEST else "success"


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Answer:
    """The answer of one request, on its way out. `status` is 499 where the client left before it began."""

    def __init__(self, send: Send, draining: Callable[[], bool]) -> None:
        self._send = send
        self._draining = draining
        self.request_id = ""
        self.status = 499

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
            if self._draining():
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)

    async def problem(self, scope: Scope, problem: problems.Problem) -> None:
        """Answer with a problem, unless an answer has begun."""
        if self.status != 499:
            return
        members = problems.document(problem, request_id=self.request_id, instance=scope["path"])
        body = json.dumps(members).encode()
        headers = [
            (b"content-type", problems.MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            *((name.lower().encode(), value.encode()) for name, value in (problem.headers or {}).items()),
        ]
        await self.send({"type": "http.response.start", "status": problem.status.value, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def _limited(receive: Receive) -> Receive:
    taken = 0

    async def limited() -> dict[str, Any]:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > LARGEST_BODY:
            # Of all exceptions FastAPI lets this one through where it reads a body.
            raise HTTPException(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {LARGEST_BODY} bytes."
            )
        return dict(message)

    return limited
