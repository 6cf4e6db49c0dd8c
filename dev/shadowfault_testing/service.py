"""The service as tests see it: in their own process over ASGI, or as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.pool import NullPool

import shadowfault
from shadowfault_api.app import create_app
from shadowfault_api.settings import Settings
from shadowfault_api.store.types import ExactPrice
from shadowfault_api.store.urls import READ_ONLY_OPTION, create_sync_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from decimal import Decimal
    from pathlib import Path

    from fastapi import FastAPI

    from shadowfault_api.http.resources import Resources
    from shadowfault_testing.databases import DatabasePair

DEADLINE_SECONDS = 40.0

# Short pauses, for tests. The deadline is not short: on a busy machine a healthy shadow takes its time too.
FAST = {
    "shadow_timeout_seconds": 5.0,
    "shadow_claim_seconds": 12.0,
    "shadow_sweep_seconds": 0.05,
    "shadow_batch_seconds": 0.0,
    "shadow_breaker_reset_seconds": 0.1,
    "shutdown_delay_seconds": 0.0,
    "shutdown_grace_seconds": 5.0,
}


def query(url: str, sql: str, **parameters: object) -> list[dict[str, Any]]:
    """Run SQL on a database of the test; a statement that changes something is committed."""
    engine = create_sync_engine(url, poolclass=NullPool)
    try:
        # A read must not wait for a writer: that may be a task of the event loop this call blocks.
        reading = {READ_ONLY_OPTION: True} if sql.startswith("SELECT") else {}
        with engine.execution_options(**reading).begin() as connection:
            result = connection.execute(text(sql), parameters)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []
    finally:
        engine.dispose()


@dataclass
class Service:
    """One replica in this process, and a client that talks to it."""

    app: FastAPI
    client: httpx.AsyncClient
    databases: DatabasePair

    @property
    def resources(self) -> Resources:
        resources: Resources = self.app.state.resources
        return resources

    async def create(self, title: str = "Test", price: float = 1500, **headers: str) -> dict[str, Any]:
        """POST a listing; headers by their Python names (x_request_id)."""
        answer = await self.client.post(
            "/api/listings",
            json={"title": title, "price": price},
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )
        if answer.status_code != HTTPStatus.CREATED:
            raise AssertionError(answer.text)
        listing: dict[str, Any] = answer.json()
        return listing

    async def settled(self) -> None:
        """Wait until every shadow write is made or recorded as failed."""
        await until(lambda: not self.outbox("pending"))

    def primary(self, sql: str, **parameters: object) -> list[dict[str, Any]]:
        """Run SQL on the primary."""
        return query(self.databases.primary, sql, **parameters)

    def shadow(self, sql: str, **parameters: object) -> list[dict[str, Any]]:
        """Run SQL on the shadow."""
        return query(self.databases.shadow, sql, **parameters)

    def outbox(self, state: str) -> list[dict[str, Any]]:
        """The rows of the outbox in this state, oldest first."""
        return self.primary("SELECT * FROM outbox WHERE state = :state ORDER BY id", state=state)

    def evidence(self) -> list[dict[str, Any]]:
        """All evidence, oldest first."""
        rows = self.primary("SELECT * FROM evidence_records ORDER BY occurred_at, id")
        for row in rows:
            if isinstance(row["details"], str):
                row["details"] = json.loads(row["details"])
        return rows

    def shadow_listings(self) -> dict[str, tuple[str | None, Decimal | None, int]]:
        """Title, price and version of each row of the shadow by id; no title is a tombstone."""
        rows = self.shadow("SELECT * FROM listings")
        to_price = ExactPrice().process_result_value
        return {
            row["id"]: (row["title"], to_price(row["price"], None), row["version"])  # type: ignore[arg-type]
            for row in rows
        }

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the series of this name whose labels are among theirs."""
        answer = await self.client.get("/metrics")
        return sum_of(answer.text, name, labels)


def sum_of(exposition: str, name: str, labels: Mapping[str, str]) -> float:
    """The sum of the series of this name whose labels are among theirs, in the text of a scrape."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def until(condition: Callable[[], Any | Awaitable[Any]]) -> Any:  # noqa: ANN401 - whatever it gives
    """Wait until a condition gives something true, and give that; the condition may be async."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain")
        await asyncio.sleep(0.02)


@asynccontextmanager
async def running(
    databases: DatabasePair, chaos: Mapping[str, str] | None = None, **settings: object
) -> AsyncIterator[Service]:
    """A replica from start to stop. `chaos`: CHAOS_* variables without the prefix, in lower case."""
    environ = {f"CHAOS_{name.upper()}": value for name, value in (chaos or {}).items()}
    injector = shadowfault.boot({"CHAOS_ENABLED": "true", **environ} if chaos is not None else {})
    app = create_app(
        Settings.model_validate(
            {"database_url": databases.primary, "shadow_database_url": databases.shadow, **FAST, **settings}
        ),
        injector,
    )
    app.state.resources.refresh.rest = 0.0  # a test looks again at once
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield Service(app, client, databases)


@dataclass
class ServiceProcess:
    """A replica in a process of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        """Where it listens, once its log says so."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            for line in self.lines():
                if "running on http://" in line["event"]:
                    address = str(line["event"]).partition("http://")[2].split()[0]
                    return f"http://{address}"
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def lines(self) -> list[dict[str, Any]]:
        """The lines of its log; each must be JSON."""
        return [
            json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")
        ]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_SECONDS)

    def kill(self) -> None:
        """End it at once, as a crash does, and reap it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def launch_service(
    log: Path, variables: Mapping[str, str], *, module: str = "shadowfault_api"
) -> ServiceProcess:
    """Start `python -m MODULE` with these variables on a free port; its folder is that of `log`.

    A variable of `FAST` that is given as "" has its default, as in a deployment.
    """
    environment = {
        "PATH": os.environ["PATH"],
        "PORT": "0",
        **{name.upper(): str(value) for name, value in FAST.items()},
        **variables,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-W", "error", "-m", module],
            env=environment,
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return ServiceProcess(process, log)
