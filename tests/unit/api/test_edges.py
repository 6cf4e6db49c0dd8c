"""Small decisions at the edge: URLs, settings, ids, types, the text of metrics, the log."""

from __future__ import annotations

import io
import json
import logging
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.dialects import postgresql, sqlite

from shadowfault_api.entities import Listing, Operation, OutboxEntry, new_id, payload_of, shadow_row
from shadowfault_api.http import exposition
from shadowfault_api.logs import configure_logging
from shadowfault_api.metrics import Metrics
from shadowfault_api.settings import Settings, SettingsError, load_settings
from shadowfault_api.store.types import ExactPrice, UtcDateTime
from shadowfault_api.store.urls import DatabaseUrlError, database_url

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.mark.parametrize(
    ("url", "blocking", "asynchronous"),
    [
        ("postgresql://u@h/d", "postgresql+psycopg", "postgresql+psycopg"),
        ("postgres://u@h/d", "postgresql+psycopg", "postgresql+psycopg"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg", "postgresql+psycopg"),
        ("sqlite:///x.db", "sqlite+pysqlite", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:///x.db", "sqlite+pysqlite", "sqlite+aiosqlite"),
    ],
)
def test_a_plain_url_gets_our_driver(url: str, blocking: str, asynchronous: str) -> None:
    assert database_url(url).drivername == blocking
    assert database_url(url, asynchronous=True).drivername == asynchronous
    assert database_url(url).database == database_url(url, asynchronous=True).database


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://u:hunter2@h/d", "sqlite://", "sqlite:///:memory:"])
def test_another_url_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(DatabaseUrlError) as refused:
        database_url(url)
    assert "hunter2" not in str(refused.value)


def test_settings_have_the_documented_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    settings = load_settings()
    assert (settings.host, settings.port, settings.admin_token) == ("127.0.0.1", 4000, None)
    assert settings.database_url.get_secret_value() == "sqlite:///./shadowfault-primary.db"
    assert settings.shadow_database_url.get_secret_value() == "sqlite:///./shadowfault-shadow.db"


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", "")
    monkeypatch.setenv("PORT", "")
    assert (load_settings().admin_token, load_settings().port) == (None, 4000)


def test_every_setting_that_cannot_be_used_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PORT", "70000")
    monkeypatch.setenv("ADMIN_TOKEN", "hunter2")
    monkeypatch.setenv("SHADOW_TIMEOUT_SECONDS", "nan")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert all(name in str(refused.value) for name in ("PORT", "ADMIN_TOKEN", "SHADOW_TIMEOUT_SECONDS"))
    assert "hunter2" not in str(refused.value)


def test_a_claim_must_outlast_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOW_CLAIM_SECONDS", "4")
    monkeypatch.setenv("SHADOW_TIMEOUT_SECONDS", "2")
    with pytest.raises(SettingsError, match="SHADOW_CLAIM_SECONDS"):
        load_settings()


def test_new_ids_sort_by_time() -> None:
    ids = [new_id() for _ in range(2000)]
    assert len(set(ids)) == len(ids)
    assert sorted(ids, key=lambda one: one[:13]) == ids


@given(st.decimals(0, Decimal("9999999999.99"), places=2))
def test_a_price_survives_both_databases_exactly(price: Decimal) -> None:
    for dialect in (sqlite.dialect(), postgresql.dialect()):
        kind = ExactPrice()
        stored = kind.process_bind_param(price, dialect)
        assert kind.process_result_value(stored, dialect) == price


def test_a_price_with_three_decimals_is_not_rounded_in_silence() -> None:
    with pytest.raises(ValueError, match="decimals"):
        ExactPrice().process_bind_param(Decimal("0.001"), sqlite.dialect())


def test_a_time_without_a_zone_is_refused_and_others_become_utc() -> None:
    kind = UtcDateTime()
    with pytest.raises(ValueError, match="naive"):
        kind.process_bind_param(NOW.replace(tzinfo=None), postgresql.dialect())
    local = NOW.astimezone(timezone(timedelta(hours=-7)))
    for dialect in (sqlite.dialect(), postgresql.dialect()):
        stored = kind.process_bind_param(local, dialect)
        back = kind.process_result_value(stored, dialect)
        assert (back, back and back.utcoffset()) == (NOW, timedelta(0))


def test_an_outbox_payload_holds_all_the_shadow_needs() -> None:
    listing = Listing("id", "Title", Decimal("12.30"), 3, NOW, NOW)
    payload = json.loads(json.dumps(payload_of(listing)))
    for state in (listing, payload):  # of this process, and read back from the outbox
        entry = OutboxEntry(1, "Listing", "id", Operation.UPDATE, 3, state, None, False, NOW)
        assert shadow_row(entry) == {
            "id": "id",
            "title": "Title",
            "price": Decimal("12.30"),
            "version": 3,
            "created_at": NOW,
            "updated_at": NOW,
            "deleted_at": None,
        }


@pytest.mark.parametrize(("given", "key"), [(True, "req-1"), (False, None)])
def test_only_a_request_id_the_client_chose_keys_a_decision(*, given: bool, key: str | None) -> None:
    entry = OutboxEntry(1, "Listing", "id", Operation.DELETE, 3, None, "req-1", given, NOW)
    assert entry.decision_key == key


def test_the_text_of_metrics_means_what_the_library_writes() -> None:
    registry = Metrics().registry
    Gauge("plain", "A gauge.\nWith a \\ second line.", registry=registry).set(1.5)
    counter = Counter("odd_total", "Odd labels.", ("z", "a"), registry=registry)
    counter.labels('quo"te\n', "back\\slash").inc(3)
    histogram = Histogram("seconds", "A histogram.", ("b",), buckets=(0.1, 1), registry=registry)
    histogram.labels("x").observe(0.5)
    Gauge("large", "Beyond whole numbers.", registry=registry).set(2.0**60)
    Gauge("nothing", "Not a number.", registry=registry).set(float("inf"))
    ours = exposition.render(registry.collect()).decode()

    def meaning(text: str) -> list[object]:
        families = text_string_to_metric_families(text)
        return sorted(
            (family.name, family.type, family.documentation, sorted(map(repr, _samples(family))))
            for family in families
        )

    assert meaning(ours) == meaning(generate_latest(registry).decode())
    assert 'odd_total{z="quo\\"te\\n",a="back\\\\slash"} 3\n' in ours


def _samples(family: object) -> list[object]:
    samples = getattr(family, "samples", ())
    return [(sample.name, sorted(sample.labels.items()), float(sample.value)) for sample in samples]


@pytest.fixture
def captured_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    out = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "stdout", out)
    configure_logging("INFO")
    yield out
    root.handlers[:] = handlers
    root.setLevel(level)
    import structlog  # noqa: PLC0415 - only to undo what configure_logging did

    structlog.reset_defaults()


def test_an_exception_is_logged_as_class_and_place_without_its_message(captured_log: io.StringIO) -> None:
    def fail() -> None:
        raise ValueError("Failing row contains (Jane Doe)")

    try:
        fail()
    except ValueError:
        logging.getLogger("a.library").exception("it went wrong")
    line = json.loads(captured_log.getvalue())
    assert (line["event"], line["level"], line["error_class"]) == ("it went wrong", "error", "ValueError")
    assert line["error_at"][-1].endswith(" fail")
    assert "Jane" not in captured_log.getvalue()
