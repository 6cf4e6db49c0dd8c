"""Processes that share one pass: one result, as of one verifier, also where one of them is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import select

from shadowfault_api.evidence import EventType
from shadowfault_api.store.schema import discrepancies, job_runs, verifier_parts, verifier_sweeps
from shadowfault_api.verifier import Mode, VerificationError, VerifierOptions, verify_stores
from shadowfault_api.verifier.errors import AlreadyRunningError, ShardError
from shadowfault_api.verifier.lock import PartLocks, exclusive, shared
from shadowfault_api.verifier.report import ShardReport, VerifierReport
from shadowfault_api.verifier.shards import Shard, _Sharded, verify_shard
from shadowfault_api.verifier.side import Side
from shadowfault_testing.commandline import shadowfault
from shadowfault_testing.stores import listing_row

if TYPE_CHECKING:
    from shadowfault_testing.service import Service
    from shadowfault_testing.stores import Stores

RUN = "01890000-0000-7000-8000-0000000a11ed"
SMALL = VerifierOptions(chunk_size=4, digest_rows=4)
on_postgresql = pytest.mark.parametrize(
    "database_pair", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True
)


def fill(stores: Stores, total: int, every: int) -> list[str]:
    """Equal stores, but that every so many rows is missing in the shadow; gives the keys of these."""
    rows = [listing_row(str(UUID(int=number << 64))) for number in range(1, total + 1)]
    stores.put_all(rows)
    stores.shadow_put_all([row for number, row in enumerate(rows) if number % every])
    return [row["id"] for row in rows[::every]]


def run(
    stores: Stores,
    number: int,
    count: int = 3,
    run_id: str = RUN,
    options: VerifierOptions = SMALL,
) -> ShardReport | VerifierReport:
    return verify_shard(stores.primary, stores.shadow, Shard(number, count, run_id), options=options)


INCREMENTAL = replace(SMALL, mode=Mode.INCREMENTAL, full_every=timedelta(days=1))


@on_postgresql
def test_shards_one_after_the_other_have_disjoint_parts_and_one_result(stores: Stores) -> None:
    missing = fill(stores, 30, 7)
    reports = [run(stores, number) for number in (2, 0)]
    assert [job.state for job in stores.rows(job_runs)] == ["running"]
    assert all(isinstance(report, ShardReport) and report.tally for report in reports)
    again = run(stores, 2)
    assert isinstance(again, ShardReport)
    assert again.tally is None  # its part is done
    merged = run(stores, 1)
    assert isinstance(merged, VerifierReport)
    assert (merged.scanned_primary, merged.scanned_shadow) == (30, 30 - len(missing))
    assert (merged.new, merged.persisting, merged.open) == (len(missing), 0, len(missing))
    assert (merged.sweep.parts, merged.sweep.finished) == (3, True)
    spans = [(part.after_key, part.upto_key) for part in stores.rows(verifier_parts)]
    assert spans[0][0] is None
    assert spans[-1][1] is None
    assert [span[1] for span in spans[:-1]] == [span[0] for span in spans[1:]]
    assert [part.rows_primary for part in stores.rows(verifier_parts)] == [10, 10, 10]
    (job,) = stores.rows(job_runs)
    assert (job.id, job.state, job.result) == (RUN, "succeeded", merged.as_dict())
    late = run(stores, 0)
    assert isinstance(late, ShardReport)
    assert len(stores.rows(job_runs)) == 1


@on_postgresql
def test_a_shard_that_leaves_when_all_is_merged_merges_nothing(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its part is done; before it asks whether it was the last, the others come to the end, and end."""
    fill(stores, 30, 7)
    others: list[ShardReport | VerifierReport] = []

    together = _Sharded._together

    def held_up(shard: _Sharded, work: Any) -> Any:
        if shard._shard.number == 0 and work.__name__ == "_leave":
            others.extend(run(stores, number) for number in (1, 2))
        return together(shard, work)

    monkeypatch.setattr(_Sharded, "_together", held_up)
    assert isinstance(run(stores, 0), ShardReport)
    assert [type(report) for report in others] == [ShardReport, VerifierReport]
    (job,) = stores.rows(job_runs)
    assert (job.state, job.result) == ("succeeded", others[-1].as_dict())


@on_postgresql
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_more_shards_than_rows(stores: Stores, rows: int) -> None:
    fill(stores, rows, 1)
    reports = [run(stores, number) for number in range(3)]
    whole = [report for report in reports if isinstance(report, VerifierReport)]
    assert len(whole) == 1
    assert (whole[0].scanned_primary, whole[0].open) == (rows, rows)


@on_postgresql
def test_the_side_that_has_more_is_cut(stores: Stores) -> None:
    rows = [listing_row(str(UUID(int=number << 64))) for number in range(1, 31)]
    stores.shadow_put_all(rows)
    for number in range(3):
        run(stores, number)
    assert [part.rows_shadow for part in stores.rows(verifier_parts)] == [10, 10, 10]


@on_postgresql
def test_an_unsharded_verifier_and_shards_exclude_each_other(stores: Stores) -> None:
    side = Side("primary", stores.primary, 5.0)
    with exclusive(side), pytest.raises(AlreadyRunningError):
        run(stores, 0)
    with shared(side), pytest.raises(AlreadyRunningError):
        verify_stores(stores.primary, stores.shadow)
    assert stores.rows(job_runs) == []
    assert verify_stores(stores.primary, stores.shadow).clean


@on_postgresql
def test_two_sharded_runs_exclude_each_other(stores: Stores) -> None:
    fill(stores, 9, 2)
    run(stores, 0)
    with shared(Side("primary", stores.primary, 5.0)) as locks:
        assert locks.claim(1)  # a shard of that run is at work
        with pytest.raises(AlreadyRunningError, match="shards of another verification"):
            run(stores, 0, run_id="another")
    assert isinstance(run(stores, 0, run_id="another"), ShardReport)
    with pytest.raises(ShardError, match="another verification has begun since"):
        run(stores, 1)


@on_postgresql
def test_shards_that_do_not_fit_are_refused(stores: Stores) -> None:
    fill(stores, 9, 2)
    run(stores, 0)
    with pytest.raises(ShardError, match="has 3 shards"):
        run(stores, 0, count=4)


@on_postgresql
def test_whoever_died_while_it_put_the_parts_together_is_followed_by_another(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = fill(stores, 12, 5)
    run(stores, 0)
    run(stores, 1)
    with monkeypatch.context() as patch:
        patch.setattr("shadowfault_api.verifier.runs.succeed", _die)
        with pytest.raises(KeyboardInterrupt):
            run(stores, 2)
    with shared(Side("primary", stores.primary, 5.0)) as locks:
        assert locks.claim(PartLocks.MERGE)  # while that goes on nobody else does it
        assert isinstance(run(stores, 2), ShardReport)
    merged = run(stores, 2)
    assert isinstance(merged, VerifierReport)
    assert (merged.new, merged.open) == (len(missing), len(missing))
    assert [job.state for job in stores.rows(job_runs)] == ["succeeded"]


def _die(*_args: object, **_options: object) -> None:
    raise KeyboardInterrupt


@on_postgresql
async def test_shards_at_work_are_a_run_at_work(service: Service, stores: Stores) -> None:
    """And one whose shards are gone has failed, until one is started again."""
    fill(stores, 9, 2)
    run(stores, 0)
    with stores.primary.begin() as connection:  # long ago, and not just entered
        connection.execute(job_runs.update().values(started_at=listing_row("x")["created_at"]))
    with shared(Side("primary", stores.primary, 5.0)):
        (job,) = (await service.client.get("/api/admin/jobs")).json()
    assert (job["running"], job["lastRuns"][0]["progress"]["partsEnded"]) == (True, 1)
    (job,) = (await service.client.get("/api/admin/jobs")).json()
    assert (job["running"], job["lastRuns"][0]["state"]) == (False, "failed")
    run(stores, 1)
    run(stores, 2)
    (job,) = (await service.client.get("/api/admin/jobs")).json()
    assert [one["state"] for one in job["lastRuns"]] == ["succeeded"]


@on_postgresql
def test_until_the_sweep_is_due_one_shard_looks_at_what_changed(stores: Stores) -> None:
    missing = fill(stores, 30, 7)
    first = [run(stores, number, options=INCREMENTAL) for number in range(3)][-1]
    assert isinstance(first, VerifierReport)
    assert (first.mode, first.scanned_primary) == (Mode.FULL, 30)  # there was no sweep yet
    stores.change(missing[0], title="new", updated_at=datetime.now(UTC))
    alone = run(stores, 1, run_id="second", options=INCREMENTAL)
    assert isinstance(alone, VerifierReport)
    assert (alone.mode, alone.changed_keys, alone.scanned_primary) == (Mode.INCREMENTAL, 1, 0)
    assert (alone.persisting, alone.open, alone.sweep.id) == (len(missing), len(missing), first.sweep.id)
    for number in range(3):
        report = run(stores, number, run_id="second", options=INCREMENTAL)
        assert isinstance(report, ShardReport)
        assert report.tally is None
    assert [job.state for job in stores.rows(job_runs)] == ["succeeded", "succeeded"]
    due = replace(INCREMENTAL, full_every=timedelta(microseconds=1))
    last = [run(stores, number, run_id="third", options=due) for number in range(3)][-1]
    assert isinstance(last, VerifierReport)
    assert (last.mode, last.scanned_primary, last.persisting) == (Mode.FULL, 30, len(missing))


@on_postgresql
def test_a_shard_that_died_alone_is_followed_by_another(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(stores, 9, 2)
    for number in range(3):
        run(stores, number)
    with monkeypatch.context() as patch:
        patch.setattr("shadowfault_api.verifier.runs.succeed", _die)
        with pytest.raises(KeyboardInterrupt):
            run(stores, 0, run_id="second", options=INCREMENTAL)
    with shared(Side("primary", stores.primary, 5.0)) as locks:
        assert locks.claim(PartLocks.ALONE)
        assert isinstance(run(stores, 1, run_id="second", options=INCREMENTAL), ShardReport)
    assert isinstance(run(stores, 1, run_id="second", options=INCREMENTAL), VerifierReport)


@on_postgresql
def test_the_next_run_goes_on_with_the_sweep_of_one_that_was_given_up(stores: Stores) -> None:
    missing = fill(stores, 30, 7)
    run(stores, 0, options=INCREMENTAL)
    begun = stores.rows(verifier_sweeps)[0].started_at
    reports = [run(stores, number, run_id="second", options=INCREMENTAL) for number in range(3)]
    assert isinstance(reports[0], ShardReport)
    assert reports[0].tally is None  # its part was done
    merged = reports[-1]
    assert isinstance(merged, VerifierReport)
    assert (merged.sweep.started_at, merged.sweep.resumed) == (begun, True)
    assert (merged.scanned_primary, merged.new, merged.open) == (30, len(missing), len(missing))
    with pytest.raises(ShardError, match="another verification has begun since"):
        run(stores, 1, options=INCREMENTAL)


@pytest.mark.parametrize("database_pair", ["sqlite"], indirect=True)
def test_on_sqlite_shards_are_refused(stores: Stores) -> None:
    with pytest.raises(VerificationError, match="shards need PostgreSQL"):
        run(stores, 0)
    result = shadowfault(
        "verify", "--shards", "2", "--shard", "0", "--run-id", "r", **stores.pair.environment()
    )
    assert (result.returncode, "shards need PostgreSQL" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--shards", "2"), "which shard is it?"),
        (("--shards", "2", "--shard", "0"), "which run is it?"),
        (("--shards", "2", "--shard", "2", "--run-id", "r"), "there is no number 2"),
        (("--shards", "2", "--shard", "0", "--run-id", "r" * 37), "1 to 36 characters"),
        (("--shards", "2", "--shard", "0", "--run-id", "r", "--resume"), "go on by themselves"),
    ],
)
def test_what_a_shard_must_know(arguments: tuple[str, ...], said: str) -> None:
    result = shadowfault("verify", *arguments)
    assert (result.returncode, said in result.stderr) == (2, True), result.stderr


@on_postgresql
def test_three_processes_one_of_them_killed_and_started_again(stores: Stores) -> None:
    total = 1500
    missing = fill(stores, total, 50)
    with ExitStack() as stack:
        victim = stack.enter_context(shard_process(stores, 1, rows_per_second=400))
        deadline = time.monotonic() + 60
        while not looked_at(stores, 1):
            assert victim.poll() is None
            assert time.monotonic() < deadline
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        assert 0 < looked_at(stores, 1) < total // 3
        before = looked_at(stores, 1)
        shards = [stack.enter_context(shard_process(stores, number)) for number in range(3)]
        outputs = [process.communicate(timeout=120) for process in shards]
    documents = [json.loads(output) for output, _ in outputs]
    merged = [document for document in documents if "open" in document]
    # Only the merged result says that there are discrepancies.
    assert sorted(process.returncode for process in shards) == [0, 0, 1], "\n".join(map("\n".join, outputs))
    assert len(merged) == 1
    assert [
        process.returncode for process, document in zip(shards, documents, strict=True) if "open" in document
    ] == [1]
    (job,) = stores.rows(job_runs)
    assert (job.id, job.state, job.trigger, job.result) == (RUN, "succeeded", "schedule", merged[0])
    found = sorted(record.entity_id for record in stores.evidence(EventType.SHADOW_WRITE_DISCREPANCY))
    assert found == missing
    (sweep,) = stores.rows(verifier_sweeps)
    assert sweep.finished_at is not None
    parts = stores.rows(verifier_parts)
    assert sum(part.rows_primary for part in parts) == total
    assert before < parts[1].rows_primary
    # The same as one verifier alone finds.
    alone = verify_stores(stores.primary, stores.shadow).as_dict()
    assert merged[0]["new"] + merged[0]["persisting"] == alone["persisting"] == len(missing)
    for member in ("scanned", "open", "unexplained", "byType", "byCause", "inFlight", "mode"):
        assert merged[0][member] == alone[member]
    with stores.primary.connect() as connection:
        assert len(connection.execute(select(discrepancies)).all()) == len(missing)


def looked_at(stores: Stores, number: int) -> int:
    query = select(verifier_parts.c.rows_looked_at).where(verifier_parts.c.number == number)
    with stores.primary.connect() as connection:
        return connection.execute(query).scalar() or 0


def shard_process(stores: Stores, number: int, rows_per_second: int | None = None) -> subprocess.Popen[str]:
    """As a pod of the CronJob's Indexed Job is started."""
    limit = ["--rows-per-second", str(rows_per_second)] if rows_per_second else []
    variables: dict[str, Any] = {"JOB_COMPLETION_INDEX": str(number), "VERIFIER_RUN_ID": RUN}
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "shadowfault_cli", "verify", "--trigger", "schedule", "--shards", "3"),
            *("--chunk-size", "50", "--output", "json", *limit),
        ],
        env={**os.environ, **stores.pair.environment(), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
