"""/health, /ready and /metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from shadowfault_api.http.exposition import negotiate
from shadowfault_testing.databases import DatabasePair, postgresql_pair
from shadowfault_testing.postgres import PostgresServer
from shadowfault_testing.service import running, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shadowfault_testing.service import Service

    Start = Callable[..., Awaitable[Service]]


async def test_health_and_ready(service: Service) -> None:
    health = await service.client.get("/health")
    assert health.json() == {
        "status": "ok",
        "chaos": {"enabled": False, "active": False},
        "shadow": {"breaker": "closed", "queued": 0},
    }
    assert (await service.client.get("/ready")).status_code == 200
    service.app.state.draining = True
    stopping = await service.client.get("/ready")
    assert (stopping.status_code, stopping.headers["connection"]) == (503, "close")


async def test_the_metrics_read_as_documented(start: Start) -> None:
    service = await start(chaos={"fail_rate": "1"})
    await service.create()
    await service.settled()
    answer = await service.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    for line in (
        'shadow_write_failures_total{entity_type="Listing",operation="create",failure_type="injected"} 1',
        'chaos_injected_faults_total{entity_type="Listing",operation="create"} 1',
        'shadow_write_duration_seconds_count{entity_type="Listing",operation="create",success="false"} 1',
        'shadow_outbox_rows{state="failed"} 1',
    ):
        assert line in lines
    assert "_created" not in answer.text


async def test_every_metric_of_the_contract_is_there_with_its_labels(start: Start) -> None:
    service = await start(chaos={"fail_rate": "0.5", "seed": "s"})
    for _ in range(10):
        await service.create()
    await service.settled()
    now = "2026-01-01 00:00:00.000000"
    service.primary(
        "INSERT INTO discrepancy_checks (entity_type, last_check_at) VALUES ('Listing', :now)", now=now
    )
    for key, resolved in (("a", None), ("b", now)):
        service.primary(
            "INSERT INTO discrepancies (id, entity_type, entity_id, discrepancy_type, cause,"
            " first_seen_at, last_seen_at, resolved_at)"
            " VALUES (:key, 'Listing', :key, 'missing_in_shadow', 'injected', :now, :now, :resolved)",
            key=key,
            now=now,
            resolved=resolved,
        )
    families = {
        family.name: (family.type, {frozenset(sample.labels) - {"le"} for sample in family.samples})
        for family in text_string_to_metric_families((await service.client.get("/metrics")).text)
    }
    operation = {"entity_type", "operation"}
    assert families["shadow_write_failures"] == ("counter", {frozenset({*operation, "failure_type"})})
    assert families["shadow_write_successes"] == ("counter", {frozenset(operation)})
    assert families["shadow_write_duration_seconds"] == ("histogram", {frozenset({*operation, "success"})})
    assert families["shadow_discrepancies"] == ("counter", {frozenset({"entity_type", "discrepancy_type"})})
    assert families["chaos_injected_faults"] == ("counter", {frozenset(operation)})
    assert families["shadow_discrepancy_last_check_timestamp"] == ("gauge", {frozenset({"entity_type"})})
    assert await service.metric("shadow_discrepancies_total") == 2
    assert await service.metric("shadow_discrepancies_open", cause="injected") == 1
    assert await service.metric("shadow_discrepancy_last_check_timestamp") == 1767225600


OPENMETRICS = "application/openmetrics-text;version=1.0.0"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (OPENMETRICS, "openmetrics"),
        (f"{OPENMETRICS};q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1", "openmetrics"),  # Prometheus
        ("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.1", "plain"),
        ("application/openmetrics-text;q=0", "plain"),
        ("application/openmetrics-text;q=much", "plain"),
        ("text/html, */*", "plain"),
        ("", "plain"),
    ],
)
async def test_the_client_chooses_the_format(accept: str, expected: str) -> None:
    body, content_type = negotiate(accept, CollectorRegistry())
    assert expected in content_type
    assert body.endswith(b"# EOF\n") == (expected == "openmetrics")


async def test_openmetrics_has_exemplars_that_name_the_request(start: Start) -> None:
    service = await start(chaos={"fail_rate": "1"})
    await service.create(x_request_id="req-1")
    await service.create(x_request_id="x" * 128)  # too long for an exemplar
    await service.settled()
    answer = await service.client.get("/metrics", headers={"accept": OPENMETRICS})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    samples = [sample for family in openmetrics_families(answer.text) for sample in family.samples]
    named = {
        sample.name
        for sample in samples
        if sample.exemplar and sample.exemplar.labels == {"request_id": "req-1"}
    }
    assert named >= {
        "shadow_write_failures_total",
        "chaos_injected_faults_total",
        "shadow_write_duration_seconds_bucket",
        "http_request_duration_seconds_bucket",
    }
    assert "req-1" not in (await service.client.get("/metrics")).text


async def test_paths_that_do_not_exist_do_not_become_series(service: Service) -> None:
    for n in range(3):
        await service.client.get(f"/nowhere/{n}")
        await service.client.request(f"ODD{n}", "/health")
    text = (await service.client.get("/metrics")).text
    assert 'http_requests_total{method="GET",route="unmatched",status="404"} 3' in text
    assert "nowhere" not in text
    assert "ODD" not in text


async def test_critical_writes_are_counted_by_what_the_user_saw(service: Service) -> None:
    async def outcomes(operation: str) -> dict[str, float]:
        return {
            outcome: await service.metric("primary_writes_total", operation=operation, outcome=outcome)
            for outcome in ("success", "refused", "error")
        }

    listing = await service.create()
    await service.client.post("/api/listings", json={"title": ""})
    path = f"/api/listings/{listing['id']}"
    await service.client.patch(path, json={"price": 2}, headers={"If-Match": '"99"'})
    await service.client.delete(path)
    # Neither reads nor the write that is not critical.
    await service.client.get("/api/listings")
    await service.client.post(f"{path}/views")
    await service.settled()
    service.primary("ALTER TABLE listings RENAME TO gone")
    assert (await service.client.post("/api/listings", json={"title": "x", "price": 1})).status_code >= 500
    assert await outcomes("create") == {"success": 1, "refused": 1, "error": 1}
    assert await outcomes("update") == {"success": 0, "refused": 1, "error": 0}
    assert await outcomes("delete") == {"success": 1, "refused": 0, "error": 0}
    assert await service.metric("primary_writes_total") == 5


@pytest.mark.postgres
async def test_without_its_primary_a_service_says_503_and_comes_back_by_itself() -> None:
    with PostgresServer.start() as server, postgresql_pair(server) as databases:
        async with running(databases, database_timeout_seconds=2) as service:
            listing = await service.create()
            await service.settled()
            server.stop(immediately=True)
            lost = await service.client.post("/api/listings", json={"title": "Test", "price": 1})
            assert (lost.status_code, lost.headers["content-type"]) == (503, "application/problem+json")
            assert (await service.client.get("/ready")).status_code == 503
            assert (await service.client.get("/health")).status_code == 200
            view = await service.client.post(f"/api/listings/{listing['id']}/views")
            assert view.status_code == 202
            metrics = await service.client.get("/metrics")
            assert metrics.status_code == 200
            assert "metrics_refresh_failures_total 1" in metrics.text.splitlines()

            server.restart()

            async def ready() -> bool:
                return (await service.client.get("/ready")).status_code == 200

            await until(ready)
            await service.create()
            await service.settled()


async def test_the_shadow_plays_no_part_in_readiness(tmp_path) -> None:  # noqa: ANN001 - pathlib.Path
    databases = DatabasePair(
        f"sqlite:///{tmp_path / 'p.db'}", f"sqlite:///{tmp_path / 'no' / 's.db'}", "sqlite"
    )
    async with running(databases) as service:
        assert (await service.client.get("/ready")).status_code == 200


async def test_a_request_whose_id_is_refused_is_logged_under_the_one_it_was_answered_with(
    service: Service,
) -> None:
    merge = [structlog.contextvars.merge_contextvars]
    with structlog.testing.capture_logs(processors=merge) as logged:
        answer = await service.client.get("/api/listings", headers={"X-Request-Id": "jane@example.com"})
    assert answer.status_code == 400
    (line,) = [one for one in logged if one["event"] == "request"]
    assert line["requestId"] == answer.headers["X-Request-Id"]
    assert "jane" not in str(logged)
