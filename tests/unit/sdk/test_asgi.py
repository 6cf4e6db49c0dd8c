"""The middleware around applications that know nothing of it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from shadowfault import ChaosConfig, FaultInjector, Scope, Surface
from shadowfault.account import Account, parse_account
from shadowfault.asgi import App, ChaosMiddleware, request_id
from shadowfault.control import exposition

ALWAYS = ChaosConfig(
    enabled=True, fail_rate=1.0, seed="s", experiment="staging/x", experiment_uid="uid-1", scope=Scope.READS
)


def answering(
    status: int = 404, body: bytes = b"", content_type: str = "text/plain", *more: tuple[bytes, bytes]
) -> App:
    """An application that has one answer to everything, sent in two parts."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        headers = [
            (b"Content-Type", content_type.encode()),
            (b"Content-Length", str(len(body)).encode()),
            *more,
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body[:3], "more_body": True})
        await send({"type": "http.response.body", "body": body[3:]})

    return app


class Answer:
    def __init__(
        self, app: App, method: str, path: str, *parts: bytes, root_path: str = "", accept: str = ""
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self._parts = list(parts) or [b""]
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "root_path": root_path,
            "headers": [(b"accept-encoding", b"gzip"), *([(b"accept", accept.encode())] if accept else [])],
        }
        asyncio.run(app(scope, self._receive, self._send))  # type: ignore[arg-type]

    async def _receive(self) -> dict[str, Any]:
        if not self._parts:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self._parts.pop(0), "more_body": bool(self._parts)}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode().lower(): v.decode() for k, v in message["headers"]}
        else:
            self.body += message["body"]
            if not message.get("more_body"):
                assert self.headers["content-length"] == str(len(self.body))

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def disarm(app: App, document: Any) -> Answer:
    return Answer(app, "POST", "/chaos/disarm", json.dumps(document).encode())


def test_one_line_gives_an_application_that_has_nothing_all_three() -> None:
    injector = FaultInjector(ALWAYS)
    app = ChaosMiddleware(answering(404), injector)
    assert injector.check(Surface.SHADOW_WRITE, "Note", "create")
    assert Answer(app, "GET", "/health").json == {"status": "ok", "chaos": {**injector.describe()}}
    metrics = Answer(app, "GET", "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert metrics.body.decode().splitlines()[2:] == [
        'chaos_injected_faults_total{entity_type="Note",operation="create"} 1'
    ]
    assert disarm(app, {"experimentUid": "uid-2"}).status == 409
    assert injector.active
    assert disarm(app, {"experimentUid": "uid-1"}).json == {"disarmed": True}
    assert not injector.active
    assert Answer(app, "GET", "/health").json["chaos"]["disarmed"] is True


def test_it_answers_where_an_application_is_mounted_elsewhere() -> None:
    app = ChaosMiddleware(answering(404), FaultInjector(ALWAYS))
    for path in ("/svc/health", "/health"):  # as servers differ in what they put into the path
        assert Answer(app, "GET", path, root_path="/svc").json["chaos"]["enabled"] is True


def test_without_chaos_it_says_so() -> None:
    app = ChaosMiddleware(answering(404), None)
    assert Answer(app, "GET", "/health").json["chaos"] == {"enabled": False, "active": False}
    assert disarm(app, {"experimentUid": "uid-1"}).json == {"disarmed": False}
    assert b"chaos_injected_faults_total" in Answer(app, "GET", "/metrics").body


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"experimentUid": 1}', b'{"experimentUid": ""}', b"x" * 5000]
)
def test_a_body_that_names_no_experiment_disarms_nothing(body: bytes) -> None:
    injector = FaultInjector(ALWAYS)
    answer = Answer(ChaosMiddleware(answering(), injector), "POST", "/chaos/disarm", body)
    assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json")
    assert injector.active


def test_a_body_may_come_in_pieces_and_must_not_be_endless() -> None:
    injector = FaultInjector(ALWAYS)
    app = ChaosMiddleware(answering(), injector)
    assert (
        Answer(app, "POST", "/chaos/disarm", *([b" " * 1000] * 9), b'{"experimentUid":"uid-1"}').status == 422
    )
    pieces = Answer(app, "POST", "/chaos/disarm", b'{"experimentUid":', b'"uid-1"}')
    assert pieces.json == {"disarmed": True}


def test_a_health_document_keeps_what_it_has() -> None:
    app = ChaosMiddleware(answering(503, b'{"status": "sick"}', "application/json"), None)
    answer = Answer(app, "GET", "/health")
    assert (answer.status, answer.json["status"], "chaos" in answer.json) == (503, "sick", True)


@pytest.mark.parametrize(
    ("inner", "status"),
    [
        (answering(200, b"fine"), 200),
        (answering(404, b'{"detail": "Not Found"}', "application/json"), 200),
        (answering(200, b"{", "application/json"), 200),
        (answering(200, b"[1]", "application/json"), 200),
        (answering(500, b"broken"), 500),
    ],
)
def test_a_health_answer_of_another_kind_gives_way_unless_it_is_an_error(inner: App, status: int) -> None:
    answer = Answer(ChaosMiddleware(inner, None), "GET", "/health")
    assert answer.status == status
    assert (b'"chaos"' in answer.body) == (status == 200)
    assert b"Not Found" not in answer.body


def test_metrics_are_added_to_those_there_are_and_once() -> None:
    injector = FaultInjector(ALWAYS)
    injector.check(Surface.READ, 'A"\\\nB', "read")
    plain = b"# TYPE up gauge\nup 1\n"
    inner = answering(200, plain, "text/plain; version=0.0.4")
    answer = Answer(ChaosMiddleware(inner, injector), "GET", "/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    assert families.keys() == {"up", "chaos_injected_faults"}
    (sample,) = families["chaos_injected_faults"].samples
    assert (sample.labels, sample.value) == ({"entity_type": 'A"\\\nB', "operation": "read"}, 1)
    twice = ChaosMiddleware(ChaosMiddleware(inner, injector), injector)
    assert Answer(twice, "GET", "/metrics").body == answer.body


@pytest.mark.parametrize(
    "inner",
    [
        answering(401, b"no", "text/plain"),
        answering(403, b"no", "text/html"),
        answering(307, b"", "text/plain", (b"location", b"/elsewhere")),
        answering(500, b"broken"),
    ],
)
@pytest.mark.parametrize("path", ["/metrics", "/health"])
def test_what_an_application_refuses_or_redirects_stays_so(inner: App, path: str) -> None:
    own = Answer(inner, "GET", path)
    answer = Answer(ChaosMiddleware(inner, None), "GET", path)
    assert (answer.status, answer.headers, answer.body) == (own.status, own.headers, own.body)


@pytest.mark.parametrize(
    "inner",
    [
        answering(200, b"\x1f\x8b", "text/plain; version=0.0.4", (b"content-encoding", b"gzip")),
        answering(200, b"\x0a\x02up", "application/vnd.google.protobuf; encoding=delimited"),
    ],
)
def test_metrics_that_cannot_be_added_to_are_not_lost(inner: App) -> None:
    assert Answer(ChaosMiddleware(inner, None), "GET", "/metrics").body == Answer(inner, "GET", "/").body


def test_metrics_without_types_are_metrics() -> None:
    inner = answering(200, b"up 1", "text/plain; version=0.0.4")
    body = Answer(ChaosMiddleware(inner, FaultInjector(ALWAYS)), "GET", "/metrics").body
    assert body.startswith(b"up 1\n# HELP chaos_injected_faults_total")


@pytest.mark.parametrize(
    ("accept", "asked"),
    [
        ("application/vnd.google.protobuf;encoding=delimited;q=0.6,text/plain;q=0.5", "text/plain;q=0.5"),
        ("application/vnd.google.protobuf", "*/*"),
        ("text/plain", "text/plain"),
    ],
)
def test_an_application_is_asked_for_text(accept: str, asked: str) -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(scope["headers"])
        await answering()(scope, receive, send)

    Answer(ChaosMiddleware(app, None), "GET", "/metrics", accept=accept)
    assert seen == [(b"accept", asked.encode())]


@pytest.mark.parametrize("end", [b"# EOF\n", b"# EOF", b""])
def test_openmetrics_stays_openmetrics(end: bytes) -> None:
    injector = FaultInjector(ALWAYS)
    injector.check(Surface.READ, "Note", "read")
    inner = answering(200, b"# TYPE up gauge\nup 1.0\n" + end, "application/openmetrics-text; version=1.0.0")
    answer = Answer(ChaosMiddleware(inner, injector), "GET", "/metrics")
    names = {family.name for family in openmetrics_families(answer.body.decode())}
    assert names == {"up", "chaos_injected_faults"}


def test_what_is_compressed_is_not_taken_apart() -> None:
    inner = answering(500, b"\x1f\x8b", "application/json", (b"content-encoding", b"gzip"))
    assert Answer(ChaosMiddleware(inner, None), "GET", "/health").body == b"\x1f\x8b"


def test_every_other_request_passes_untouched_and_paths_can_be_moved_or_left() -> None:
    inner = answering(200, b"theirs")
    for method, path in (
        ("GET", "/notes"),
        ("POST", "/health"),
        ("GET", "/chaos/disarm"),
        ("HEAD", "/health"),
    ):
        assert Answer(ChaosMiddleware(inner, None), method, path).body == b"theirs"
    moved = ChaosMiddleware(inner, None, health="/chaos", metrics=None, disarm=None)
    assert "chaos" in Answer(moved, "GET", "/chaos").json
    for method, path in (("GET", "/health"), ("GET", "/metrics"), ("POST", "/chaos/disarm")):
        assert Answer(moved, method, path).body == b"theirs"


async def test_other_protocols_pass() -> None:
    seen: list[str] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["type"])

    await ChaosMiddleware(app, None)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


def test_the_exposition_of_an_injector_that_was_never_asked_has_no_series() -> None:
    assert exposition(FaultInjector(replace(ALWAYS, fail_rate=0.5))).count("\n") == 2


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([(b"X-Request-Id", b"a")], "a"),
        ([(b"x-request-id", b"")], None),
        ([(b"x-request-id", b"a"), (b"x-request-id", b"b")], None),
    ],
)
def test_a_request_id_is_the_one_the_client_sent(
    headers: list[tuple[bytes, bytes]], expected: str | None
) -> None:
    assert request_id({"headers": headers}) == expected


# The account of an experiment that is over


GIVEN = Account("uid-1", 3, 4, {"missing_in_shadow": 3}, 3, 0, None, None)


def accounting(app: App, given: Account | None = GIVEN) -> App:
    async def account_of(uid: str) -> Account | None:
        if uid != "uid-1":
            raise LookupError(uid)
        return given

    return ChaosMiddleware(app, None, account_of=account_of)


def test_an_account_is_given() -> None:
    answer = Answer(accounting(answering()), "POST", "/chaos/account", b'{"experimentUid":', b' "uid-1"}')
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert parse_account(json.loads(answer.body), "uid-1") == GIVEN


def test_an_account_in_the_making() -> None:
    answer = Answer(accounting(answering(), None), "POST", "/chaos/account", b'{"experimentUid": "uid-1"}')
    assert (answer.status, json.loads(answer.body)) == (202, {"state": "verifying"})


def test_there_is_no_account_of_an_unknown_experiment() -> None:
    answer = Answer(accounting(answering()), "POST", "/chaos/account", b'{"experimentUid": "uid-2"}')
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")
    assert b"uid-2" not in answer.body


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"experimentUid": ""}', b'{"experimentUid": 3}', b'{"experimentUid": "a b"}'],
)
def test_a_body_that_names_no_experiment_is_a_problem(body: bytes) -> None:
    answer = Answer(accounting(answering()), "POST", "/chaos/account", body)
    assert (answer.status, json.loads(answer.body)["status"]) == (422, 422)


def test_without_accounts_the_application_is_asked() -> None:
    app = ChaosMiddleware(answering(418), None)
    assert Answer(app, "POST", "/chaos/account", b'{"experimentUid": "uid-1"}').status == 418
