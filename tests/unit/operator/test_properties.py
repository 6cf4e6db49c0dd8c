"""What holds whatever happens, over arbitrary histories of one experiment and one target."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from shadowfault.config import EXPERIMENT, EXPERIMENT_UID
from shadowfault_operator.injection import NAMES
from shadowfault_operator.model import Key, Phase, Status, parse_status
from shadowfault_testing.world import ALLOWED, OURS, World

START = datetime(2026, 3, 1, 12, tzinfo=UTC)

VALUES = st.sampled_from(["true", "false", "0.05", "0.1", "0.9", "test", "reads", "junk", ""])
EVENTS = st.one_of(
    st.tuples(st.just("step"), st.integers(1, 6)),
    st.tuples(st.just("set"), st.sampled_from(NAMES), st.none() | VALUES),
    st.tuples(st.just("wait"), st.sampled_from([1, 60, 599, 600, 5000])),
    st.tuples(st.just("replicas"), st.integers(0, 2)),
    st.tuples(st.just("restart"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("labels"), st.sampled_from([ALLOWED, {}, {**ALLOWED, "env": "prod"}])),
    st.tuples(st.just("node_env"), st.sampled_from(["production", "staging"])),
    st.tuples(st.just("suspend"), st.booleans()),
    st.tuples(st.just("delete")),
    st.tuples(st.just("wipe status")),
)
ORIGINALS = st.dictionaries(
    st.sampled_from(NAMES[:4]), st.sampled_from(["false", "0.3", "manifest", ""]), max_size=4
)


def play(world: World, event: tuple[Any, ...]) -> None:  # noqa: C901, PLR0912 - one case for each kind of event
    match event:
        case ("step", count):
            for _ in range(count):
                world.step()
        case ("set", name, _) if _last_trace(world, name):
            pass  # as below: an orphan
        case ("set", name, value):
            world.set(name, value)
        case ("wait", seconds):
            world.now += timedelta(seconds=seconds)
        case ("replicas", replicas):
            world.scale(replicas)
        case ("restart", stamp):
            world.restart(stamp)
        case ("labels", labels):
            world.labels = labels
        case ("node_env", value):
            world.set("NODE_ENV", value)
        case ("suspend", suspend):
            world.ask(suspend=suspend)
        case ("delete",):
            world.ask(delete=True)
        case ("wipe status",) if world.marked or world.status.injection is None:
            world.wipe_status()
        case ("wipe status",):
            pass  # with both marks taken out as well it is an orphan: the sweep's, not this experiment's


def _last_trace(world: World, name: str) -> bool:
    """Whether nothing but this mark tells of the injection: the status was wiped."""
    marks = [mark for mark in (EXPERIMENT, EXPERIMENT_UID) if world.owners.get(mark) == OURS]
    return world.status.injection is None and marks == [name]


def refusing(world: World) -> bool:
    """Said without the nets: whether nothing may be injected here and now."""
    return (
        world.labels != ALLOWED
        or world.env.get("NODE_ENV") == "production"
        or world.replicas == 0
        or world.suspend
        or world.deleting
        or (world.status.expires_at is not None and world.now >= world.status.expires_at)
    )


@given(originals=ORIGINALS, events=st.lists(EVENTS, max_size=25))
@example({}, [("step", 3), ("set", EXPERIMENT, None), ("wipe status",), ("set", EXPERIMENT_UID, None)])
def test_any_history(originals: dict[str, str], events: list[tuple[Any, ...]]) -> None:
    world = World(now=START, env=dict(originals), owners=dict.fromkeys(originals, "manifest"))
    by_hand: dict[str, str | None] = {}
    for event in events:
        before = (dict(world.env), world.injections, refusing(world))
        left_out = event[0] == "set" and _last_trace(world, event[1])
        play(world, event)
        if event[0] == "step":
            # Never where it is refused; a step neither waits nor bends anything, so before is now.
            assert not (before[2] and world.injections > before[1])
            # What a person set after the injection stays as set, and what they removed stays away.
            for name, value in by_hand.items():
                assert world.env.get(name) == value
        elif (
            event[0] == "set"
            and not left_out
            and (event[2] is None or world.owners.get(event[1]) == "person")
        ):
            by_hand[event[1]] = event[2]
        if world.status.injection is None or world.status.phase is Phase.PENDING:
            by_hand = {}

    # Past the deadline, whatever has happened, it comes to rest with nothing of ours left.
    world.labels, world.now = dict(ALLOWED), world.now + timedelta(days=1)
    world.ask(delete=True)
    world.settle()
    assert not world.finalizer
    assert OURS not in world.owners.values()
    assert world.env.get("CHAOS_EXPERIMENT_UID") != "mine"


@given(originals=ORIGINALS, asked=st.sampled_from(["wait", "delete", "suspend"]))
def test_left_alone_everything_is_as_it_was(originals: dict[str, str], asked: str) -> None:
    world = World(now=START, env=dict(originals), owners=dict.fromkeys(originals, "manifest"))
    before = dict(world.env)
    world.settle()
    assert world.status.phase is Phase.RUNNING
    assert world.env["CHAOS_ENABLED"] == "true"
    if asked == "wait":
        world.now += timedelta(minutes=10)
    world.ask(delete=asked == "delete", suspend=asked == "suspend")
    world.settle()
    assert world.env == before
    assert world.status.phase is Phase.FINISHED
    assert (world.injections, world.generation) == (1, 3)


@given(
    st.dictionaries(
        st.text(max_size=12), st.recursive(st.none() | st.integers() | st.text(), st.lists), max_size=7
    )
)
def test_no_status_can_break_the_parser(raw: dict[str, Any]) -> None:
    keys = ["phase", "startedAt", "effectiveRate", "injected", "target", "conditions", "verdict"]
    shuffled = dict(zip(keys, raw.values(), strict=False)) | raw
    assert isinstance(parse_status(shuffled), Status)


def test_a_key_reads_as_namespace_and_name() -> None:
    assert str(Key("staging", "shadow")) == "staging/shadow"
    assert replace(Status(), reason="x") != Status()
