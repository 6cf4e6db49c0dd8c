"""Two operators by mistake, each with views as old as they come, and people beside them: docs/safety.md."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shadowfault_operator.decisions import Inject, Rest, Transition, decide
from shadowfault_operator.injection import NAMES
from shadowfault_operator.known import Known
from shadowfault_operator.model import Phase
from shadowfault_operator.view import ahead
from shadowfault_testing.world import ALLOWED, OURS, StaleError, World

if TYPE_CHECKING:
    from shadowfault_operator.view import View

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
OPERATORS = st.sampled_from(["one", "other"])
VALUES = st.none() | st.sampled_from(["true", "false", "0.05", "0.1", "0.9", "test", "reads", "junk"])
ORIGINALS = st.dictionaries(st.sampled_from(NAMES[:4]), st.sampled_from(["false", "0.3", ""]), max_size=4)
# How far the clock of an operator is off, in seconds.
SKEW = {"one": timedelta(0), "other": timedelta(seconds=90)}


class TwoOperators(RuleBasedStateMachine):
    """Looks, single requests, crashes and hands, in any order."""

    @initialize(originals=ORIGINALS)
    def begin(self, originals: dict[str, str]) -> None:
        self.world = World(now=START, env=dict(originals), owners=dict.fromkeys(originals, "manifest"))
        self.originals = dict(originals)
        self.views: dict[str, View] = {}
        # What a watch has told each of them, to be come to whenever.
        self.told: dict[str, View] = {}
        self.touched: set[str] = set()
        self.by_hand: dict[str, str | None] = {}

    @rule(operator=OPERATORS)
    def look(self, operator: str) -> None:
        if not self.world.gone:
            self.views[operator] = self.world.view()

    @rule(operator=OPERATORS)
    def act(self, operator: str) -> None:
        """One request, decided on what was seen last, however long ago."""
        view = self.views.get(operator)
        if view is None:
            return
        now = self.world.now + SKEW[operator]
        action = decide(view, now, lambda: "seed")
        if isinstance(action, Rest):
            return
        try:
            self.views[operator] = self.world.carry_out(action, view)
        except StaleError:
            del self.views[operator]
            return
        if isinstance(action, Inject):
            # What the target itself says at that moment is never overlooked: the patch claims it.
            assert self.world.replicas > 0
            assert self.world.env.get("NODE_ENV") != "production"
            # Nor is anything injected that is not on record.
            assert self.world.status.injection is not None

    @rule(operator=OPERATORS)
    def finish_a_pass(self, operator: str) -> None:
        """Look, and act until there is nothing to do."""
        self.look(operator)
        for _ in range(12):
            self.act(operator)

    @rule(operator=OPERATORS, before=st.booleans())
    def end_as_told(self, operator: str, before: bool) -> None:
        """What a watch has told, however long ago; the target is read before or after the write beside it."""
        view, known = self.told.pop(operator, None), Known()
        if view is None:
            return
        known.update(view.experiment)
        told = known.take_ending(view.experiment.key)
        if told is None:
            return
        action = decide(ahead(told), self.world.now + SKEW[operator], lambda: "seed")
        assert isinstance(action, Transition)
        assert action.status.phase is Phase.RECOVERING
        early = self.world.target()
        try:
            stored = self.world.carry_out(action, view)
        except StaleError:
            self.views.pop(operator, None)
            return
        self.views[operator] = replace(stored, target=early if before else self.world.target())

    @rule(operator=OPERATORS)
    def crash(self, operator: str) -> None:
        self.views.pop(operator, None)

    @rule(seconds=st.sampled_from([1, 60, 599, 5000]))
    def wait(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    @rule(name=st.sampled_from(NAMES), value=VALUES)
    def set_by_hand(self, name: str, value: str | None) -> None:
        before = self.world.env.get(name)
        self.world.set(name, value)
        self.touched.add(name)
        injected = self.world.status.phase is Phase.RUNNING
        taken = injected and before != value and self.world.owners.get(name) != OURS
        if taken or name in self.by_hand:
            self.by_hand[name] = value

    @rule(value=st.sampled_from(["production", "staging"]))
    def set_node_env(self, value: str) -> None:
        self.world.set("NODE_ENV", value)

    @rule(replicas=st.integers(0, 2))
    def scale(self, replicas: int) -> None:
        self.world.scale(replicas)

    @rule(stamp=st.sampled_from(["a", "b"]))
    def restart(self, stamp: str) -> None:
        self.world.restart(stamp)

    @rule(labels=st.sampled_from([ALLOWED, {}, {**ALLOWED, "env": "prod"}]))
    def relabel(self, labels: dict[str, str]) -> None:
        self.world.labels = labels

    @rule(suspend=st.booleans())
    def suspend(self, suspend: bool) -> None:
        if not self.world.gone:
            self.world.ask(suspend=suspend)
            self.told = dict.fromkeys(SKEW, self.world.view())

    @precondition(lambda self: not self.world.gone)
    @rule()
    def delete(self) -> None:
        self.world.ask(delete=True)
        self.told = dict.fromkeys(SKEW, self.world.view())

    @invariant()
    def an_experiment_in_a_target_cannot_vanish(self) -> None:
        if self.world.env.get("CHAOS_EXPERIMENT_UID") == "mine":
            assert self.world.finalizer
            assert self.world.status.injection is not None

    @invariant()
    def it_is_injected_once(self) -> None:
        assert self.world.injections <= 1

    @invariant()
    def what_a_person_set_stays(self) -> None:
        for name, value in self.by_hand.items():
            assert self.world.env.get(name) == value

    def teardown(self) -> None:
        """Past the deadline, with one operator left: nothing of ours stays, what was there is back."""
        if not hasattr(self, "world"):
            return
        self.world.labels = dict(ALLOWED)
        self.world.now += timedelta(days=1)
        if not self.world.gone:
            self.world.ask(delete=True)
        self.world.settle()
        assert self.world.gone
        assert OURS not in self.world.owners.values()
        assert self.world.env.get("CHAOS_EXPERIMENT_UID") != "mine"
        for name in set(NAMES) - self.touched:
            assert self.world.env.get(name) == self.originals.get(name)


TwoOperators.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTwoOperators = TwoOperators.TestCase
