"""Traces reach a receiver, hang together across the outbox, and hold nothing a user sent."""

from __future__ import annotations

import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from shadowfault_api import tracing
from shadowfault_testing.api import eventually
from shadowfault_testing.databases import sqlite_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shadowfault_testing.service import ServiceProcess


class Receiver:
    """An OTLP/HTTP receiver that keeps every span."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[Any] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    receiver.resources.append(resource.resource)
                    for scope in resource.scope_spans:
                        receiver.spans.extend(scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    thread = Thread(target=one.server.serve_forever, args=(0.02,))
    thread.start()
    yield one
    one.server.shutdown()
    one.server.server_close()
    thread.join()


def _attributes(span: Any) -> dict[str, Any]:
    return {
        item.key: item.value.string_value or item.value.int_value or item.value.bool_value
        for item in span.attributes
    }


def test_request_primary_write_and_shadow_write_are_one_story(
    launch: Callable[..., ServiceProcess], receiver: Receiver, tmp_path: Path
) -> None:
    process = launch(
        **sqlite_pair(tmp_path).environment(),
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_BSP_SCHEDULE_DELAY="50",
        CHAOS_ENABLED="true",
        CHAOS_FAIL_RATE="0",
    )
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with httpx.Client(base_url=process.url, timeout=20, trust_env=False) as client:
        body = {"title": "Jane Doe, Elm Street", "price": 1234.56}
        headers = {"x-request-id": "req-1", "traceparent": parent}
        created = client.post("/api/listings", json=body, headers=headers)
        assert created.status_code == 201
        assert client.get("/nowhere/Jane").status_code == 404
        eventually("all spans", lambda: receiver.named("shadow write") and receiver.named("GET unmatched"))
    assert process.end() == 0

    (request,) = receiver.named("POST /api/listings")
    (primary,) = receiver.named("primary write")
    (shadow,) = receiver.named("shadow write")
    assert request.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    assert _attributes(request) == {
        "http.request.method": "POST",
        "http.route": "/api/listings",
        "http.response.status_code": 201,
        "shadowfault.request_id": "req-1",
    }
    assert primary.parent_span_id == request.span_id
    assert [(link.trace_id, link.span_id) for link in shadow.links] == [(request.trace_id, request.span_id)]
    assert _attributes(shadow) == {"db.operation.batch.size": 1}
    names = {item.key: item.value.string_value for item in receiver.resources[0].attributes}
    assert names["service.name"] == "shadowfault-api"
    everything = "".join(str(span) for span in receiver.spans)
    for personal in ("Jane", "1234", created.json()["id"]):
        assert personal not in everything


def test_a_receiver_that_is_not_there_costs_no_request(
    launch: Callable[..., ServiceProcess], tmp_path: Path
) -> None:
    process = launch(
        **sqlite_pair(tmp_path).environment(),
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://127.0.0.1:9/v1/traces",
    )
    with httpx.Client(base_url=process.url, timeout=20, trust_env=False) as client:
        assert client.post("/api/listings", json={"title": "Test", "price": 1}).status_code == 201
    assert process.end() == 0
    # It does not wait until the exporter has tried often enough.
    assert any("aborting retry" in line["event"] for line in process.lines())


def test_without_an_endpoint_the_parts_that_trace_are_not_even_imported() -> None:
    """FastAPI imports OpenTelemetry's interfaces where they are installed; the SDK and exporter are ours."""
    program = (
        "import sys, shadowfault_api.main, shadowfault_api.tracing as tracing\n"
        "tracing.create_tracing({})\n"
        "ours = ('opentelemetry.sdk', 'opentelemetry.exporter', 'shadowfault_api.tracing_otlp')\n"
        "print([name for name in sys.modules if name.startswith(ours)])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "TRUE"}, False),
    ],
)
def test_opentelemetrys_own_variables_decide(environ: dict[str, str], expected: bool) -> None:
    assert tracing.configured(environ) is expected


def test_missing_packages_are_named_and_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_PACKAGES", ("opentelemetry.not_installed.anywhere",))
    with pytest.raises(tracing.TracingError, match=r"pip install 'shadowfault\[tracing\]'"):
        tracing.create_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"})
