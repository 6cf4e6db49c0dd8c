"""Disarm, health, metrics and accounts for any ASGI application, in one line. Standard library only.

app = ChaosMiddleware(app, shadowfault.boot())
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from shadowfault.account import PATH, UID_PATTERN, VERIFYING, Account
from shadowfault.control import FAULTS_METRIC, Disarming, disarm, exposition, health

if TYPE_CHECKING:
    from shadowfault.injector import FaultInjector

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
# Gives the account of the experiment with this UID: None while it is being made, LookupError where there is
# none. It is asked again every few seconds, of any replica, and must not begin anew each time.
AccountOf: TypeAlias = Callable[[str], Awaitable[Account | None]]

_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS: Final = "application/openmetrics-text"
_PROTOBUF: Final = "protobuf"
_EOF: Final = "# EOF\n"
_LARGEST_BODY: Final = 4096
_LONGEST_UID: Final = 128


def request_id(scope: Scope) -> str | None:
    """Return the X-Request-Id the client sent: the key of decisions that are to be replayed."""
    values = [value for name, value in scope["headers"] if name.lower() == b"x-request-id"]
    return values[0].decode("latin-1") or None if len(values) == 1 else None


class ChaosMiddleware:
    """Around an ASGI application. Each path can be moved, or left alone with None.

    POST `disarm` stops the faults of the experiment whose UID is in the body (`{"experimentUid": "..."}`).
    GET `health` and GET `metrics` ask the application first: a JSON object gets the member `chaos`, and an
    exposition gets `chaos_injected_faults_total`, unless it has them. Where the application has no such path
    (404, 405), or answers 2xx with something else, a document with nothing else in it takes its place. What
    it refuses or redirects stays as it is, and so does an exposition that is compressed or in protobuf.

    With `account_of` POST `account` answers for an experiment that is over (`{"experimentUid": "..."}`),
    which gives it a verdict. Without it the application is asked, as for any path.
    """

    def __init__(  # noqa: PLR0913 - an argument for each path
        self,
        app: App,
        injector: FaultInjector | None,
        *,
        health: str | None = "/health",
        metrics: str | None = "/metrics",
        disarm: str | None = "/chaos/disarm",
        account: str | None = PATH,
        account_of: AccountOf | None = None,
    ) -> None:
        self._app = app
        self._injector = injector
        self._routes: dict[tuple[str, str | None], App] = {
            ("GET", health): self._health,
            ("GET", metrics): self._metrics,
            ("POST", disarm): self._disarm,
        }
        self._account_of = account_of
        if account_of is not None:
            self._routes["POST", account] = self._account

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection's event stream."""
        handle = self._app
        if scope["type"] == "http":
            # Where the application is mounted is part of the path: the operator knows nothing of it.
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            handle = self._routes.get((scope["method"], path), self._app)
        await handle(scope, receive, send)

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await _ask(self._app, scope, receive)
        document = answer.document()
        if document is not None:
            document.setdefault("chaos", health(self._injector))
            answer.replace(json.dumps(document))
        elif answer.gives_way():
            answer = _Answer.of(json.dumps({"status": "ok", "chaos": health(self._injector)}), _JSON)
        await answer.send(send)

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await _ask(self._app, scope, receive)
        text = answer.exposition()
        if text is None:
            if answer.gives_way() and not answer.unreadable_exposition():
                answer = _Answer.of(exposition(self._injector), _TEXT)
        elif f"# TYPE {FAULTS_METRIC}" not in text:
            openmetrics = answer.content_type.startswith(_OPENMETRICS)
            if openmetrics:
                text = text.rstrip().removesuffix(_EOF.rstrip())
            if text and not text.endswith("\n"):
                text += "\n"
            more = exposition(self._injector, openmetrics=openmetrics)
            answer.replace(text + more + (_EOF if openmetrics else ""))
        await answer.send(send)

    async def _disarm(self, _scope: Scope, receive: Receive, send: Send) -> None:
        uid = _member(await _body(receive), "experimentUid")
        if uid is None:
            expected = 'Send {"experimentUid": "..."}: the UID of the ChaosExperiment to stop.'
            answer = _Answer.problem(HTTPStatus.UNPROCESSABLE_ENTITY, expected)
        else:
            outcome = disarm(self._injector, uid)
            if outcome is Disarming.REFUSED:
                answer = _Answer.problem(
                    HTTPStatus.CONFLICT, "The faults of this process belong to another experiment."
                )
            else:
                answer = _Answer.of(json.dumps({"disarmed": outcome is Disarming.STOPPED}), _JSON)
        await answer.send(send)

    async def _account(self, _scope: Scope, receive: Receive, send: Send) -> None:
        uid = _member(await _body(receive), "experimentUid")
        if uid is None or self._account_of is None or not re.fullmatch(UID_PATTERN, uid):
            expected = 'Send {"experimentUid": "..."}: the UID of the ChaosExperiment to account for.'
            answer = _Answer.problem(HTTPStatus.UNPROCESSABLE_ENTITY, expected)
        else:
            try:
                given = await self._account_of(uid)
            except LookupError:
                answer = _Answer.problem(
                    HTTPStatus.NOT_FOUND, "Nothing here was under an experiment with this UID."
                )
            else:
                answer = (
                    _Answer.of(json.dumps({"state": VERIFYING}), _JSON, HTTPStatus.ACCEPTED.value)
                    if given is None
                    else _Answer.of(json.dumps(given.document()), _JSON)
                )
        await answer.send(send)


class _Answer:
    """A whole answer, kept back so that something can be added."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    @classmethod
    def of(cls, text: str, content_type: str, status: int = 200) -> _Answer:
        answer = cls()
        answer.status = status
        answer.headers = [(b"content-type", content_type.encode())]
        answer.replace(text)
        return answer

    @classmethod
    def problem(cls, status: HTTPStatus, detail: str) -> _Answer:
        document = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
        return cls.of(json.dumps(document), _PROBLEM, status.value)

    @property
    def content_type(self) -> str:
        return self._header(b"content-type").lower()

    def document(self) -> dict[str, Any] | None:
        """The JSON object this is; None where it is anything else."""
        if not self._readable() or "json" not in self.content_type or self.status in _ABSENT:
            return None
        try:
            document = json.loads(self.body)
        except ValueError:
            return None
        return document if isinstance(document, dict) else None

    def exposition(self) -> str | None:
        """The exposition this is; None where it is anything else."""
        is_one = self.content_type.startswith(("text/plain", _OPENMETRICS))
        if not self._readable() or not is_one or self.status != HTTPStatus.OK:
            return None
        text = self.body.decode("utf-8", "replace")
        says_so = "version=" in self.content_type or "# TYPE " in text
        return text if says_so or not text.strip() else None

    def unreadable_exposition(self) -> bool:
        """Whether this is, or may be, an exposition nothing can be added to."""
        return self.status == HTTPStatus.OK and (not self._readable() or _PROTOBUF in self.content_type)

    def gives_way(self) -> bool:
        """Whether something else may take its place: there is nothing, or nothing that was asked for."""
        return self.status in _ABSENT or HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    def replace(self, text: str) -> None:
        self.body = text.encode()
        kept = [(name, value) for name, value in self.headers if name.lower() != b"content-length"]
        self.headers = [*kept, (b"content-length", str(len(self.body)).encode())]

    async def send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})

    def _readable(self) -> bool:
        return self._header(b"content-encoding").lower() in {"", "identity"}

    def _header(self, wanted: bytes) -> str:
        return next((value.decode("latin-1") for name, value in self.headers if name.lower() == wanted), "")


_ABSENT: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)


async def _ask(app: App, scope: Scope, receive: Receive) -> _Answer:
    answer = _Answer()

    async def keep(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            answer.body += message.get("body", b"")

    headers = [
        (name, _without_protobuf(value) if name.lower() == b"accept" else value)
        for name, value in scope["headers"]
        if name.lower() != b"accept-encoding"  # what is compressed cannot be added to
    ]
    # Without extensions an answer comes as a body, and not as the path of a file.
    await app({**scope, "headers": headers, "extensions": {}}, receive, keep)
    return answer


def _without_protobuf(accept: bytes) -> bytes:
    """Prometheus may prefer a format to which no line of text can be added."""
    ranges = [one for one in accept.split(b",") if _PROTOBUF.encode() not in one]
    return b",".join(ranges) or b"*/*"


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        part: bytes = message.get("body", b"")
        body += part
        if not message.get("more_body") or len(body) > _LARGEST_BODY:
            return body


def _member(body: bytes, name: str) -> str | None:
    try:
        document = json.loads(body) if len(body) <= _LARGEST_BODY else None
    except ValueError:
        return None
    uid = document.get(name) if isinstance(document, dict) else None
    return uid if isinstance(uid, str) and 0 < len(uid) <= _LONGEST_UID else None
