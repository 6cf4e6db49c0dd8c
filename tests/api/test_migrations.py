"""The migrations make the schema the code is written for, also when many begin at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, inspect

from shadowfault_api.store.migrate import Database, _config, migrate
from shadowfault_api.store.urls import create_sync_engine
from shadowfault_testing.service import query

if TYPE_CHECKING:
    from shadowfault_testing.databases import DatabasePair


def _url(databases: DatabasePair, which: Database) -> str:
    return databases.primary if which is Database.PRIMARY else databases.shadow


@pytest.mark.parametrize("which", list(Database))
def test_the_migrated_schema_is_the_schema_of_the_code(database_pair: DatabasePair, which: Database) -> None:
    url = _url(database_pair, which)
    migrate(url, which)
    engine = create_sync_engine(url)
    try:
        with engine.connect() as connection:
            options = {"compare_server_default": True, "include_object": _declared}
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, which.metadata) == []
            # What Alembic does not compare.
            for table in which.metadata.sorted_tables:
                migrated = {check["name"] for check in inspect(connection).get_check_constraints(table.name)}
                declared = {
                    str(constraint.name)
                    for constraint in table.constraints
                    if isinstance(constraint, CheckConstraint)
                }
                assert migrated == declared
    finally:
        engine.dispose()


def _declared(_item: object, name: str | None, kind: str, reflected: bool, _other: object) -> bool:
    """Leave out what only PostgreSQL has: the partitions of evidence, and the sealer's column."""
    if not reflected or name is None:
        return True
    partition = kind == "table" and name.startswith("evidence_records_")
    return not partition and name not in {"txid", "ix_evidence_records_txid"}


@pytest.mark.parametrize("which", list(Database))
def test_many_migrate_at_once_and_again(database_pair: DatabasePair, which: Database) -> None:
    url = _url(database_pair, which)
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(migrate, url, which.value) for _ in range(6)]:
            done.result()
    migrate(url, which)
    assert len(query(url, "SELECT * FROM alembic_version")) == 1


def test_a_migration_that_breaks_leaves_nothing_behind(
    database_pair: DatabasePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("alembic.op.create_index", _explode)
        with pytest.raises(RuntimeError):
            migrate(database_pair.primary, Database.PRIMARY)
    engine = create_sync_engine(database_pair.primary)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == []
    engine.dispose()
    migrate(database_pair.primary, Database.PRIMARY)


def _explode(*_args: object, **_options: object) -> None:
    raise RuntimeError("the disk is full")


def test_a_schema_newer_than_the_code_is_not_touched(database_pair: DatabasePair) -> None:
    migrate(database_pair.primary, Database.PRIMARY)
    query(database_pair.primary, "UPDATE alembic_version SET version_num = 'from_the_future'")
    with pytest.raises(Exception, match="from_the_future"):
        migrate(database_pair.primary, Database.PRIMARY)


@pytest.mark.postgres
def test_who_could_insert_evidence_still_can_and_gives_no_position(postgres_url: str) -> None:
    engine = create_sync_engine(postgres_url)
    with engine.begin() as connection:
        command.upgrade(_config(connection, Database.PRIMARY), "primary_0006")
    giver, given, column, public = 'the "giver"', "given", "column only", "PUBLIC"
    roles = (giver, given, column)
    quoted = {name: '"' + name.replace('"', '""') + '"' for name in roles} | {public: public}
    try:
        for name in roles:
            query(postgres_url, f"CREATE ROLE {quoted[name]}")
        query(postgres_url, f"GRANT INSERT ON evidence_records TO {quoted[giver]} WITH GRANT OPTION")
        query(
            postgres_url,
            f"SET ROLE {quoted[giver]}; GRANT INSERT ON evidence_records TO {quoted[given]}; RESET ROLE",
        )
        query(postgres_url, f"GRANT INSERT (id, txid) ON evidence_records TO {quoted[column]}")
        migrate(postgres_url, Database.PRIMARY)
        may = "SELECT has_column_privilege(:role, 'evidence_records', :name, :right) AS may"
        for role, right in ((giver, "INSERT WITH GRANT OPTION"), (given, "INSERT"), (column, "INSERT")):
            assert query(postgres_url, may, role=role, name="content_hash", right=right) == [{"may": True}]
            assert query(postgres_url, may, role=role, name="txid", right="INSERT") == [{"may": False}]
    finally:
        for name in roles:
            query(postgres_url, f"DROP OWNED BY {quoted[name]} CASCADE")
            query(postgres_url, f"DROP ROLE {quoted[name]}")
        engine.dispose()


@pytest.mark.parametrize(("which", "before"), [("primary", "primary_0005"), ("shadow", "shadow_0001")])
def test_an_index_built_beforehand_is_taken_as_it_is(
    database_pair: DatabasePair, which: str, before: str
) -> None:
    """On a big table it is built beside the writers."""
    url = _url(database_pair, Database(which))
    engine = create_sync_engine(url)
    with engine.begin() as connection:
        command.upgrade(_config(connection, Database(which)), before)
    query(url, "CREATE INDEX ix_listings_updated_at_id ON listings (updated_at, id)")
    migrate(url, which)
    with engine.connect() as connection:
        names = {index["name"] for index in inspect(connection).get_indexes("listings")}
    engine.dispose()
    assert "ix_listings_updated_at_id" in names
