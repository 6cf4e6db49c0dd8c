"""What to do next about an account: a pure function of what the database says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime


class Step(Enum):
    """What is next. `WAIT` and `VERIFY` are both "not yet" for whoever asks."""

    WAIT = "wait"
    VERIFY = "verify"
    COUNT = "count"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Served:
    """What one process served under the experiment. `closed_at` is None for one that never said it was over.

    `fresh`: it has written lately, so that it lives. Times are of the database's clock.
    """

    opened_at: datetime
    counted_at: datetime
    closed_at: datetime | None
    requests: int
    errors: int
    fresh: bool = False

    @property
    def counting(self) -> bool:
        """Whether the experiment still goes on in it."""
        return self.closed_at is None and self.fresh

    @property
    def ended_at(self) -> datetime:
        """When it was last known to be under the experiment."""
        return self.closed_at or self.counted_at


@dataclass(frozen=True, slots=True)
class Asked:
    """An account that was asked for: when, under which run of the verifier, and what came of it."""

    asked_at: datetime
    run_id: str
    result: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What the database knows of an experiment.

    `first_failure` and `last_failure` are those in evidence. `run_state` is that of `asked.run_id`, None
    where there is no such run. `in_flight`: a write from before the end is not settled yet.
    """

    served: Sequence[Served] = ()
    first_failure: datetime | None = None
    last_failure: datetime | None = None
    asked: Asked | None = None
    run_state: str | None = None
    in_flight: bool = False

    @property
    def anything(self) -> bool:
        """Whether there is a trace of it at all; a process under it leaves one, whatever it serves."""
        return bool(self.served) or self.first_failure is not None

    @property
    def began_at(self) -> datetime | None:
        """When it first showed."""
        return min([one.opened_at for one in self.served] + _given(self.first_failure), default=None)

    @property
    def ended_at(self) -> datetime | None:
        """When it last showed."""
        return max([one.ended_at for one in self.served] + _given(self.last_failure), default=None)


def next_step(known: Known) -> Step:
    """Decide. The pass of the verifier that counts is one begun after the end, in every process."""
    asked = known.asked
    if any(one.counting for one in known.served):
        return Step.WAIT
    # A process came under the experiment after that: what was told then is not the whole of it.
    over = asked is not None and all(one.ended_at <= asked.asked_at for one in known.served)
    if over and asked is not None and asked.result is not None:
        return Step.ANSWER
    if known.in_flight:
        return Step.WAIT
    if not over or known.run_state in {None, "failed"}:
        return Step.VERIFY
    return Step.COUNT if known.run_state == "succeeded" else Step.WAIT


def primary_figures(served: Sequence[Served]) -> tuple[int | None, int | None]:
    """Add up errors and requests of all processes; None where one died without its last word.

    Errors on record are told all the same: one is one too many.
    """
    whole = bool(served) and all(one.closed_at is not None for one in served)
    errors = sum(one.errors for one in served)
    requests = sum(one.requests for one in served)
    return (errors if whole or errors else None), (requests if whole else None)


def _given(moment: datetime | None) -> list[datetime]:
    return [] if moment is None else [moment]
