"""The metrics as the client asks for them: OpenMetrics, with exemplars, or Prometheus' text format.

The text format 0.0.4 is our own: labels in the order of their declaration and whole numbers written whole.
The library sorts labels by name and writes 12.0. Both mean the same to Prometheus; a person who compares a
line with the documentation, or greps for it, should find it as documented. Format:
https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_TYPES: Final = {"unknown": "untyped"}
# Beyond this a double no longer holds every whole number.
_WHOLE_LIMIT: Final = 2**53


_OPENMETRICS: Final = "application/openmetrics-text"


def negotiate(accept: str, registry: CollectorRegistry) -> tuple[bytes, str]:
    """Write the metrics in the format an Accept header prefers; returns them and their content type.

    Exemplars have no place in the text format, so they are left out there.
    """
    if _quality(accept, _OPENMETRICS) <= max(_quality(accept, "text/plain"), 0.0):
        return render(registry.collect()), CONTENT_TYPE
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _quality(accept: str, media_type: str) -> float:
    """How much this media type is wanted (RFC 9110, section 12.5.1), by its own name; 0 where it is not."""
    best = 0.0
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if name == media_type:
            best = max(best, _weight(parameters))
    return best


def _weight(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def render(metrics: Iterable[Metric]) -> bytes:
    """Write counters, gauges and histograms."""
    lines: list[str] = []
    for metric in metrics:
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        lines.extend(
            (
                f"# HELP {name} {_escape(metric.documentation)}\n",
                f"# TYPE {name} {_TYPES.get(metric.type, metric.type)}\n",
            )
        )
        lines.extend(_line(sample) for sample in metric.samples)
    return "".join(lines).encode()


def _line(sample: Sample) -> str:
    inside = ",".join(f'{label}="{_escape_label(value)}"' for label, value in sample.labels.items())
    labels = f"{{{inside}}}" if inside else ""
    return f"{sample.name}{labels} {_number(sample.value)}\n"


def _number(value: float) -> str:
    if float(value).is_integer() and abs(value) < _WHOLE_LIMIT:
        return str(int(value))
    written: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return written


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _escape_label(text: str) -> str:
    return _escape(text).replace('"', r"\"")
