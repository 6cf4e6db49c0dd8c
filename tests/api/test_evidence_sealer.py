"""The sealer beside writers and other sealers, and what a migration carries over."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from shadowfault_api.evidence.audit import verify_database
from shadowfault_api.evidence.sealer import ChainError, Sealer
from shadowfault_api.evidence.sealing import Sealing
from shadowfault_api.evidence.signing import Signer, Verifier, key_id
from shadowfault_api.evidence.verification import Expectations
from shadowfault_api.store import migrate as migrations
from shadowfault_api.store.migrate import Database, migrate
from shadowfault_api.store.schema import evidence_records
from shadowfault_api.store.urls import create_sync_engine
from shadowfault_testing.api import eventually
from shadowfault_testing.databases import postgresql_pair
from shadowfault_testing.evidence import Known, insert_known
from shadowfault_testing.service import query
from shadowfault_testing.stores import Stores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shadowfault_testing.databases import DatabasePair
    from shadowfault_testing.postgres import PostgresServer

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = Signer(KEY, key_id(KEY.public_key()))
WRITERS = 4
ROUNDS = 25


@pytest.fixture
def postgresql(postgres_server: PostgresServer) -> Iterator[Stores]:
    with postgresql_pair(postgres_server) as pair, Stores.opened(pair) as stores:
        yield stores


@pytest.mark.postgres
def test_a_late_commit_is_waited_for_and_sealed_after(postgresql: Stores) -> None:
    engine = postgresql.primary
    sealer = Sealer(engine, None)
    with engine.connect() as late:
        late.execute(text("SELECT txid_current()"))  # begins before, commits after the others
        with engine.begin() as connection:
            insert_known(connection, [2])
        assert sealer.seal_all() == []
        insert_known(late, [1])
        assert sealer.seal_all() == []
        late.commit()
    (seal,) = sealer.seal_all()
    assert seal.size == 2
    assert verify_database(engine, Expectations()).findings == []


@pytest.mark.postgres
def test_many_sealers_beside_many_writers_seal_each_record_once(postgresql: Stores) -> None:
    engine = create_sync_engine(postgresql.pair.primary, pool_size=WRITERS + 3)
    done = threading.Event()

    def write(writer: int) -> None:
        for number in range(ROUNDS):
            with engine.begin() as connection:
                first = (writer * ROUNDS + number) * 3
                insert_known(connection, [first])
                # A record that is rolled back, and one in a savepoint, which has a transaction id of its own.
                with connection.begin_nested():
                    insert_known(connection, [first + 1])
                savepoint = connection.begin_nested()
                insert_known(connection, [first + 2])
                savepoint.rollback()

    def seal() -> None:
        sealer = Sealer(engine, None, largest_batch=17)
        while not done.is_set():
            sealer.seal_all()

    with ThreadPoolExecutor(WRITERS + 3) as pool:
        sealers = [pool.submit(seal) for _ in range(3)]
        try:
            for writing in [pool.submit(write, number) for number in range(WRITERS)]:
                writing.result()
        finally:
            done.set()
        for sealing in sealers:
            sealing.result()
    Sealer(engine, None).seal_all()
    report = verify_database(engine, Expectations())
    engine.dispose()
    assert report.findings == []
    assert (report.records, report.unsealed) == (WRITERS * ROUNDS * 2, 0)
    assert report.seals > 5


@pytest.mark.postgres
def test_only_one_seals_at_a_time(postgresql: Stores) -> None:
    with postgresql.primary.begin() as connection:
        insert_known(connection, [1])
    with postgresql.primary.begin() as connection:
        # Another sealer, in the middle of it.
        connection.execute(text("SELECT pg_advisory_xact_lock(5274118906)"))
        assert Sealer(postgresql.primary, None).seal_once().busy


@pytest.mark.postgres
def test_months_are_partitions_and_what_finds_none_is_kept(postgresql: Stores) -> None:
    with postgresql.primary.begin() as connection:
        insert_known(connection, [1])  # of a month long gone
    assert query(postgresql.pair.primary, "SELECT count(*) AS n FROM evidence_records_default") == [{"n": 1}]
    assert Sealer(postgresql.primary, None).prepare_months() == 0  # the migration made them
    newest = query(
        postgresql.pair.primary,
        "SELECT max(inhrelid::regclass::text) AS name FROM pg_inherits "
        "WHERE inhparent = 'evidence_records'::regclass "
        "AND inhrelid::regclass::text <> 'evidence_records_default'",
    )[0]["name"]
    query(postgresql.pair.primary, f"DROP TABLE {newest}")
    assert Sealer(postgresql.primary, None).prepare_months() == 1


def test_the_migrations_have_one_head() -> None:
    for which in Database:
        config = Config()
        config.set_main_option("script_location", str(migrations._SCRIPTS))
        config.set_main_option("version_locations", str(migrations._SCRIPTS / which.value))
        config.set_main_option("path_separator", "os")
        assert len(ScriptDirectory.from_config(config).get_heads()) == 1


def test_records_from_before_the_seals_are_carried_over_and_sealed(
    database_pair: DatabasePair,
) -> None:
    url = database_pair.primary
    engine = create_sync_engine(url)
    with engine.begin() as connection:
        command.upgrade(migrations._config(connection, Database.PRIMARY), "primary_0001")
    with engine.begin() as connection:
        insert_known(connection, range(7))
    before = query(url, "SELECT * FROM evidence_records ORDER BY id")
    migrate(url, Database.PRIMARY)
    after = query(url, "SELECT * FROM evidence_records ORDER BY id")
    assert [{name: row[name] for name in before[0]} for row in after] == before
    if database_pair.backend == "postgresql":  # in a partition of their month
        assert query(url, "SELECT count(*) AS n FROM evidence_records_2026_01") == [{"n": 7}]
    (seal,) = Sealer(engine, None).seal_all()
    report = verify_database(engine, Expectations())
    with engine.connect() as connection:
        assert len(connection.execute(evidence_records.select()).all()) == 7
    engine.dispose()
    assert (report.findings, report.records, seal.size) == ([], 7, 7)
    assert Known(3).row()["content_hash"] in {row["content_hash"] for row in after}


def test_after_a_seal_that_is_signed_only_a_key_seals(stores: Stores) -> None:
    """While a key is rolled out, a replica that has it seals first and one that has not seals next."""
    with_key, without = Sealer(stores.primary, SIGNER), Sealer(stores.primary, None)
    with stores.primary.begin() as connection:
        insert_known(connection, [1])
    assert len(with_key.seal_all()) == 1
    assert without.seal_all() == []
    with stores.primary.begin() as connection:
        insert_known(connection, [2])
    with pytest.raises(ChainError, match="seal 1 is signed and there is no key"):
        without.seal_all()
    assert len(with_key.seal_all()) == 1
    report = verify_database(stores.primary, Expectations(keys=(Verifier(KEY.public_key(), SIGNER.key_id),)))
    assert (report.findings, report.signed) == ([], 2)


def test_a_chain_made_anew_is_not_signed_by_who_saw_the_one_before(stores: Stores) -> None:
    sealer = Sealer(stores.primary, SIGNER)
    with stores.primary.begin() as connection:
        insert_known(connection, [1])
    sealer.seal_all()
    tables = ("evidence_leaves", "evidence_seals")
    with stores.primary.begin() as connection:
        for table in tables:
            if stores.pair.backend == "postgresql":
                connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            else:
                connection.exec_driver_sql(f"DROP TRIGGER {table}_no_delete")
            connection.exec_driver_sql(f"DELETE FROM {table}")
        insert_known(connection, [2])
    with pytest.raises(ChainError, match=r"seal 1 with the head .* was there and is not any more"):
        sealer.seal_all()
    report = verify_database(stores.primary, Expectations(keys=(Verifier(KEY.public_key(), SIGNER.key_id),)))
    assert [finding.message for finding in report.findings] == [
        "there is no seal: nothing here is signed by that key"
    ]


def test_whatever_fails_the_sealer_goes_on(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of SQLite that is no record, for one."""
    failed = threading.Event()
    sealing = Sealing(stores.primary, None, 0.01)

    def fails() -> None:
        failed.set()
        raise ValueError("a row of Jane")

    monkeypatch.setattr(sealing._sealer, "seal_once", fails)
    sealing.start()
    assert failed.wait(10)
    monkeypatch.undo()
    with stores.primary.begin() as connection:
        insert_known(connection, [1])
    eventually("the seal", lambda: query(stores.pair.primary, "SELECT * FROM evidence_seals"))
    sealing.stop(5)
