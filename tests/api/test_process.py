"""The service as a process: how it begins, how it ends, and what survives when it is killed."""

from __future__ import annotations

import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

from shadowfault_testing.service import DEADLINE_SECONDS, ServiceProcess, query, sum_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_testing.databases import DatabasePair

    Launch = Callable[..., ServiceProcess]


def _client(process: ServiceProcess) -> httpx.Client:
    return httpx.Client(base_url=process.url, timeout=20, trust_env=False)


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def _pending(databases: DatabasePair) -> int:
    return int(query(databases.primary, "SELECT count(*) AS n FROM outbox WHERE state = 'pending'")[0]["n"])


def test_in_production_it_says_so_and_opens_nothing(launch: Launch) -> None:
    process = launch(NODE_ENV="production", CHAOS_ENABLED="true")
    assert process.process.wait(DEADLINE_SECONDS) == 1
    assert process.log.read_text() == (
        "FATAL: CHAOS_ENABLED=true is forbidden in production.\n"
        "Chaos engineering must NEVER run in NODE_ENV=production.\n"
        "This is a safety violation. Aborting boot.\n"
    )
    assert list(process.log.parent.glob("*.db")) == []


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"CHAOS_FAIL_RATE": "1.5", "CHAOS_ENABLED": "maybe"}, ["CHAOS_FAIL_RATE", "CHAOS_ENABLED"]),
        ({"PORT": "http", "SHADOW_QUEUE_SIZE": "0"}, ["PORT", "SHADOW_QUEUE_SIZE"]),
        ({"DATABASE_URL": "mysql://root:hunter2@db/app"}, ["DATABASE_URL"]),
        ({"DATABASE_URL": "sqlite:///one.db", "SHADOW_DATABASE_URL": "sqlite:///one.db"}, ["DATABASE_URL"]),
        ({"ADMIN_TOKEN": "hunter2"}, ["ADMIN_TOKEN"]),
    ],
)
def test_what_cannot_be_used_is_named_and_ends_it(
    launch: Launch, variables: dict[str, str], names: list[str]
) -> None:
    process = launch(**variables)
    assert process.process.wait(DEADLINE_SECONDS) == 2
    said = process.log.read_text()
    assert all(name in said for name in names)
    assert "hunter2" not in said
    assert "Traceback" not in said


def test_it_serves_logs_json_and_ends_as_asked(launch: Launch, database_pair: DatabasePair) -> None:
    process = launch(
        **database_pair.environment(), CHAOS_ENABLED="true", CHAOS_FAIL_RATE="1", SHUTDOWN_DELAY_SECONDS="0.2"
    )
    with _client(process) as client:
        body = {"title": "Jane Doe, Elm Street", "price": 98765432.19}
        headers = {"x-request-id": "req-1"}
        assert client.post("/api/listings", json=body, headers=headers).status_code == 201
        assert client.post("/api/listings", content=b"{Jane", headers=headers).status_code in {400, 422}
        assert client.get("/api/admin/jobs").status_code == 200
        _wait(lambda: _pending(database_pair) == 0)
        _wait(lambda: any(line["event"] == "shadow_write_failed" for line in process.lines()))
    assert process.end() == 0
    ours = [line for line in process.lines() if line.get("requestId") == "req-1"]
    assert {line["event"] for line in ours} == {"request", "shadow_write_failed"}
    said = process.log.read_text()
    assert "Jane" not in said
    assert "98765432" not in said


def test_after_sigterm_it_serves_on_for_a_moment_and_is_not_ready(launch: Launch) -> None:
    process = launch(SHUTDOWN_DELAY_SECONDS="20")
    with _client(process) as client:
        assert client.get("/ready").status_code == 200
        process.process.send_signal(signal.SIGTERM)
        _wait(lambda: client.get("/ready").status_code == 503)
        assert client.post("/api/listings", json={"title": "Late", "price": 1}).status_code == 201
    assert process.end() == 0  # a second signal ends it at once


def test_killed_under_load_it_loses_no_acknowledged_write(
    launch: Launch, database_pair: DatabasePair
) -> None:
    environment = {
        **database_pair.environment(),
        "SHADOW_BATCH_SECONDS": "0.2",
        "SHADOW_CLAIM_SECONDS": "10.5",
    }
    first = launch(**environment)
    url = first.url
    acknowledged: list[str] = []
    enough = threading.Event()

    def load(worker: int) -> None:
        with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
            for n in range(200):
                try:
                    answer = client.post("/api/listings", json={"title": f"{worker}-{n}", "price": n})
                except httpx.TransportError:
                    return
                if answer.status_code == 201:
                    acknowledged.append(answer.json()["id"])
                if len(acknowledged) >= 60:
                    enough.set()

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(load, worker) for worker in range(4)]
        assert enough.wait(DEADLINE_SECONDS)
        first.kill()
        for worker in workers:
            worker.result()

    assert _pending(database_pair) > 0
    second = launch(**environment)
    assert second.url
    _wait(lambda: _pending(database_pair) == 0)
    stored = {row["id"] for row in query(database_pair.primary, "SELECT id FROM listings")}
    shadowed = {row["id"] for row in query(database_pair.shadow, "SELECT id FROM listings")}
    assert set(acknowledged) <= stored
    assert stored == shadowed
    assert query(database_pair.primary, "SELECT * FROM outbox") == []
    assert second.end() == 0


def test_three_processes_that_start_at_once_share_one_pair_of_databases(
    launch: Launch, database_pair: DatabasePair
) -> None:
    chaos = {"CHAOS_ENABLED": "true", "CHAOS_FAIL_RATE": "0.25", "CHAOS_SEED": "three"}
    processes = [launch(**database_pair.environment(), **chaos) for _ in range(3)]
    clients = [_client(process) for process in processes]

    def write(n: int) -> None:
        client = clients[n % 3]
        created = client.post(
            "/api/listings", json={"title": f"{n}", "price": n}, headers={"x-request-id": f"n-{n}"}
        )
        assert created.status_code == 201, created.text
        other = clients[(n + 1) % 3]
        assert other.patch(created.headers["location"], json={"price": n + 1}).status_code == 200
        if n % 5 == 0:
            assert client.delete(created.headers["location"]).status_code == 204

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(60)))
    _wait(lambda: _pending(database_pair) == 0)

    primary = {
        row["id"]: row["version"] for row in query(database_pair.primary, "SELECT id, version FROM listings")
    }
    shadow = {
        row["id"]: row["version"]
        for row in query(database_pair.shadow, "SELECT id, version FROM listings WHERE deleted_at IS NULL")
    }
    failed = {row["entity_id"] for row in query(database_pair.primary, "SELECT entity_id FROM outbox")}
    differing = {key for key in primary.keys() | shadow.keys() if primary.get(key) != shadow.get(key)}
    assert len(primary) == 48
    assert differing <= failed
    evidence = query(database_pair.primary, "SELECT count(*) AS n FROM evidence_records")[0]["n"]

    def counted(name: str, **labels: str) -> float:
        return sum(sum_of(client.get("/metrics").text, name, labels) for client in clients)

    # A newer version that came first is on record too, as superseded.
    assert evidence == counted("shadow_write_failures_total")
    injected = counted("chaos_injected_faults_total")
    assert injected == counted("shadow_write_failures_total", failure_type="injected") > 0
    for client in clients:
        client.close()
    assert [process.end() for process in processes] == [0, 0, 0]


def test_openapi_is_served_and_is_json(launch: Launch) -> None:
    with _client(launch()) as client:
        document = client.get("/openapi.json")
    assert json.loads(document.text)["paths"].keys() >= {"/api/listings", "/chaos/disarm", "/health"}
