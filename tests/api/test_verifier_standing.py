"""How far the verifier is, as the list of jobs and the metrics show it, and as it says itself."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import structlog

from shadowfault_api.store.sweeps import SweepStanding
from shadowfault_api.verifier import Mode, VerifierOptions, verify_stores
from shadowfault_api.verifier.progress import Standing, log_progress
from shadowfault_testing.stores import listing_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shadowfault_testing.service import Service
    from shadowfault_testing.stores import Stores

INCREMENTAL = VerifierOptions(
    mode=Mode.INCREMENTAL, chunk_size=2, digest_rows=2, full_every=timedelta(hours=6)
)


def fill(stores: Stores, count: int) -> None:
    rows = [listing_row(str(UUID(int=number << 64))) for number in range(1, count + 1)]
    stores.put_all(rows)
    stores.shadow_put_all(rows[1:])  # the first differs: a cursor behind it is stored at once


async def test_the_list_of_jobs_shows_how_far_a_run_is(service: Service, stores: Stores) -> None:
    fill(stores, 10)
    reached, go_on = Event(), Event()

    @contextmanager
    def waiting(_run_id: str) -> Iterator[Callable[[Standing], None]]:
        def tell(_standing: Standing) -> None:
            reached.set()
            assert go_on.wait(60)

        yield tell

    options = VerifierOptions(chunk_size=2, digest_rows=2, progress=waiting)
    run = asyncio.create_task(
        asyncio.to_thread(verify_stores, stores.primary, stores.shadow, options=options)
    )
    assert await asyncio.to_thread(reached.wait, 60)
    try:
        (job,) = (await service.client.get("/api/admin/jobs")).json()
    finally:
        go_on.set()
    progress = job["lastRuns"][0]["progress"]
    assert (progress["rows"], progress["estimatedRows"]) == (2, 10)
    assert (progress["parts"], progress["partsEnded"]) == (1, 0)
    await run
    (job,) = (await service.client.get("/api/admin/jobs")).json()
    assert job["lastRuns"][0]["progress"] is None


async def test_metrics_say_what_no_sweep_has_covered_yet(service: Service, stores: Stores) -> None:
    assert "shadow_verifier_full_sweep" not in {
        line.split("{")[0] for line in (await service.client.get("/metrics")).text.splitlines()
    }
    fill(stores, 10)
    before = datetime.now(UTC).timestamp()
    await asyncio.to_thread(verify_stores, stores.primary, stores.shadow)
    whole = await service.metric("shadow_verifier_full_sweep_timestamp_seconds", entity_type="Listing")
    assert before - 1 <= whole <= datetime.now(UTC).timestamp() + 1
    assert await service.metric("shadow_verifier_sweep_uncovered_ratio", entity_type="Listing") == 0
    await asyncio.to_thread(verify_stores, stores.primary, stores.shadow, options=INCREMENTAL)
    assert await service.metric("shadow_verifier_sweep_uncovered_ratio", entity_type="Listing") == 0.8
    due = await service.metric("shadow_verifier_sweep_due_timestamp_seconds", entity_type="Listing")
    assert due - whole >= 6 * 3600
    # It does not move before the sweep that goes on is through.
    again = await service.metric("shadow_verifier_full_sweep_timestamp_seconds", entity_type="Listing")
    assert again == whole
    overdue = replace(INCREMENTAL, full_every=timedelta(microseconds=1))
    await asyncio.to_thread(verify_stores, stores.primary, stores.shadow, options=overdue)
    later = await service.metric("shadow_verifier_full_sweep_timestamp_seconds", entity_type="Listing")
    assert later > whole
    # The next one has begun.
    assert await service.metric("shadow_verifier_sweep_uncovered_ratio", entity_type="Listing") == 1


def test_a_line_is_logged_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("shadowfault_api.verifier.progress.time.monotonic", lambda: now)
    with structlog.testing.capture_logs() as logged, log_progress("run-1") as tell:
        for rows in range(25):
            now += 1
            tell(Standing(rows, 100, float(rows)))
    assert [(line["event"], line["rows"], line["estimated_rows"]) for line in logged] == [
        ("verifier_progress", 9, 100),
        ("verifier_progress", 19, 100),
    ]


@pytest.mark.parametrize("database_pair", ["sqlite"], indirect=True)
def test_on_a_terminal_there_is_a_bar(stores: Stores) -> None:
    fill(stores, 10)
    status, shown, report = run_on_a_terminal(stores.pair.environment())
    assert status == 1
    assert "10/10" in shown
    assert "rows" in shown
    assert report["open"] == 1


def run_on_a_terminal(environment: dict[str, str]) -> tuple[int, str, dict[str, Any]]:
    """Run with stderr on a terminal; gives what it shows there, and the report from stdout."""
    ours, theirs = pty.openpty()
    reader, writer = os.pipe()
    process = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "shadowfault_cli", "verify", "--output", "json"],
        {**os.environ, **environment, "TERM": "xterm", "COLUMNS": "100"},
        file_actions=[(os.POSIX_SPAWN_DUP2, theirs, 2), (os.POSIX_SPAWN_DUP2, writer, 1)],
    )
    os.close(theirs)
    os.close(writer)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux's end of file of a terminal
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    with os.fdopen(reader) as stream:
        report = json.loads(stream.read())
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), shown.decode(), report


def test_a_sweep_that_is_not_through_has_never_covered_everything() -> None:
    """Statistics may be from when the table was small."""
    began = datetime.now(UTC)
    standing = SweepStanding("Listing", "run", began, None, None, 100, 20, 1, 0, began)
    assert 0 < standing.uncovered < 0.02
    assert standing._replace(parts_ended=1).uncovered == 0
