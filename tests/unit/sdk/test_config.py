"""The environment contract: what is read, what is refused, and that nothing is guessed."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault import ChaosConfig, ConfigError, Scope

UID = "7b1c9d3e-0f7a-4c5e-9d0e-2f1a5b6c7d8e"


def test_nothing_set_is_the_safe_default() -> None:
    config = ChaosConfig.from_env({})
    assert config == ChaosConfig(seed=config.seed)
    assert (config.enabled, config.fail_rate, config.scope) == (False, 0.0, Scope.SHADOW_WRITE_ONLY)
    assert config.expires_at is None
    assert (config.experiment, config.experiment_uid) == (None, None)


def test_an_empty_variable_is_an_unset_one() -> None:
    names = ("ENABLED", "FAIL_RATE", "SEED", "SCOPE", "EXPIRES_AT", "EXPERIMENT", "EXPERIMENT_UID")
    config = ChaosConfig.from_env({f"CHAOS_{name}": "" for name in names})
    assert config == ChaosConfig(seed=config.seed)
    assert config.seed


def test_everything_set() -> None:
    config = ChaosConfig.from_env(
        {
            "CHAOS_ENABLED": "true",
            "CHAOS_FAIL_RATE": "0.1",
            "CHAOS_SEED": "my-test-run-123",
            "CHAOS_SCOPE": "all_writes",
            "CHAOS_EXPIRES_AT": "2026-01-31T13:00:00+01:00",
            "CHAOS_EXPERIMENT": "staging/shadow-10pct",
            "CHAOS_EXPERIMENT_UID": UID,
        }
    )
    assert config == ChaosConfig(
        enabled=True,
        fail_rate=0.1,
        seed="my-test-run-123",
        scope=Scope.ALL_WRITES,
        expires_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
        experiment="staging/shadow-10pct",
        experiment_uid=UID,
    )
    assert config.expires_at is not None
    assert config.expires_at.tzinfo is UTC


def test_a_seed_that_nobody_gave_differs_each_time() -> None:
    assert len({ChaosConfig.from_env({}).seed for _ in range(20)}) == 20


def test_a_seed_is_taken_to_the_letter() -> None:
    assert ChaosConfig.from_env({"CHAOS_SEED": " x "}).seed == " x "


@pytest.mark.parametrize(
    ("text", "enabled"),
    [
        ("true", True),
        ("TRUE", True),
        (" True\n", True),
        ("1", True),
        ("false", False),
        ("False", False),
        ("0", False),
    ],
)
def test_enabled(text: str, enabled: bool) -> None:
    assert ChaosConfig.from_env({"CHAOS_ENABLED": text}).enabled is enabled


@pytest.mark.parametrize(
    ("text", "rate"),
    [("0", 0.0), ("1", 1.0), ("0.05", 0.05), (".5", 0.5), ("1.", 1.0), ("1e-3", 0.001), (" 0.3 ", 0.3)],
)
def test_rate(text: str, rate: float) -> None:
    assert ChaosConfig.from_env({"CHAOS_FAIL_RATE": text}).fail_rate == rate


@pytest.mark.parametrize("text", list(Scope))
def test_scope(text: str) -> None:
    assert ChaosConfig.from_env({"CHAOS_SCOPE": text}).scope == text


MALFORMED = [
    *(("CHAOS_ENABLED", text) for text in ("maybe", "yes", "on", "2", "truee", "true false", " ")),
    *(("CHAOS_FAIL_RATE", text) for text in ("1.5", "1.0000001", "-0.1", "-0", "nan", "inf", "1e999", "abc")),
    *(("CHAOS_FAIL_RATE", text) for text in ("10%", "0,1", "0.1.2", "1_0", "0x1", "٠", " ")),
    *(("CHAOS_SCOPE", text) for text in ("everything", "READS", "shadow", "shadow_write_only,reads", " ")),
    *(
        ("CHAOS_EXPIRES_AT", text)
        for text in (
            "2026-01-31T12:00:00",  # no offset
            "2026-01-31",
            "2026-01-31T12:00Z",
            "20260131T120000Z",
            "2026-W05-6T12:00:00Z",
            "2026-02-30T12:00:00Z",
            "2026-01-31T25:00:00Z",
            "0001-01-01T00:00:00+23:59",  # before the first year, in UTC
            "tomorrow",
            "1769860800",
            " ",
        )
    ),
    *(("CHAOS_EXPERIMENT", text) for text in ("name", "a/b/c", "A/x", "/x", "x/", "a b/c", "-a/b", " ")),
    *(("CHAOS_EXPERIMENT_UID", text) for text in ("a b", "a/b", "-a", "x" * 129, " ")),
]  # fmt: skip


@pytest.mark.parametrize("enabled", ["true", "false"])
@pytest.mark.parametrize(("variable", "text"), MALFORMED)
def test_a_malformed_variable_is_an_error_that_names_it(variable: str, text: str, enabled: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ChaosConfig.from_env({"CHAOS_ENABLED": enabled, variable: text})
    (problem,) = caught.value.problems
    assert (problem.variable, problem.value) == (variable, text)
    assert problem.expected.startswith("expected ")
    assert f"{variable}=" in str(caught.value)


def test_every_malformed_variable_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ChaosConfig.from_env(
            {
                "CHAOS_ENABLED": "maybe",
                "CHAOS_FAIL_RATE": "1.5",
                "CHAOS_SEED": "fine",
                "CHAOS_SCOPE": "x",
                "CHAOS_EXPIRES_AT": "soon",
            }
        )
    assert str(caught.value).splitlines() == [
        "invalid chaos configuration, correct or unset:",
        "  CHAOS_ENABLED='maybe': expected true or false (1 and 0 are accepted too)",
        "  CHAOS_FAIL_RATE='1.5': expected a number from 0 to 1, such as 0.1",
        "  CHAOS_SCOPE='x': expected one of shadow_write_only, all_writes, reads",
        "  CHAOS_EXPIRES_AT='soon': expected an RFC 3339 time with its offset, such as 2026-01-31T12:00:00Z",
    ]


def test_a_long_value_is_shown_in_part_and_on_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        ChaosConfig.from_env({"CHAOS_SCOPE": "x\n" * 500})
    assert all(len(line) < 200 for line in str(caught.value).splitlines())
    assert len(str(caught.value).splitlines()) == 2


def test_other_variables_are_none_of_its_business() -> None:
    # A Service called "chaos-x" puts variables like this one into every pod.
    ChaosConfig.from_env({"CHAOS_X_SERVICE_HOST": "10.0.0.1", "PATH": "/bin"})


_environ_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@given(
    st.fixed_dictionaries(
        {}, optional={f"CHAOS_{n}": _environ_text for n in ("ENABLED", "FAIL_RATE", "SCOPE", "EXPIRES_AT")}
    )
)
def test_any_text_gives_a_sound_configuration_or_a_config_error(environ: dict[str, str]) -> None:
    try:
        config = ChaosConfig.from_env(environ)
    except ConfigError as error:
        assert {problem.variable for problem in error.problems} <= set(environ)  # noqa: PT017 - either way is right
        return
    assert 0.0 <= config.fail_rate <= 1.0
    assert config.expires_at is None or config.expires_at.utcoffset() == timedelta(0)


@given(st.floats(0, 1))
def test_every_rate_that_python_writes_is_read_back(rate: float) -> None:
    assert ChaosConfig.from_env({"CHAOS_FAIL_RATE": repr(rate)}).fail_rate == rate


@given(
    st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)),  # noqa: DTZ001 - the zone is drawn apart
    st.integers(-23 * 60, 23 * 60),
)
def test_every_time_with_an_offset_is_read_as_the_same_instant(naive: datetime, minutes: int) -> None:
    instant = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert ChaosConfig.from_env({"CHAOS_EXPIRES_AT": instant.isoformat()}).expires_at == instant


def test_reading_changes_nothing() -> None:
    before = dict(os.environ)
    ChaosConfig.from_env(os.environ)
    assert dict(os.environ) == before
