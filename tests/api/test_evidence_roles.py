"""What each role may do with evidence, on PostgreSQL, asked of the server as that role."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import DBAPIError, ProgrammingError
from typer.testing import CliRunner

from shadowfault_api.evidence.audit import verify_database
from shadowfault_api.evidence.sealer import Sealer
from shadowfault_api.evidence.verification import Expectations
from shadowfault_api.store.cli import app
from shadowfault_api.store.migrate import migrate
from shadowfault_api.store.urls import create_sync_engine
from shadowfault_testing.databases import DatabasePair, postgresql_pair
from shadowfault_testing.evidence import insert_known
from shadowfault_testing.service import query, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shadowfault_testing.postgres import PostgresServer

pytestmark = pytest.mark.postgres
runner = CliRunner()
_names = itertools.count(1)
EVIDENCE = ("evidence_records", "evidence_seals", "evidence_leaves")
CHANGES = ("UPDATE {} SET head = head", "DELETE FROM {}", "TRUNCATE {}", "DROP TABLE {}")


@pytest.fixture
def pair(postgres_server: PostgresServer) -> Iterator[DatabasePair]:
    with postgresql_pair(postgres_server) as pair:
        migrate(pair.primary, "primary")
        migrate(pair.shadow, "shadow")
        yield pair


@pytest.fixture
def role(pair: DatabasePair) -> Iterator[Callable[[str], DatabasePair]]:
    """Make a role with a duty; gives the pair as that role sees it."""
    made: list[str] = []

    def make(duty: str) -> DatabasePair:
        name = f"role {next(_names)}"
        query(pair.primary, f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'secret'")
        made.append(name)
        done = runner.invoke(app, ["grant", name, "--for", duty], env=pair.environment())
        assert done.exit_code == 0, done.output
        urls = [
            make_url(url).set(username=name, password="secret").render_as_string(hide_password=False)
            for url in (pair.primary, pair.shadow)
        ]
        return DatabasePair(urls[0], urls[1], "postgresql")

    yield make
    for name in made:
        for url in (pair.primary, pair.shadow):
            query(url, f'DROP OWNED BY "{name}"')
        query(pair.primary, f'DROP ROLE "{name}"')


def sql_state(url: str, statement: str) -> str | None:
    """What the server says to this."""
    try:
        query(url, statement)
    except DBAPIError as error:
        return str(getattr(error.orig, "sqlstate", None))
    return None


@pytest.mark.parametrize("duty", ["service", "service-without-sealer", "sealer", "auditor"])
def test_nobody_may_change_evidence(
    role: Callable[[str], DatabasePair], pair: DatabasePair, duty: str
) -> None:
    url = role(duty).primary
    partitions = [
        row["name"]
        for row in query(
            pair.primary,
            "SELECT inhrelid::regclass::text AS name FROM pg_inherits "
            "WHERE inhparent = 'evidence_records'::regclass ORDER BY 1",
        )
    ]
    assert len(partitions) >= 5
    for table in (*EVIDENCE, *partitions):
        for change in CHANGES:
            column = "head" if table == "evidence_seals" else "content_hash"
            statement = change.format(table).replace("head", column)
            # 42501 is refused by privilege: no trigger was asked.
            assert sql_state(url, statement) == "42501", statement
    assert sql_state(url, "ALTER TABLE evidence_records DISABLE TRIGGER ALL") == "42501"
    assert sql_state(url, "SET session_replication_role = replica") == "42501"


async def test_the_service_serves_and_seals_with_the_rights_of_its_role(
    role: Callable[[str], DatabasePair],
) -> None:
    own = role("service")
    async with running(own, {"fail_rate": "1"}, evidence_seal_seconds=0) as service:
        listing = await service.create()
        await service.settled()
        assert (await service.client.get(f"/api/listings/{listing['id']}")).status_code == 200
        assert (await service.client.delete(f"/api/listings/{listing['id']}")).status_code == 204
        await service.settled()
    with disposed(own.primary) as engine:
        sealer = Sealer(engine, None)
        sealer.prepare_months()
        assert [seal.size for seal in sealer.seal_all()] == [2]


class disposed:  # noqa: N801 - used as a function
    """An engine for one block."""

    def __init__(self, url: str) -> None:
        self._engine = create_sync_engine(url)

    def __enter__(self) -> Engine:
        return self._engine

    def __exit__(self, *_exception: object) -> None:
        self._engine.dispose()


def test_sealing_and_writing_may_be_two_roles(role: Callable[[str], DatabasePair]) -> None:
    writes, seals, reads = (role(duty).primary for duty in ("service-without-sealer", "sealer", "auditor"))
    with disposed(writes) as engine:
        with engine.begin() as connection:
            insert_known(connection, [1])
        with pytest.raises(ProgrammingError):
            Sealer(engine, None).seal_all()
    with disposed(seals) as engine:
        assert [seal.size for seal in Sealer(engine, None).seal_all()] == [1]
        with pytest.raises(ProgrammingError), engine.begin() as connection:
            insert_known(connection, [2])
    with disposed(reads) as engine:
        assert verify_database(engine, Expectations()).records == 1
    assert sql_state(reads, "SELECT * FROM listings") == "42501"
    assert sql_state(seals, "SELECT * FROM listings") == "42501"


@pytest.mark.parametrize("duty", ["service", "service-without-sealer"])
def test_who_writes_a_record_does_not_say_when_it_is_sealed(
    role: Callable[[str], DatabasePair], duty: str
) -> None:
    url = role(duty).primary
    values = "'a', now(), 'c', 'c', 'e', 'o', 't', 'i', '{}', 'h'"
    columns = (
        "id, occurred_at, control_id, category, event_type, event_outcome, entity_type, entity_id,"
        " details, content_hash"
    )
    insert = "INSERT INTO evidence_records ({}) VALUES ({})"
    assert sql_state(url, insert.format(f"{columns}, txid", f"{values}, 1")) == "42501"
    for never in ("infinity", "-infinity", "12000-01-01", "0044-03-15 BC"):
        assert sql_state(url, insert.format(columns, values.replace("now()", f"'{never}'"))) == "23514"
    assert sql_state(url, insert.format(columns, values)) is None


def test_what_default_privileges_gave_is_taken(
    pair: DatabasePair, role: Callable[[str], DatabasePair]
) -> None:
    url = role("auditor").primary
    name = make_url(url).username
    query(pair.primary, f'GRANT ALL ON evidence_records, evidence_seals, evidence_leaves TO "{name}"')
    assert sql_state(url, "DELETE FROM evidence_seals WHERE false") is None
    assert runner.invoke(app, ["grant", str(name), "--for", "auditor"], env=pair.environment()).exit_code == 0
    assert sql_state(url, "DELETE FROM evidence_seals WHERE false") == "42501"


def test_a_role_no_revoke_binds_is_not_taken(pair: DatabasePair) -> None:
    owner = str(make_url(pair.primary).username)
    for name, why in ((owner, "superuser"), ("nobody at all", "there is no role")):
        answer = runner.invoke(app, ["grant", name], env=pair.environment())
        assert answer.exit_code == 1
        assert why in answer.stderr


def test_the_statements_can_be_read_before() -> None:
    answer = runner.invoke(app, ["grant", 'a"b', "--print", "--database", "primary"])
    assert answer.exit_code == 0
    assert 'GRANT INSERT ("id", "occurred_at", ' in answer.stdout
    assert "txid" not in answer.stdout
    assert "UPDATE" not in "".join(line for line in answer.stdout.splitlines() if "evidence" in line)


def test_sqlite_has_no_roles(tmp_path_factory: pytest.TempPathFactory) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'x.db'}"
    answer = runner.invoke(app, ["grant", "app"], env={"DATABASE_URL": url})
    assert (answer.exit_code, "SQLite has no roles" in answer.stderr) == (1, True)
