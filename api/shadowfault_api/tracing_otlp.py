"""Traces by the OpenTelemetry SDK, sent as OTLP over HTTP. OTEL_* variables configure it as everywhere."""

from __future__ import annotations

import os
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, get_current_span, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from opentelemetry.trace import SpanContext

    from shadowfault_api.entities import OutboxEntry

_SERVICE: Final = "shadowfault-api"
_HEADER: Final = "traceparent"


class OtlpTracing:
    """One per process; it sends in a thread of its own, and drops spans rather than let anything wait."""

    def __init__(self) -> None:
        # The default; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before it.
        named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        self._provider = TracerProvider(
            resource=Resource.create({} if named else {"service.name": _SERVICE}), shutdown_on_exit=False
        )
        self._exporter = OTLPSpanExporter()
        self._processor = BatchSpanProcessor(self._exporter)
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("shadowfault_api")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[_RequestSpan]:
        """Span a request, as a child of the caller's span where it sent one."""
        sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        span = self._tracer.start_span(
            method,
            context=self._propagator.extract(sent),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method},
        )
        with _current(span):
            yield _RequestSpan(span, method)

    @contextmanager
    def primary_write(self, operation: str) -> Iterator[object]:
        """Span a write to the primary."""
        span = self._tracer.start_span(
            "primary write", kind=SpanKind.CLIENT, attributes={"db.operation.name": operation}
        )
        with _current(span):
            yield span

    @contextmanager
    def shadow_write(self, entries: Iterable[OutboxEntry]) -> Iterator[object]:
        """Span a batch, linked to the spans of its requests."""
        batch = list(entries)
        parents = {entry.traceparent for entry in batch if entry.traceparent}
        contexts = [self._span_context(parent) for parent in sorted(parents)]
        span = self._tracer.start_span(
            "shadow write",
            kind=SpanKind.CLIENT,
            attributes={"db.operation.batch.size": len(batch)},
            links=[Link(context) for context in contexts if context.is_valid],
        )
        with _current(span):
            yield span

    def traceparent(self) -> str | None:
        """The current span as W3C Trace Context."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get(_HEADER)

    def close(self, seconds: float) -> None:
        """Send what is left; a receiver that does not answer is not waited for longer than `seconds`."""
        closing = Thread(target=self._close, name="traces-close", daemon=True)
        closing.start()
        closing.join(seconds)
        if closing.is_alive():
            # It keeps to no time of its own (open-telemetry/opentelemetry-python issue 4568). This ends its
            # attempts; one that is under way is left behind.
            self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _close(self) -> None:
        self._processor.force_flush()
        self._provider.shutdown()

    def _span_context(self, traceparent: str) -> SpanContext:
        return get_current_span(self._propagator.extract({_HEADER: traceparent})).get_span_context()


class _RequestSpan:
    def __init__(self, span: Span, method: str) -> None:
        self._span = span
        self._method = method

    def end(self, request_id: str, route: str, status: int) -> None:
        """Name the span by its route: a path has ids in it, and there would be no end of names."""
        self._span.update_name(f"{self._method} {route}")
        self._span.set_attributes(
            {"http.route": route, "http.response.status_code": status, "shadowfault.request_id": request_id}
        )
        if status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))


@contextmanager
def _current(span: Span) -> Iterator[None]:
    """Make a span the current one, and end it. Of an error it keeps the class: a message may quote a row."""
    try:
        with use_span(span, record_exception=False, set_status_on_exception=False):
            yield
    except BaseException as error:
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(Status(StatusCode.ERROR))
        raise
    finally:
        span.end()
