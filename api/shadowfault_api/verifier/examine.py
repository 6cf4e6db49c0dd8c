"""A closer look at suspects: the three looks of `judge`, and the cause of what is confirmed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from shadowfault_api.verifier.judge import Left, explain, judge
from shadowfault_api.verifier.model import (
    UNEXPLAINED,
    Difference,
    Entity,
    FailedShadowWrite,
    Found,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shadowfault_api.verifier.readers import PrimaryReader, ShadowReader

_LOOKS: Final = 3


@dataclass(slots=True)
class Judged:
    """What came of some keys: confirmed, equal, and left out for they are in flight.

    `equal` tells the version the shadow held of each, 0 where it held nothing.
    """

    found: list[Found] = field(default_factory=list)
    equal: dict[str, int] = field(default_factory=dict)
    in_flight: list[str] = field(default_factory=list)


class Examiner:
    """Judges keys by looking at both stores."""

    def __init__(self, primary: PrimaryReader, shadow: ShadowReader, entity: Entity) -> None:
        self._primary = primary
        self._shadow = shadow
        self._entity = entity

    def judge(self, keys: Sequence[str]) -> Judged:
        """Look at keys until each is judged, or does not stand still."""
        judged = Judged()
        moving = list(keys)
        for _ in range(_LOOKS):
            moving = self._look(moving, judged)
            if not moving:
                break
        judged.in_flight.extend(moving)  # it never stood still
        return judged

    def _look(self, keys: Sequence[str], judged: Judged) -> list[str]:
        """Make the three looks of `judge`; returns the keys to look at again."""
        before = self._shadow.get(keys)
        look = self._primary.look(keys)
        after = self._shadow.get(keys)
        confirmed: dict[str, Difference] = {}
        moving: list[str] = []
        for key in keys:
            judgement = judge(self._entity, before.get(key), look.observations[key], after.get(key))
            if isinstance(judgement, Difference):
                confirmed[key] = judgement
            elif judgement is Left.MOVING:
                moving.append(key)
            elif judgement is Left.IN_FLIGHT:
                judged.in_flight.append(key)
            else:
                held = after.get(key)
                judged.equal[key] = held.version if held else 0
        judged.found.extend(self._explained(confirmed, look.failures))
        return moving

    def _explained(
        self, confirmed: dict[str, Difference], failures: dict[str, list[FailedShadowWrite]]
    ) -> list[Found]:
        causes = {key: explain(item, failures.get(key, ())) for key, item in confirmed.items()}
        open_questions = [key for key, cause in causes.items() if cause.name == UNEXPLAINED]
        if open_questions:
            recorded = self._primary.recorded_failures(open_questions)
            causes |= {key: explain(confirmed[key], recorded.get(key, ())) for key in open_questions}
        return [Found(key, item, causes[key]) for key, item in confirmed.items()]
