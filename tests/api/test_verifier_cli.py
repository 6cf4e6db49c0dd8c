"""`shadowfault verify` as a person and a CronJob run it: exit status, output, and what is never printed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url, text

from shadowfault_api.store.schema import job_runs
from shadowfault_api.store.urls import create_sync_engine
from shadowfault_api.verifier.lock import exclusive
from shadowfault_api.verifier.side import Side
from shadowfault_testing.commandline import shadowfault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Engine

    from shadowfault_testing.databases import DatabasePair
    from shadowfault_testing.stores import Stores

SECRET = "hunter2-in-the-url"


def test_clean_exits_0_with_a_table(stores: Stores) -> None:
    stores.put_both("id-1")
    result = shadowfault("verify", **stores.pair.environment())
    assert result.returncode == 0, result.stderr
    assert "rows in primary" in result.stdout
    assert "open now" in result.stdout
    assert result.stderr == ""


def test_discrepancies_exit_1_and_0_for_a_cronjob(stores: Stores) -> None:
    stores.put("id-1", title="PERSON GREEN")
    stores.entry("id-1", "create", 1, state="failed", failure_type="injected", experiment="staging/ten")
    result = shadowfault("verify", "--output", "json", **stores.pair.environment())
    assert result.returncode == 1
    (line,) = result.stdout.splitlines()
    report = json.loads(line)
    assert (report["open"], report["new"], report["unexplained"]) == (1, 1, 0)
    assert report["byCause"] == {"injected": 1}
    (log,) = [json.loads(entry) for entry in result.stderr.splitlines()]
    assert (log["event"], log["entity_id"], log["experiment"]) == ("discrepancy_found", "id-1", "staging/ten")
    assert "PERSON" not in result.stdout + result.stderr

    again = shadowfault("verify", "--exit-zero", "--trigger", "schedule", **stores.pair.environment())
    assert again.returncode == 0
    assert "missing_in_shadow" in again.stdout
    assert [run.trigger for run in stores.rows(job_runs)] == ["cli", "schedule"]


def test_no_schema_says_to_migrate(database_pair: DatabasePair) -> None:
    for url in (database_pair.primary, database_pair.shadow):
        engine = create_sync_engine(url)
        engine.connect().close()
        engine.dispose()
    result = shadowfault("verify", **database_pair.environment())
    assert result.returncode == 2
    assert "run the migrations" in result.stderr
    assert "primary database" in result.stderr
    assert "Traceback" not in result.stderr


def test_no_file_is_no_empty_database(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.db"
    result = shadowfault(
        "verify",
        "--exit-zero",
        DATABASE_URL=f"sqlite:///{missing}",
        SHADOW_DATABASE_URL=f"sqlite:///{tmp_path}/s.db",
    )
    assert result.returncode == 2
    assert "no such file" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://somebody:{SECRET}@127.0.0.1:1/nowhere",
        f"postgresql://somebody@127.0.0.1:1/nowhere?password={SECRET}",
        f"postgresql://somebody:{SECRET}@/nowhere?host=/no/such/folder",
        f"postgresql://somebody:{SECRET}@127.0.0.1:1/nowhere?no_such_option=1",
        f"mysql://somebody:{SECRET}@127.0.0.1/nowhere",
        f"sqlite:///:memory:?password={SECRET}",
        f"{SECRET}",
    ],
)
def test_the_password_is_never_printed(tmp_path: Path, url: str) -> None:
    shadow = f"sqlite:///{tmp_path}/s.db"
    result = shadowfault("verify", DATABASE_URL=url, SHADOW_DATABASE_URL=shadow)
    assert result.returncode == 2
    assert result.stderr.strip()
    assert SECRET not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.postgres
@pytest.mark.parametrize("database_pair", ["postgresql"], indirect=True)
def test_a_wrong_password_is_refused_without_it(stores: Stores) -> None:
    url = make_url(stores.pair.shadow).set(password=SECRET).render_as_string(hide_password=False)
    result = shadowfault("verify", DATABASE_URL=stores.pair.primary, SHADOW_DATABASE_URL=url)
    assert result.returncode == 2
    assert "cannot reach the shadow database" in result.stderr
    assert "password authentication failed" in result.stderr
    assert SECRET not in result.stderr


@pytest.mark.parametrize("database_pair", ["sqlite"], indirect=True)
def test_a_second_verifier_exits_2_and_says_why(stores: Stores) -> None:
    with exclusive(Side("primary", stores.primary, 5.0)):
        result = shadowfault("verify", "--exit-zero", **stores.pair.environment())
    assert result.returncode == 2
    assert "another verification" in result.stderr


@pytest.mark.parametrize("database_pair", ["sqlite"], indirect=True)
def test_a_finished_run_leaves_no_lock_file(stores: Stores, tmp_path: Path) -> None:
    assert shadowfault("verify", **stores.pair.environment()).returncode == 0
    assert not list(tmp_path.glob("*lock*"))


@pytest.mark.parametrize("database_pair", ["sqlite"], indirect=True)
def test_a_wrong_option_exits_2(stores: Stores) -> None:
    result = shadowfault("verify", "--chunk-size", "0", **stores.pair.environment())
    assert result.returncode == 2
    assert "--chunk-size" in result.stderr


@pytest.mark.postgres
@pytest.mark.parametrize("database_pair", ["postgresql"], indirect=True)
def test_a_user_without_rights_is_told_so(stores: Stores) -> None:
    with stores.shadow.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS bystander"))
        connection.execute(text(f"CREATE ROLE bystander LOGIN PASSWORD '{SECRET}'"))
    url = make_url(stores.pair.shadow).set(username="bystander", password=SECRET)
    result = shadowfault(
        "verify",
        DATABASE_URL=stores.pair.primary,
        SHADOW_DATABASE_URL=url.render_as_string(hide_password=False),
    )
    assert result.returncode == 2
    assert "may not read" in result.stderr


@pytest.mark.postgres
@pytest.mark.parametrize("database_pair", ["postgresql"], indirect=True)
def test_sigterm_ends_the_run_as_failed(stores: Stores) -> None:
    """A CronJob's pod that is deleted while it works."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid <> pg_backend_pid()"
    with stores.shadow.begin() as holder:
        holder.execute(text("LOCK TABLE listings IN ACCESS EXCLUSIVE MODE"))
        process = subprocess.Popen(
            [sys.executable, "-m", "shadowfault_cli", "verify"],
            env={**os.environ, **stores.pair.environment()},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        try:
            wait_until(lambda: count(stores.primary, waits) > 0)
            process.send_signal(signal.SIGTERM)
        except BaseException:
            process.kill()
            raise
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "stopped before its end" in errors
    (run,) = stores.rows(job_runs)
    assert run.state == "failed"


def count(engine: Engine, query: str) -> int:
    with engine.connect() as connection:  # a new transaction each time: the view is frozen within one
        return int(connection.execute(text(query)).scalar_one())


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
