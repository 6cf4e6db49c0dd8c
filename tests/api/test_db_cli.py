"""`shadowfault db`: what the migrations Job and the init container run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from shadowfault_api.store.cli import app
from shadowfault_testing.service import query

if TYPE_CHECKING:
    from shadowfault_testing.databases import DatabasePair
    from shadowfault_testing.postgres import PostgresServer

runner = CliRunner()


@pytest.fixture
def urls(database_pair: DatabasePair) -> dict[str, str]:
    return {"DATABASE_URL": database_pair.primary, "SHADOW_DATABASE_URL": database_pair.shadow}


def test_migrate_makes_both_schemas_and_wait_sees_it(urls: dict[str, str]) -> None:
    early = runner.invoke(app, ["wait", "--wait", "0"], env=urls)
    assert early.exit_code == 1
    assert "primary database: is not at the newest schema" in early.stderr

    assert runner.invoke(app, ["migrate", "--database", "primary"], env=urls).exit_code == 0
    assert runner.invoke(app, ["wait", "--database", "primary", "--wait", "0"], env=urls).exit_code == 0
    assert runner.invoke(app, ["wait", "--database", "shadow", "--wait", "0"], env=urls).exit_code == 1

    assert runner.invoke(app, ["migrate"], env=urls).exit_code == 0
    assert runner.invoke(app, ["wait", "--wait", "0"], env=urls).exit_code == 0
    assert query(urls["DATABASE_URL"], "SELECT * FROM evidence_records") == []


def test_settings_that_cannot_be_used_are_named_without_their_value() -> None:
    answer = runner.invoke(app, ["migrate"], env={"DATABASE_URL": "mysql://root:hunter2@db/x"})
    assert answer.exit_code == 2
    assert "DATABASE_URL" in answer.stderr
    assert "hunter2" not in answer.stderr


@pytest.mark.postgres
def test_a_database_that_is_away_is_said_without_its_password(postgres_server: PostgresServer) -> None:
    away = postgres_server.url("nowhere").replace("://", "://nobody:hunter2@", 1).split("@")
    url = f"{away[0]}@127.0.0.1:1/nowhere"
    answer = runner.invoke(app, ["migrate", "--database", "primary"], env={"DATABASE_URL": url})
    assert answer.exit_code == 1
    assert answer.stderr.startswith("primary database: OperationalError")
    assert "hunter2" not in answer.stderr


@pytest.mark.postgres
def test_a_role_that_may_only_read_waits_and_one_that_may_not_create_is_told(postgres_url: str) -> None:
    owner = {"DATABASE_URL": postgres_url}
    role = {
        "DATABASE_URL": postgres_url
        + ("&" if "?" in postgres_url else "?")
        + "options=-crole%3Dpg_read_all_data"
    }
    refused = runner.invoke(app, ["migrate", "--database", "primary"], env=role)
    assert refused.exit_code == 1
    assert "permission denied" in refused.stderr
    assert runner.invoke(app, ["migrate", "--database", "primary"], env=owner).exit_code == 0
    assert runner.invoke(app, ["wait", "--database", "primary", "--wait", "0"], env=role).exit_code == 0
    # At the newest schema there is nothing to do, which takes no right.
    assert runner.invoke(app, ["migrate", "--database", "primary"], env=role).exit_code == 0


@pytest.mark.parametrize("command", [["migrate"], ["wait", "--wait", "60"]])
def test_a_database_of_a_newer_version_is_said_in_one_line(urls: dict[str, str], command: list[str]) -> None:
    """After a rollback; waiting for it would be in vain, and so would be to migrate."""
    assert runner.invoke(app, ["migrate"], env=urls).exit_code == 0
    query(urls["DATABASE_URL"], "UPDATE alembic_version SET version_num = 'primary_9999'")
    answer = runner.invoke(app, command, env=urls)
    assert answer.exit_code == 1
    (line,) = answer.stderr.splitlines()
    assert line.startswith("the primary database is newer than this version")
    assert "primary_9999" in line
