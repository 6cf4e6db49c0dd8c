"""Passes that add up: interrupted sweeps that go on, and incremental passes against a naive comparison."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text, update

from shadowfault_api.evidence import EventType
from shadowfault_api.store.schema import (
    discrepancy_checks,
    job_runs,
    verifier_parts,
    verifier_sweeps,
)
from shadowfault_api.verifier import Mode, VerificationError, VerifierOptions, pace, passes, verify_stores
from shadowfault_api.verifier import options as options_module
from shadowfault_api.verifier.errors import TooSlowError
from shadowfault_api.verifier.side import Side
from shadowfault_api.verifier.stores import Window
from shadowfault_api.verifier.stores.postgresql import PostgresqlStore
from shadowfault_api.verifier.stores.sqlite import SqliteStore
from shadowfault_api.verifier.tables import LISTINGS
from shadowfault_testing.commandline import shadowfault
from shadowfault_testing.stores import NOW, listing_row

if TYPE_CHECKING:
    from shadowfault_api.verifier.report import VerifierReport
    from shadowfault_testing.stores import Stores

FOUND = EventType.SHADOW_WRITE_DISCREPANCY
IDS = [str(UUID(int=number * 0x1111_1111_1111)) for number in range(12)]
# Chunks of two rows; a day is long beside a test: each pass looks at one chunk of the sweep.
SMALL = VerifierOptions(
    mode=Mode.INCREMENTAL, chunk_size=2, digest_rows=2, full_every=timedelta(days=1), overlap=timedelta(0)
)


def keys(count: int) -> list[str]:
    return [str(UUID(int=number << 64)) for number in range(1, count + 1)]


def verify(stores: Stores, options: VerifierOptions = SMALL) -> VerifierReport:
    return verify_stores(stores.primary, stores.shadow, options=options)


@dataclass(frozen=True)
class Mutation:
    """A change of one key on one side or on both; one that tells moves `updated_at`, as each write does."""

    key: str
    where: str
    title: str | None
    tells: bool


MUTATIONS = st.lists(
    st.builds(
        Mutation,
        st.sampled_from(IDS),
        st.sampled_from(["primary", "shadow", "both"]),
        st.none() | st.sampled_from(["x", "y"]),
        st.booleans(),
    ),
    max_size=4,
)


class Model:
    """What both stores hold, without SQL."""

    def __init__(self, stores: Stores, titles: dict[str, str]) -> None:
        self.stores = stores
        rows = {key: listing_row(key, title=title) for key, title in titles.items()}
        self.sides = {"primary": dict(rows), "shadow": dict(rows)}
        stores.clear()
        stores.put_all(list(rows.values()))
        stores.shadow_put_all(list(rows.values()))

    def apply(self, mutation: Mutation) -> None:
        sides = ["primary", "shadow"] if mutation.where == "both" else [mutation.where]
        at = datetime.now(UTC) if mutation.tells else NOW
        for side in sides:
            remove = self.stores.remove if side == "primary" else self.stores.shadow_remove
            put = self.stores.put_all if side == "primary" else self.stores.shadow_put_all
            remove(mutation.key)
            self.sides[side].pop(mutation.key, None)
            if mutation.title is not None:
                self.sides[side][mutation.key] = listing_row(
                    mutation.key, title=mutation.title, updated_at=at
                )
                put([self.sides[side][mutation.key]])

    def naive(self) -> dict[str, str]:
        primary, shadow = self.sides["primary"], self.sides["shadow"]
        found = dict.fromkeys(primary.keys() - shadow.keys(), "missing_in_shadow")
        found |= dict.fromkeys(shadow.keys() - primary.keys(), "missing_in_primary")
        both = primary.keys() & shadow.keys()
        return found | {key: "data_mismatch" for key in both if primary[key] != shadow[key]}

    def told(self, since: datetime) -> set[str]:
        """The keys of which a row says, on either side, that it changed."""
        rows = [*self.sides["primary"].values(), *self.sides["shadow"].values()]
        return {row["id"] for row in rows if row["updated_at"] >= since}

    def open(self) -> dict[str, str]:
        return {key: kind for key, (kind, _) in self.stores.open_discrepancies().items()}


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[
        Phase.explicit,
        Phase.reuse,
        Phase.generate,
    ],  # to shrink takes minutes: the example is small anyway
)
@given(
    titles=st.dictionaries(st.sampled_from(IDS), st.sampled_from(["x", "y"]), min_size=4),
    rounds=st.lists(MUTATIONS, min_size=1, max_size=4),
)
def test_incremental_passes_find_in_the_end_what_a_naive_comparison_finds(
    stores: Stores, titles: dict[str, str], rounds: list[list[Mutation]]
) -> None:
    model = Model(stores, titles)
    with stores.primary.begin() as connection:  # the table of watermarks outlives an example
        connection.execute(discrepancy_checks.delete())
        connection.execute(verifier_sweeps.delete())
        connection.execute(verifier_parts.delete())
    assert verify(stores).mode is Mode.FULL  # the first one ever
    for mutations in rounds:
        since = datetime.now(UTC)
        for mutation in mutations:
            model.apply(mutation)
        report = verify(stores)
        assert report.mode is Mode.INCREMENTAL
        # What says that it changed is found by the very next pass, and nothing that is not so.
        naive, found = model.naive(), model.open()
        told = model.told(since)
        assert {key: naive.get(key) for key in told} == {key: found.get(key) for key in told}
        assert found.items() <= naive.items()
    last = datetime.now(UTC)
    passes = 0
    while not (report.sweep.finished and report.sweep.started_at >= last):
        passes += 1
        assert passes <= 2 * (len(IDS) + 1), "the sweep does not come round"
        report = verify(stores)
    assert model.open() == model.naive()


def test_one_chunk_at_least_and_the_whole_rest_when_it_is_overdue(stores: Stores) -> None:
    rows = [listing_row(key) for key in keys(10)]
    stores.put_all(rows)
    stores.shadow_put_all(rows)
    verify(stores)
    first = verify(stores)
    assert (first.scanned_primary, first.sweep.finished, first.changed_keys) == (2, False, 0)
    with stores.primary.begin() as connection:  # half of the time is over: half of the rows are due
        connection.execute(update(verifier_sweeps).values(started_at=datetime.now(UTC) - timedelta(hours=12)))
    second = verify(stores)
    assert second.sweep.rows in range(5, 10)  # to the end of a chunk
    assert second.sweep.id == first.sweep.id
    with stores.primary.begin() as connection:
        connection.execute(update(verifier_sweeps).values(started_at=datetime.now(UTC) - timedelta(hours=30)))
    third = verify(stores)
    assert (third.sweep.id, third.sweep.finished, third.sweep.rows) == (first.sweep.id, True, 10)
    # The next one begins at once, and the one that is through is remembered.
    through, going_on = sorted(stores.rows(verifier_sweeps), key=lambda row: row.finished_at is None)
    assert through.id == third.sweep.id
    assert going_on.due_at - going_on.started_at == timedelta(days=1)


def test_full_every_0_is_a_full_pass_each_time(stores: Stores) -> None:
    for key in keys(5):
        stores.put_both(key)
    for _ in range(2):
        report = verify(stores, replace(SMALL, full_every=timedelta(0)))
        assert (report.mode, report.scanned_primary, report.sweep.finished) == (Mode.FULL, 5, True)


def test_what_was_in_flight_is_looked_at_again(stores: Stores) -> None:
    """Its row says that it changed before the pass that left it out, and does not change again."""
    subject, *others = keys(20)
    rows = [listing_row(key) for key in (subject, *others)]
    stores.put_all(rows)
    stores.shadow_put_all(rows)
    verify(stores)
    while not verify(stores).sweep.rows > 2:  # the sweep is beyond the subject, the first of all
        pass
    at = datetime.now(UTC)
    stores.change(subject, title="new", version=2, updated_at=at)
    stores.entry(subject, "update", 2, created_at=at)
    assert verify(stores).in_flight == 1
    stores.settle(subject)
    stores.shadow_change(subject, title="mangled", version=2, updated_at=at)
    assert verify(stores).new == 1
    assert verify(stores).changed_keys == 0


def test_a_failed_write_is_looked_at_whatever_its_row_says(stores: Stores) -> None:
    rows = [listing_row(key) for key in keys(9)]
    stores.put_all(rows[:-1])
    stores.shadow_put_all(rows)
    stores.shadow_remove(rows[-1]["id"])
    verify(stores)
    stores.put_all([rows[-1]])  # of long ago, by its own account
    stores.entry(rows[-1]["id"], "create", 1, state="failed", failure_type="injected")
    report = verify(stores)
    assert (report.changed_keys, report.by_cause) == (1, {"injected": 1})


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("slow", [False, True])
def test_of_many_that_changed_alike_the_one_that_did_not_is_found(
    stores: Stores, at_once: bool, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [listing_row(key) for key in keys(60)]
    stores.put_all(rows)
    stores.shadow_put_all(rows)
    verify(stores)
    now = datetime.now(UTC)
    for number, row in enumerate(rows[20:]):
        at = now if at_once else now + timedelta(seconds=number)
        stores.change(row["id"], title="new", updated_at=at)
        stores.shadow_change(row["id"], title="new", updated_at=at)
    subject = rows[47]["id"]
    stores.shadow_change(subject, title="mangled")
    if slow:  # then the keys are read, and none is passed over
        for store in (PostgresqlStore, SqliteStore):
            monkeypatch.setattr(store, "digest_changed", _too_slow)
    report = verify(stores)
    assert (report.changed_keys, report.new) == (40, 1)
    assert stores.open_discrepancies().keys() == {subject}


def _too_slow(_store: object, _window: Window) -> None:
    raise TooSlowError


def test_a_tombstone_tells_too(stores: Stores) -> None:
    rows = [listing_row(key) for key in keys(9)]
    stores.put_all(rows)
    stores.shadow_put_all(rows)
    verify(stores)
    at = datetime.now(UTC)
    stores.shadow_change(
        rows[-1]["id"], title=None, price=None, created_at=None, updated_at=at, deleted_at=at, version=2
    )
    report = verify(stores)
    assert (report.changed_keys, report.by_type) == (1, {"missing_in_shadow": 1})


def test_a_pass_that_finds_a_key_twice_counts_it_once(stores: Stores) -> None:
    """By its row that says it changed, and in the piece of the sweep."""
    for key in keys(2):
        stores.put_both(key)
    verify(stores)
    stores.change(keys(1)[0], title="new", updated_at=datetime.now(UTC))
    report = verify(stores)
    assert report.scanned_primary == 2
    assert (report.new, report.persisting, report.open) == (1, 0, 1)
    again = verify(stores)
    assert (again.new, again.persisting) == (0, 1)


def test_a_pass_that_fails_keeps_the_watermark(stores: Stores) -> None:
    for key in keys(4):
        stores.put_both(key)
    verify(stores)
    stores.change(keys(4)[-1], title="new", updated_at=datetime.now(UTC))
    stopping = Event()
    stopping.set()
    with pytest.raises(VerificationError):
        verify(stores, replace(SMALL, stopping=stopping))
    assert verify(stores).changed_keys == 1


class StopAfter:
    """Stops a run after so many chunks."""

    def __init__(self, chunks: int) -> None:
        self.stopping = Event()
        self._left = chunks

    def __call__(self, _run_id: str) -> Any:
        from contextlib import nullcontext  # noqa: PLC0415

        return nullcontext(self._told)

    def _told(self, _standing: object) -> None:
        self._left -= 1
        if not self._left:
            self.stopping.set()


FULL = VerifierOptions(chunk_size=2, digest_rows=2)


@pytest.fixture
def interrupted(stores: Stores) -> None:
    """Twenty rows, every third only in the primary, and a full pass that was stopped after two chunks."""
    rows = [listing_row(key) for key in keys(20)]
    stores.put_all(rows)
    stores.shadow_put_all([row for number, row in enumerate(rows) if number % 3])
    stop = StopAfter(2)
    with pytest.raises(VerificationError, match="stopped before its end"):
        verify(stores, replace(FULL, stopping=stop.stopping, progress=stop))


@pytest.mark.usefixtures("interrupted")
def test_a_stopped_sweep_goes_on(stores: Stores) -> None:
    (part,) = stores.rows(verifier_parts)
    assert 0 < part.rows_looked_at < 20
    report = verify(stores, replace(FULL, resume=True))
    assert report.sweep.resumed
    assert report.sweep.finished
    assert (report.scanned_primary, report.scanned_shadow) == (20, 13)
    assert (report.new, report.persisting, report.open) == (7, 0, 7)
    assert len(stores.evidence(FOUND)) == 7
    (sweep,) = stores.rows(verifier_sweeps)
    assert sweep.started_at < report.started_at
    assert sweep.finished_at is not None
    assert [run.state for run in stores.rows(job_runs)] == ["failed", "succeeded"]


def test_a_stopped_sweep_in_which_nothing_differs_goes_on_too(stores: Stores) -> None:
    rows = [listing_row(key) for key in keys(20)]
    stores.put_all(rows)
    stores.shadow_put_all(rows)
    stop = StopAfter(2)
    with pytest.raises(VerificationError, match="stopped before its end"):
        verify(stores, replace(FULL, stopping=stop.stopping, progress=stop))
    (part,) = stores.rows(verifier_parts)
    assert 0 < part.rows_looked_at < 20
    assert verify(stores, replace(FULL, resume=True)).scanned_primary == 20


@pytest.mark.usefixtures("interrupted")
def test_without_resume_it_begins_anew(stores: Stores) -> None:
    report = verify(stores, FULL)
    assert not report.sweep.resumed
    assert (report.scanned_primary, report.new + report.persisting) == (20, 7)
    assert len(stores.rows(verifier_parts)) == 1


@pytest.mark.usefixtures("interrupted")
def test_an_incremental_first_pass_goes_on_too(stores: Stores) -> None:
    report = verify(stores)
    assert (report.mode, report.sweep.resumed, report.scanned_primary) == (Mode.FULL, True, 20)
    # What changed since that sweep began is what the next one begins with, not since it was resumed.
    (check,) = stores.rows(discrepancy_checks)
    assert check.watermark is None
    stores.change(keys(1)[0], title="new", updated_at=report.sweep.started_at)
    assert verify(stores).changed_keys == 1


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize("database_pair", ["sqlite"], indirect=True)
def test_the_command_line_says_whether_it_goes_on(stores: Stores) -> None:
    for expected in ("sweep_resumed", "no_sweep_to_resume"):
        result = shadowfault("verify", "--resume", "--output", "json", **stores.pair.environment())
        assert result.returncode == 1, result.stderr
        assert expected in result.stderr
        assert json.loads(result.stdout)["sweep"]["resumed"] is (expected == "sweep_resumed")


@pytest.mark.parametrize("database_pair", ["sqlite"], indirect=True)
def test_the_command_line_refuses_what_makes_no_sense(stores: Stores) -> None:
    for arguments, said in (
        (("--mode", "incremental", "--resume"), "for a full pass"),
        (("--full-every", "tomorrow"), "no duration"),
        (("--rows-per-second", "0"), "--rows-per-second"),
    ):
        result = shadowfault("verify", *arguments, **stores.pair.environment())
        assert result.returncode == 2
        assert said in " ".join(result.stderr.split())


def test_a_killed_sweep_leaves_no_row_unlooked_and_enters_nothing_twice(stores: Stores) -> None:
    total = 1500
    rows = [listing_row(key) for key in keys(total)]
    stores.put_all(rows)
    stores.shadow_put_all([row for number, row in enumerate(rows) if number % 50])
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "shadowfault_cli",
            "verify",
            "--rows-per-second",
            "500",
            "--chunk-size",
            "100",
        ],
        env={**os.environ, **stores.pair.environment()},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (looked_at := rows_looked_at(stores)):
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < looked_at < total
    while True:  # PostgreSQL notices the death of a client a moment later; the test has a time limit
        result = shadowfault("verify", "--resume", "--output", "json", **stores.pair.environment())
        if "another verification" not in result.stderr:
            break
    assert result.returncode == 1, result.stderr
    report = json.loads(result.stdout)
    assert report["sweep"]["resumed"]
    assert report["scanned"] == {"primary": total, "shadow": total - 30}
    assert report["new"] + report["persisting"] == 30
    assert sorted(record.entity_id for record in stores.evidence(FOUND)) == sorted(
        row["id"] for row in rows[::50]
    )


def rows_looked_at(stores: Stores) -> int:
    with stores.primary.connect() as connection:
        return connection.execute(select(func.sum(verifier_parts.c.rows_looked_at))).scalar() or 0


@pytest.mark.postgres
@pytest.mark.parametrize("database_pair", ["postgresql"], indirect=True)
def test_changed_rows_are_found_by_the_index_on_every_page(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        listing_row(key, updated_at=NOW + timedelta(seconds=number)) for number, key in enumerate(keys(5000))
    ]
    stores.put_all(rows)
    with stores.primary.begin() as connection:
        connection.execute(text("ANALYZE listings"))
    store = PostgresqlStore(Side("primary", stores.primary, 5.0), LISTINGS)
    asked: list[tuple[str, dict[str, object]]] = []
    fetch = store._fetch

    def noted(query: str, bound: dict[str, object]) -> Any:
        asked.append((query, bound))
        return fetch(query, bound)

    monkeypatch.setattr(store, "_fetch", noted)
    since = NOW + timedelta(seconds=4000)
    window = Window(since)
    page = store.changed(window, None, 10)
    assert [row.key for row in page + store.changed(window, page[-1], 10)] == [
        (row["id"],) for row in rows[4000:4020]
    ]
    assert store.digest_changed(Window(since, since + timedelta(seconds=50))).rows == 50
    pages = [(query, bound) for query, bound in asked if "updated_at" in query]
    assert len(pages) == 3
    for query, bound in pages:
        with stores.primary.begin() as connection:
            plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {query}", bound).scalars())
        assert "ix_listings_updated_at_id" in plan
        assert "Index Cond" in plan
        assert "Sort" not in plan
        assert "Filter" not in plan


def test_a_limit_of_rows_holds_for_whatever_they_are_read_for(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DBA sets it: for digests, a row's own digest, the looks at suspects and what is open."""
    now = [0.0]

    def rest(seconds: float, *_: object) -> None:
        now[0] += seconds

    monkeypatch.setattr(pace, "monotonic", lambda: now[0])
    monkeypatch.setattr(options_module, "rest", rest)
    stores.put_all([listing_row(key) for key in keys(100)])
    slow = VerifierOptions(rows_per_second=10)
    assert verify(stores, slow).new == 100
    # Each row of the primary once for its chunk, once for itself, once as a suspect.
    assert now[0] >= 3 * 100 / 10 - 2
    began = now[0]
    assert verify(stores, replace(slow, mode=Mode.INCREMENTAL)).persisting == 100
    assert now[0] - began >= 100 / 10 - 2


def test_an_incremental_pass_looks_at_so_many_open_ones_at_a_time_in_turn(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "_MOST_KNOWN", 4)
    for key in keys(10):
        stores.put(key, updated_at=NOW)
        verify(stores, FULL)  # one after the other
    for key in keys(10):
        stores.shadow_put(key)
    left = 10
    while left:
        report = verify(stores)
        # Two more by the piece of the sweep.
        assert 0 < report.resolved <= 4 + 1 + 2
        left -= report.resolved
        assert report.open == left


def test_a_sweep_that_is_resumed_looks_at_what_changed_behind_its_cursor(stores: Stores) -> None:
    """The rotating sweep of incremental passes is one that can be resumed; it may have begun long ago."""
    some = keys(12)
    for name in some:
        stores.put_both(name)
    verify(stores, VerifierOptions())
    for _ in range(3):
        verify(stores)
    first = some[0]
    stores.change(first, title="changed", version=2, updated_at=datetime.now(UTC))
    report = verify(stores, replace(SMALL, mode=Mode.FULL, resume=True))
    assert report.sweep.resumed
    assert (report.clean, report.open, report.new) == (False, 1, 1)


def test_a_sweep_dated_by_a_clock_that_was_ahead_blinds_no_later_pass(stores: Stores) -> None:
    for name in keys(4):
        stores.put_both(name)
    verify(stores, VerifierOptions())
    verify(stores)
    ahead = datetime.now(UTC) + timedelta(days=2)
    with stores.primary.begin() as connection:
        connection.execute(update(verifier_sweeps).values(watermark=ahead, started_at=ahead))
        connection.execute(update(discrepancy_checks).values(watermark=ahead))
    stores.change(keys(1)[0], title="changed", version=2, updated_at=datetime.now(UTC))
    report = verify(stores, replace(SMALL, overlap=timedelta(minutes=5)))
    assert report.open == 1
    with stores.primary.connect() as connection:
        begun = connection.execute(
            select(verifier_sweeps.c.started_at).where(verifier_sweeps.c.finished_at.is_(None))
        ).scalar_one()
    assert begun <= datetime.now(UTC), "the one in the future has made way"
