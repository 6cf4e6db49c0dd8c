"""The environment contract, read once into one typed object.

An unset and an empty variable are the same. A variable that is set must be well formed, also while
CHAOS_ENABLED is false: what is wrong should show when it is written, not when an experiment begins.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

from shadowfault.surfaces import Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENABLED: Final = "CHAOS_ENABLED"
FAIL_RATE: Final = "CHAOS_FAIL_RATE"
SEED: Final = "CHAOS_SEED"
SCOPE: Final = "CHAOS_SCOPE"
EXPIRES_AT: Final = "CHAOS_EXPIRES_AT"
EXPERIMENT: Final = "CHAOS_EXPERIMENT"
EXPERIMENT_UID: Final = "CHAOS_EXPERIMENT_UID"

_SWITCH: Final = {"true": True, "1": True, "false": False, "0": False}
_DECIMAL: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
# RFC 3339, section 5.6. datetime.fromisoformat takes much more of ISO 8601, such as dates without a time.
_TIMESTAMP: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
_DNS_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_EXPERIMENT: Final = re.compile(rf"{_DNS_LABEL}/{_DNS_LABEL}(?:\.{_DNS_LABEL})*")
# A namespace of 63 characters, and a name of 253.
_LONGEST_EXPERIMENT: Final = 317
_UID: Final = re.compile(r"[A-Za-z0-9][-._A-Za-z0-9]{0,63}")
_SHOWN_CHARACTERS: Final = 60

_T = TypeVar("_T")


@dataclass(frozen=True)
class Problem:
    """One malformed variable."""

    variable: str
    value: str
    expected: str

    def __str__(self) -> str:
        shown = self.value if len(self.value) <= _SHOWN_CHARACTERS else self.value[:_SHOWN_CHARACTERS] + "..."
        return f"{self.variable}={shown!r}: {self.expected}"


class ConfigError(ValueError):
    """One or more variables are malformed; `problems` names every one of them."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        listed = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"invalid chaos configuration, correct or unset:\n{listed}")


@dataclass(frozen=True)
class ChaosConfig:
    """What the environment says about chaos in this process.

    `fail_rate` is a probability from 0 to 1. `seed` is random where none is given. `expires_at` is in UTC;
    None means no deadline. `experiment` is "namespace/name" of the ChaosExperiment, `experiment_uid` its
    UID; both are None where a person set the variables by hand.
    """

    enabled: bool = False
    fail_rate: float = 0.0
    seed: str = field(default_factory=lambda: secrets.token_hex(8))
    scope: Scope = Scope.SHADOW_WRITE_ONLY
    expires_at: datetime | None = None
    experiment: str | None = None
    experiment_uid: str | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> ChaosConfig:
        """Read the CHAOS_* variables of `environ`; others are ignored.

        Raises:
            ConfigError: naming every malformed variable, its value and what is accepted.
        """
        reader = _Reader(environ)
        enabled = reader.read(ENABLED, parse_switch, False)
        fail_rate = reader.read(FAIL_RATE, _rate, 0.0)
        # The seed is taken to the letter: a trimmed one would not be the pattern that was asked for.
        seed = environ.get(SEED) or secrets.token_hex(8)
        scope = reader.read(SCOPE, _scope, Scope.SHADOW_WRITE_ONLY)
        expires_at = reader.read(EXPIRES_AT, _timestamp, None)
        experiment = reader.read(EXPERIMENT, _experiment, None)
        experiment_uid = reader.read(EXPERIMENT_UID, _uid, None)
        if reader.problems:
            raise ConfigError(tuple(reader.problems))
        return cls(enabled, fail_rate, seed, scope, expires_at, experiment, experiment_uid)


def parse_switch(text: str) -> bool:
    """The meaning of a CHAOS_ENABLED value; case and surrounding blanks do not matter.

    Raises:
        ValueError: it is none of true, false, 1 and 0.
    """
    try:
        return _SWITCH[text.strip().lower()]
    except KeyError:
        raise ValueError("expected true or false (1 and 0 are accepted too)") from None


class _Reader:
    """Parses variables one by one and collects what is wrong, so that a person sees it all at once."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[Problem] = []

    def read(self, variable: str, parse: Callable[[str], _T], default: _T) -> _T:
        value = self._environ.get(variable, "")
        if not value:
            return default
        try:
            return parse(value.strip())
        except (ValueError, OverflowError) as error:
            self.problems.append(Problem(variable, value, str(error)))
            return default


def _rate(text: str) -> float:
    expected = "expected a number from 0 to 1, such as 0.1"
    if not _DECIMAL.fullmatch(text):
        raise ValueError(expected)
    rate = float(text)
    if rate > 1.0:
        raise ValueError(expected)
    return rate


def _scope(text: str) -> Scope:
    try:
        return Scope(text)
    except ValueError:
        raise ValueError(f"expected one of {', '.join(Scope)}") from None


def _timestamp(text: str) -> datetime | None:
    expected = "expected an RFC 3339 time with its offset, such as 2026-01-31T12:00:00Z"
    if not _TIMESTAMP.fullmatch(text.upper()):
        raise ValueError(expected)
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{expected} ({error})") from None


def _experiment(text: str) -> str | None:
    if len(text) > _LONGEST_EXPERIMENT or not _EXPERIMENT.fullmatch(text):
        raise ValueError("expected NAMESPACE/NAME of a ChaosExperiment")
    return text


def _uid(text: str) -> str | None:
    if not _UID.fullmatch(text):
        raise ValueError(
            "expected the UID of a ChaosExperiment, such as 7b1c9d3e-0f7a-4c5e-9d0e-2f1a5b6c7d8e"
        )
    return text
