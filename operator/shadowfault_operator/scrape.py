"""The few metrics that stop conditions need, from a pod's own /metrics.

A pod is not ours: its answer may be slow, endless or nonsense. It costs a short timeout, a bounded number of
bytes, and becomes a word for why there is no reading.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from shadowfault_operator.podhttp import PodHttp, TooLargeError, bounded
from shadowfault_operator.stopconditions import Reading

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shadowfault_operator.ports import Pod

PRIMARY: Final = "primary_writes_total"
FAILURES: Final = "shadow_write_failures_total"
OPEN: Final = "shadow_discrepancies_open"
_NAMES: Final = f"{PRIMARY}|{FAILURES}|{OPEN}"
# The lines that matter, found before anything is parsed: other metrics of a pod cost nothing.
_LINES: Final = re.compile(rf"^(?:(?:# TYPE )?(?:{_NAMES})[ \t{{].*)$", re.MULTILINE)
_TOTAL_SECONDS: Final = 2.0
_CONNECT_SECONDS: Final = 0.5
_LARGEST_BODY: Final = 4 * 1024 * 1024


class UnreadableError(Exception):
    """No reading; the message is one word for why."""


class Scraper(Protocol):
    """Asks a pod for its metrics."""

    async def read(self, pod: Pod, port: int) -> Reading:
        """One reading.

        Raises:
            UnreadableError: there is none.
        """
        ...


class HttpScraper:
    """GET /metrics."""

    def __init__(self) -> None:
        # What is compressed could unfold without bound.
        self._http = PodHttp(total=_TOTAL_SECONDS, connect=_CONNECT_SECONDS, auto_decompress=False)

    async def close(self) -> None:
        await self._http.close()

    async def read(self, pod: Pod, port: int) -> Reading:
        """One reading.

        Raises:
            UnreadableError: there is none.
        """
        headers = {"Accept": "text/plain;version=0.0.4", "Accept-Encoding": "identity"}
        try:
            async with self._http.request("GET", pod, port, "/metrics", headers=headers) as response:
                if response.status != 200:
                    raise UnreadableError("refused")
                body = await bounded(response.content, _LARGEST_BODY)
        except TooLargeError as error:
            raise UnreadableError("too large") from error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnreadableError("unreachable") from error
        return parse(body.decode(errors="replace"))


def parse(text: str) -> Reading:
    """The reading in an exposition, https://prometheus.io/docs/instrumenting/exposition_formats/.

    Raises:
        UnreadableError: what matters in it makes no sense.
    """
    lines = _LINES.findall(text)
    try:
        samples = [
            sample
            for family in text_string_to_metric_families("\n".join(lines) + "\n")
            for sample in family.samples
        ]
    except Exception as error:
        # The parser raises whatever nonsense leads it to.
        raise UnreadableError("malformed") from error
    # A counter with labels has no sample before it first counts; its type says that it is there.
    exposed = {line.removeprefix("# TYPE ").split()[0].partition("{")[0] for line in lines}
    primary = [sample for sample in samples if sample.name == PRIMARY]
    return Reading(
        primary_writes=_sum(primary) if PRIMARY in exposed else None,
        primary_errors=_sum(sample for sample in primary if sample.labels.get("outcome") == "error")
        if PRIMARY in exposed
        else None,
        shadow_failures=_sum(sample for sample in samples if sample.name == FAILURES)
        if FAILURES in exposed
        else None,
        unexplained=_sum(
            sample
            for sample in samples
            if sample.name == OPEN and sample.labels.get("cause") == "unexplained"
        )
        if OPEN in exposed
        else None,
    )


class _Sample(Protocol):
    @property
    def value(self) -> float: ...


def _sum(samples: Iterable[_Sample]) -> float:
    total = 0.0
    for sample in samples:
        if not (math.isfinite(sample.value) and sample.value >= 0):
            raise UnreadableError("malformed")
        total += sample.value
    return total
