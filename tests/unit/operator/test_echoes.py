"""What a pass has decided on is not looked at again, and all else is."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shadowfault_operator.echoes import Echoes, fingerprint
from shadowfault_operator.model import Key
from shadowfault_operator.workqueue import WorkQueue

KEY = Key("staging", "shadow")
STATES = st.integers(1, 4)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("changed"), STATES),
            st.tuples(st.just("begin"), st.none()),
            st.tuples(st.just("rest"), STATES),
            st.tuples(st.just("fail"), st.none()),
        )
    )
)
def test_no_change_is_lost(history: list[tuple[str, Any]]) -> None:
    """At any moment: the last that was told is what a pass rested on, or a look at it is due or under way."""
    due: set[Key] = set()
    echoes = Echoes(due.add)
    under_way, rested, told = False, None, None
    for step, state in history:
        if step == "changed":
            told = state
            echoes.changed(KEY, state)
        elif step == "begin" and not under_way:
            under_way = True
            due.discard(KEY)
            echoes.begin(KEY)
        elif step in {"rest", "fail"} and under_way:
            under_way = False
            rested = state
            if step == "rest":
                echoes.rest(KEY, state)
            else:
                due.add(KEY)  # it is tried again
            echoes.end(KEY)
            told = told if KEY in due else None  # what came before a look is history after it
        assert told is None or told == rested or under_way or KEY in due


def test_an_echo_is_no_reason_to_look() -> None:
    looks: list[Key] = []
    echoes = Echoes(looks.append)
    echoes.begin(KEY)
    echoes.changed(KEY, 1)  # told before our own patch has its answer
    echoes.rest(KEY, 1)
    echoes.end(KEY)
    echoes.changed(KEY, 1)
    assert looks == []
    echoes.changed(KEY, 2)
    assert looks == [KEY]


def test_a_change_within_a_pass_is_looked_at_after_it() -> None:
    looks: list[Key] = []
    echoes = Echoes(looks.append)
    echoes.begin(KEY)
    echoes.changed(KEY, 1)
    echoes.changed(KEY, 2)
    echoes.rest(KEY, 1)
    assert looks == []
    echoes.end(KEY)
    assert looks == [KEY]


def test_nothing_is_an_echo_of_a_pass_that_failed() -> None:
    looks: list[Key] = []
    echoes = Echoes(looks.append)
    for rests in (True, False):
        echoes.begin(KEY)
        if rests:
            echoes.rest(KEY, 1)
        echoes.end(KEY)
    echoes.changed(KEY, 1)
    assert looks == [KEY]
    echoes.forget(KEY)
    assert len(echoes) == 0


def test_the_same_value_from_another_hand_is_no_echo(scene: Any) -> None:
    ours = scene.target()
    assert fingerprint(ours) == fingerprint(replace(ours))
    fields = {"f:spec": {"f:template": {}}}
    managed = [*ours.managed_fields, {"manager": "kubectl-set", "operation": "Update", "fieldsV1": fields}]
    theirs = replace(ours, raw={**ours.raw, "metadata": {**ours.raw["metadata"], "managedFields": managed}})
    assert fingerprint(theirs) != fingerprint(ours)
    assert fingerprint(None) == 0


async def _order(queue: WorkQueue[str]) -> list[str]:
    found = []
    while len(queue):
        async with asyncio.timeout(5), queue.next() as key:
            found.append(key)
    return found


async def test_who_may_wait_comes_after_all_others() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key, late in (("verdict", True), ("first", False), ("both", True), ("second", False)):
        queue.add(key, late=late)
    queue.add("both")
    queue.add("second", late=True)  # is no reason to put it off
    assert queue.pressing
    assert await _order(queue) == ["first", "second", "both", "verdict"]


async def test_late_ones_press_nobody() -> None:
    queue: WorkQueue[str] = WorkQueue()
    assert not queue.pressing
    queue.add("verdict", late=True)
    assert not queue.pressing


async def test_a_key_with_two_turns_is_worked_on_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("one", late=True)
    queue.add("one")
    assert await _order(queue) == ["one"]
    queue.add("other", late=True)
    assert await _order(queue) == ["other"]
