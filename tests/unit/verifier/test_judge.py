"""Judgement and cause, by tables; and by every interleaving hypothesis can think of."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shadowfault_api.verifier.compare import difference
from shadowfault_api.verifier.judge import Left, explain, judge
from shadowfault_api.verifier.model import (
    Cause,
    Difference,
    DiscrepancyType,
    Entity,
    FailedShadowWrite,
    Observation,
    StoredRow,
)

ENTITY = Entity("Thing", ("version",))
MISSING = DiscrepancyType.MISSING_IN_SHADOW
STRAY = DiscrepancyType.MISSING_IN_PRIMARY
MISMATCH = DiscrepancyType.DATA_MISMATCH


def row(version: int) -> StoredRow:
    return StoredRow("k", version, (version,))


def failed(
    version: int, operation: str = "update", failure_type: str | None = "injected"
) -> FailedShadowWrite:
    return FailedShadowWrite(operation, version, failure_type, "ns/name", "uid", "request")


INJECTED = Cause("injected", "ns/name", "uid", "request")
UNEXPLAINED = Cause("unexplained")


def test_pending_is_left_out_however_different() -> None:
    assert judge(ENTITY, None, Observation(row(1), pending=True), None) is Left.IN_FLIGHT


def test_what_moves_is_not_confirmed() -> None:
    quiet = Observation(row(2), pending=False)
    assert judge(ENTITY, None, quiet, row(1)) is Left.MOVING
    assert judge(ENTITY, row(1), quiet, row(2)) is Left.MOVING
    assert judge(ENTITY, None, quiet, None) == Difference(MISSING, (), 2, None)
    assert judge(ENTITY, row(1), quiet, row(1)) == Difference(MISMATCH, ("version",), 2, 1)
    assert judge(ENTITY, row(2), quiet, row(2)) is Left.EQUAL


@pytest.mark.parametrize(
    ("found", "failures", "cause"),
    [
        pytest.param(Difference(MISSING, (), 1, None), [], UNEXPLAINED, id="nothing failed"),
        pytest.param(Difference(MISSING, (), 1, None), [failed(1, "create")], INJECTED, id="create failed"),
        pytest.param(
            Difference(MISSING, (), 2, None),
            [failed(1, "create")],
            UNEXPLAINED,
            id="the update after the failed create was lost",
        ),
        pytest.param(Difference(MISMATCH, ("version",), 2, 1), [failed(2)], INJECTED, id="update failed"),
        pytest.param(
            Difference(MISMATCH, ("title",), 2, 2),
            [failed(2)],
            UNEXPLAINED,
            id="the shadow holds the version that failed, and is wrong",
        ),
        pytest.param(
            Difference(MISMATCH, ("version",), 3, 1),
            [failed(2), failed(3, failure_type="timeout")],
            Cause("timeout", "ns/name", "uid", "request"),
            id="the last of two failures",
        ),
        pytest.param(
            Difference(MISMATCH, ("version",), 2, 1),
            [failed(2), failed(2, failure_type="unavailable")],
            Cause("unavailable", "ns/name", "uid", "request"),
            id="the last attempt of one write",
        ),
        pytest.param(Difference(STRAY, (), None, 1), [failed(2, "delete")], INJECTED, id="delete failed"),
        pytest.param(
            Difference(STRAY, (), None, 1),
            [failed(2, "update")],
            UNEXPLAINED,
            id="a failed update leaves no stray",
        ),
        pytest.param(
            Difference(STRAY, (), None, 3), [failed(2, "delete")], UNEXPLAINED, id="written after the delete"
        ),
        pytest.param(
            Difference(MISSING, (), 1, 2), [failed(1)], UNEXPLAINED, id="a tombstone newer than the row"
        ),
        pytest.param(
            Difference(MISSING, (), 1, None),
            [failed(1, "create", None)],
            Cause("unknown", "ns/name", "uid", "request"),
            id="failed, nobody knows how",
        ),
        pytest.param(
            Difference(MISSING, (), 5, None),
            [failed(5, failure_type="superseded")],
            UNEXPLAINED,
            id="superseded: the shadow had a newer one, and lost it",
        ),
    ],
)
def test_cause(found: Difference, failures: list[FailedShadowWrite], cause: Cause) -> None:
    assert explain(found, failures) == cause


@dataclass
class World:
    """One key: a primary, an outbox and a shadow that keep the rules `judge` rests on."""

    version: int = 0
    alive: bool = False
    gone: bool = False
    pending: list[tuple[int, bool]] = field(default_factory=list)
    applied: bool = False
    shadow: StoredRow | None = None
    genuine: bool = False

    def primary(self) -> Observation:
        return Observation(row(self.version) if self.alive else None, bool(self.pending))

    def step(self, action: str) -> None:
        """Do what can be done; a step that cannot be done now is nothing."""
        if action == "write" and not self.gone:
            self._write(alive=True)
        elif action == "delete" and self.alive:
            self.gone = True
            self._write(alive=False)
        elif action == "apply" and self.pending:
            version, alive = self.pending[0]
            if self.shadow is None or self.shadow.version < version:
                self.shadow = row(version) if alive else StoredRow("k", version, (), deleted=True)
            self.applied = True
        elif action == "settle" and self.pending and self.applied:
            self.pending.pop(0)
            self.applied = False
        elif action == "fail" and self.pending and not self.applied:
            self.pending.pop(0)
        self.note()

    def _write(self, *, alive: bool) -> None:
        self.version += 1
        self.alive = alive
        self.pending.append((self.version, alive))

    def note(self) -> None:
        """Remember whether there was an instant at which nothing was in flight and the stores differed."""
        here, _ = self.primary()
        if not self.pending and difference(ENTITY, here, self.shadow) is not None:
            self.genuine = True


STEPS = st.lists(
    st.sampled_from(["write", "write", "delete", "apply", "apply", "settle", "fail"]), max_size=7
)


@settings(max_examples=2000)
@given(before=STEPS, between=st.tuples(STEPS, STEPS), stray=st.booleans())
# An update reaches the primary and the shadow between S1 and P: only S2 tells.
@example(before=["write", "apply", "settle"], between=(["write", "apply", "settle"], []), stray=False)
# An update reaches both between P and S2: only S1 tells.
@example(before=["write", "apply", "settle"], between=([], ["write", "apply", "settle"]), stray=False)
# Created and deleted while we look.
@example(before=["write", "apply"], between=(["settle", "delete", "apply", "settle"], []), stray=False)
def test_a_confirmed_difference_was_there_with_nothing_in_flight(
    before: list[str], between: tuple[list[str], list[str]], stray: bool
) -> None:
    world = World(shadow=row(1) if stray else None)
    for action in before:
        world.step(action)
    world.genuine = False
    world.note()
    shadow_before = world.shadow
    for action in between[0]:
        world.step(action)
    primary = world.primary()
    for action in between[1]:
        world.step(action)
    judgement = judge(ENTITY, shadow_before, primary, world.shadow)
    if isinstance(judgement, Difference):
        assert world.genuine


@given(before=STEPS, stray=st.booleans())
def test_a_difference_that_stands_still_is_confirmed(before: list[str], stray: bool) -> None:
    world = World(shadow=row(1) if stray else None)
    for action in before:
        world.step(action)
    primary = world.primary()
    expected = Left.IN_FLIGHT if world.pending else difference(ENTITY, primary.row, world.shadow)
    assert judge(ENTITY, world.shadow, primary, world.shadow) == (expected or Left.EQUAL)
