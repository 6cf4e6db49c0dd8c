"""HTTP traffic with request ids that a later run can replay."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import httpx

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType


@dataclass
class Account:
    """What the user of the API saw."""

    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def sent(self) -> int:
        """How many requests were answered or failed."""
        return self.statuses.total()

    @property
    def refused(self) -> int:
        """How many were not answered with 201."""
        return self.sent - self.statuses["201"]

    def __str__(self) -> str:
        return ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))


def request_ids(run: str, count: int) -> list[str]:
    """Stable request ids: the same `run` gives the same ids, and so the same faults for one seed."""
    return [f"{run}-{n:04d}" for n in range(count)]


def _create(client: httpx.Client, request_id: str) -> str:
    try:
        response = client.post(
            "/api/listings",
            json={"title": f"Listing {request_id}", "price": 1500},
            headers={"X-Request-Id": request_id},
        )
    except httpx.TransportError as error:
        return type(error).__name__
    return str(response.status_code)


def create_listings(api_url: str, ids: Sequence[str], *, workers: int = 8) -> Account:
    """POST one listing for each id; every answer is counted, also those that never came."""
    account = Account()
    # One connection a request would hide nothing, but keep-alive is what real callers do.
    with (
        httpx.Client(base_url=api_url, timeout=10, trust_env=False) as client,
        ThreadPoolExecutor(workers) as pool,
    ):
        account.statuses.update(pool.map(lambda request_id: _create(client, request_id), ids))
    return account


class SteadyTraffic:
    """A background trickle of creates, for what has to be observed under load.

    Connections are not kept alive: a rollout replaces the pods behind the Service, and a
    caller without retries on a kept connection would measure its own client's behaviour.
    """

    def __init__(self, api_url: str, run: str, *, pause: float = 0.01) -> None:
        self._api_url = api_url
        self._run = run
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="steady-traffic", daemon=True)
        self.account = Account()

    def _send(self) -> None:
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=self._api_url, timeout=10, limits=limits, trust_env=False) as client:
            n = 0
            while not self._stop.wait(self._pause):
                self.account.statuses[_create(client, f"{self._run}-{n:06d}")] += 1
                n += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=15)
