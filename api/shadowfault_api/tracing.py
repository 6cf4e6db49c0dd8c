"""OpenTelemetry traces, where an OTLP endpoint is configured; without one its SDK is not even imported.

Spans: the request (server), its write to the primary (client), and the batch that takes writes to the shadow
(client), which is linked to each request across the outbox. Attributes name kinds, never what a user sent.
"""

from __future__ import annotations

from contextlib import nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

    from shadowfault_api.entities import OutboxEntry

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


class TracingError(Exception):
    """Traces are configured and cannot be made. The message says what to do."""


class RequestSpan(Protocol):
    """The span of one request."""

    def end(self, request_id: str, route: str, status: int) -> None:
        """Say how it ended."""
        ...


class Tracing(Protocol):
    """What the service asks of traces."""

    def request(
        self, method: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> AbstractContextManager[RequestSpan]:
        """Span a request; `headers` may carry the caller's traceparent."""
        ...

    def primary_write(self, operation: str) -> AbstractContextManager[object]:
        """Span a write to the primary."""
        ...

    def shadow_write(self, entries: Iterable[OutboxEntry]) -> AbstractContextManager[object]:
        """Span one attempt to write a batch to the shadow, linked to the requests it comes from."""
        ...

    def traceparent(self) -> str | None:
        """The current span as W3C Trace Context; None outside of a trace."""
        ...

    def close(self, seconds: float) -> None:
        """Send what is left, for at most so long. Blocks."""
        ...


class NoTracing:
    """Traces switched off."""

    def request(
        self,
        method: str,  # noqa: ARG002 - the parameters are those of Tracing
        headers: Iterable[tuple[bytes, bytes]],  # noqa: ARG002
    ) -> AbstractContextManager[RequestSpan]:
        """Do nothing."""
        return nullcontext(_NO_SPAN)

    def primary_write(self, operation: str) -> AbstractContextManager[object]:  # noqa: ARG002
        """Do nothing."""
        return nullcontext()

    def shadow_write(self, entries: Iterable[OutboxEntry]) -> AbstractContextManager[object]:  # noqa: ARG002
        """Do nothing."""
        return nullcontext()

    def traceparent(self) -> str | None:
        """There is none."""
        return None

    def close(self, seconds: float) -> None:
        """Do nothing."""


class _NoSpan:
    def end(self, request_id: str, route: str, status: int) -> None:
        pass


_NO_SPAN = _NoSpan()


def configured(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces, by OpenTelemetry's own variables."""
    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not off and any(environ.get(name, "").strip() for name in _ENDPOINTS)


def create_tracing(environ: Mapping[str, str]) -> Tracing:
    """Build what the environment asks for.

    Raises:
        TracingError: traces are asked for and the packages for them are missing.
    """
    if not configured(environ):
        return NoTracing()
    if not all(_installed(package) for package in _PACKAGES):
        raise TracingError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, and the packages for traces are not installed:"
            " pip install 'shadowfault[tracing]', or unset it"
        )
    from shadowfault_api.tracing_otlp import OtlpTracing  # noqa: PLC0415 - only where traces are on

    return OtlpTracing()


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
