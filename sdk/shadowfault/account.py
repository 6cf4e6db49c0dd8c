"""What a service says of an experiment that is over: the answer to POST /chaos/account, on both sides of it.

The figures are those of the service's own records, so that they are the same whichever replica is asked,
and after every restart. None is a figure that is not known: it is never made up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH: Final = "/chaos/account"
VERIFYING: Final = "verifying"
COMPLETE: Final = "complete"
# What a ChaosExperiment's UID may look like.
UID_PATTERN: Final = r"^[A-Za-z0-9][-._A-Za-z0-9]{0,127}$"

_TYPE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MOST_TYPES: Final = 32
# What JSON can carry without loss.
_LARGEST: Final = 2**53 - 1


class AccountError(ValueError):
    """A document that is no account. The message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Account:
    """What came of one experiment.

    `experiment` is its UID. `injected` counts shadow writes made to fail, `shadow_failures` all that failed
    meanwhile. `discrepancies` counts what the verifier found, by type: as many as `explained` and
    `unexplained` together. `primary_requests` counts writes a user asked for, `primary_errors` those of them
    the service answered with an error of its own (5xx); None where that is not known.
    """

    experiment_uid: str
    injected: int
    shadow_failures: int
    discrepancies: Mapping[str, int]
    explained: int
    unexplained: int
    primary_errors: int | None
    primary_requests: int | None

    def figures(self) -> dict[str, Any]:
        """The numbers, under their names in JSON."""
        return {
            "injected": self.injected,
            "shadowFailures": self.shadow_failures,
            "discrepancies": dict(self.discrepancies),
            "explained": self.explained,
            "unexplained": self.unexplained,
            "primaryErrors": self.primary_errors,
            "primaryRequests": self.primary_requests,
        }

    def document(self) -> dict[str, Any]:
        """The answer's body."""
        return {"state": COMPLETE, "experimentUid": self.experiment_uid, **self.figures()}


def parse_account(document: object, experiment_uid: str) -> Account | None:
    """Read an answer about this experiment; None while the account is being made.

    Raises:
        AccountError: it is neither; it came over a network, from a pod that may be anything.
    """
    if not isinstance(document, dict):
        raise AccountError("the answer is not a JSON object")
    if document.get("state") == VERIFYING:
        return None
    if document.get("state") != COMPLETE:
        raise AccountError("the answer has no state that is known")
    if document.get("experimentUid") != experiment_uid:
        raise AccountError("the answer is about another experiment")
    return Account(
        experiment_uid=experiment_uid,
        injected=_count(document, "injected"),
        shadow_failures=_count(document, "shadowFailures"),
        discrepancies=_by_type(document.get("discrepancies")),
        explained=_count(document, "explained"),
        unexplained=_count(document, "unexplained"),
        primary_errors=_count_or_none(document, "primaryErrors"),
        primary_requests=_count_or_none(document, "primaryRequests"),
    )


def _count(document: Mapping[str, object], name: str) -> int:
    value = document.get(name)
    if not _is_count(value):
        raise AccountError(f"{name} is not a count")
    return value


def _count_or_none(document: Mapping[str, object], name: str) -> int | None:
    return None if document.get(name) is None else _count(document, name)


def _by_type(value: object) -> dict[str, int]:
    if not isinstance(value, dict) or len(value) > _MOST_TYPES:
        raise AccountError("discrepancies are not counted by type")
    if not all(isinstance(name, str) and _TYPE.fullmatch(name) for name in value):
        raise AccountError("discrepancies has a type that is no name")
    if not all(_is_count(count) for count in value.values()):
        raise AccountError("discrepancies has a value that is not a count")
    return dict(value)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST
