"""The installed injector: reach, keys, threads, deadline and disarm."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault import (
    ChaosConfig,
    Fault,
    FaultInjector,
    InjectedFault,
    Scope,
    Surface,
    draw,
    plan,
    surfaces_of,
)
from shadowfault.decision import State, prepared, threshold

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ALWAYS = ChaosConfig(enabled=True, fail_rate=1.0, seed="s", experiment="staging/x", experiment_uid="uid-1")


@dataclass
class Clock:
    """Both clocks of a process, to be moved by hand."""

    wall: float = NOW.timestamp()
    monotonic: float = 1000.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def injector_until(clock: Clock, seconds: float, config: ChaosConfig = ALWAYS) -> FaultInjector:
    config = replace(config, expires_at=datetime.fromtimestamp(clock.wall, UTC) + timedelta(seconds=seconds))
    return FaultInjector(config, clock=lambda: clock.wall, monotonic=lambda: clock.monotonic)


def fails(injector: FaultInjector) -> bool:
    return injector.check(Surface.SHADOW_WRITE, "Listing", "create") is not None


REACH = {
    Scope.SHADOW_WRITE_ONLY: {Surface.SHADOW_WRITE},
    Scope.ALL_WRITES: {Surface.SHADOW_WRITE, Surface.NON_CRITICAL_WRITE},
    Scope.READS: {Surface.SHADOW_WRITE, Surface.NON_CRITICAL_WRITE, Surface.READ},
}


@pytest.mark.parametrize("surface", list(Surface))
@pytest.mark.parametrize("scope", list(Scope))
def test_a_scope_reaches_its_surfaces_and_no_other(scope: Scope, surface: Surface) -> None:
    injector = FaultInjector(replace(ALWAYS, scope=scope))
    assert (injector.check(surface, "Listing", "create") is not None) == (surface in REACH[scope])
    assert surfaces_of(scope) == REACH[scope]


def test_the_primary_critical_write_has_no_surface() -> None:
    assert set(Surface) == {"shadow_write", "non_critical_write", "read"}


def test_a_fault_says_what_it_is() -> None:
    injector = FaultInjector(ALWAYS)
    check = injector.check
    assert check(Surface.SHADOW_WRITE, "Listing", "create") == Fault(
        "Listing", "create", 0, 0, "staging/x", "uid-1"
    )
    assert check(Surface.SHADOW_WRITE, "Listing", "create", request_id="r", attempt=2) == Fault(
        "Listing", "create", "r", 2, "staging/x", "uid-1"
    )


def test_an_injected_fault_carries_its_fault() -> None:
    fault = Fault("Listing", "create", 0, 0, None, None)
    assert InjectedFault(fault).fault is fault
    assert str(InjectedFault(fault)) == "injected fault: create of Listing"


def test_calls_are_counted_per_entity_type_and_operation() -> None:
    injector = FaultInjector(ALWAYS)
    calls = [("Listing", "create"), ("Listing", "delete"), ("User", "create"), ("Listing", "create")]
    faults = [injector.check(Surface.SHADOW_WRITE, *call) for call in calls]
    assert [fault and fault.key for fault in faults] == [0, 0, 0, 1]


def test_a_run_follows_its_plan() -> None:
    injector = FaultInjector(replace(ALWAYS, fail_rate=0.3))
    assert [fails(injector) for _ in range(200)] == list(plan("s", 0.3, "create", 200))


def test_a_request_is_decided_alike_on_every_replica_and_does_not_disturb_the_count() -> None:
    config = replace(ALWAYS, fail_rate=0.5)
    one, other = FaultInjector(config), FaultInjector(config)
    ids = [f"request-{number}" for number in range(100)]

    def decide(injector: FaultInjector, order: list[str]) -> dict[str, bool]:
        return {
            name: injector.check(Surface.SHADOW_WRITE, "Listing", "create", request_id=name) is not None
            for name in order
        }

    assert decide(one, ids) == decide(other, ids[::-1])
    assert decide(one, ids) == {name: draw("s", "Listing", "create", name, 0) < 0.5 for name in ids}
    assert [fails(one) for _ in range(50)] == list(plan("s", 0.5, "create", 50))


def test_an_empty_request_id_is_none() -> None:
    fault = FaultInjector(ALWAYS).check(Surface.SHADOW_WRITE, "Listing", "create", request_id="")
    assert fault is not None
    assert fault.key == 0


def test_another_attempt_is_another_decision() -> None:
    injector = FaultInjector(replace(ALWAYS, fail_rate=0.5))
    decisions = [
        injector.check(Surface.SHADOW_WRITE, "Listing", "create", request_id="r", attempt=attempt) is not None
        for attempt in range(40)
    ]
    assert decisions == [draw("s", "Listing", "create", "r", attempt) < 0.5 for attempt in range(40)]
    assert len(set(decisions)) == 2


def test_threads_cannot_change_the_pattern() -> None:
    injector = FaultInjector(replace(ALWAYS, fail_rate=0.5))

    def work(_: int) -> list[int]:
        faults = (injector.check(Surface.SHADOW_WRITE, "Listing", "create") for _ in range(500))
        return [int(fault.key) for fault in faults if fault]

    with ThreadPoolExecutor(8) as pool:
        failed = sorted(key for keys in pool.map(work, range(8)) for key in keys)
    assert failed == [n for n, fault in enumerate(plan("s", 0.5, "create", 4000)) if fault]


def test_threads_that_begin_together_share_one_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call of an operation is slow here, so that without a lock others would begin it as well."""
    together = Barrier(8)

    def slowly_prepared(*names: str) -> State:
        time.sleep(0.02)
        return prepared(*names)

    monkeypatch.setattr("shadowfault.injector.prepared", slowly_prepared)
    injector = FaultInjector(ALWAYS)

    def work(_: int) -> int | str:
        together.wait()
        fault = injector.check(Surface.SHADOW_WRITE, "Listing", "create")
        assert fault is not None
        return fault.key

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(work, range(8)), key=int) == list(range(8))


@given(st.floats(0, 1), st.text(max_size=20), st.integers(0, 3))
def test_the_injector_decides_by_the_documented_draw(rate: float, request_id: str, attempt: int) -> None:
    """It compares bytes where the documentation compares numbers: the answer is the same to the last bit."""
    injector = FaultInjector(replace(ALWAYS, fail_rate=rate))
    for n in range(3):
        fault = injector.check(
            Surface.SHADOW_WRITE, "Listing", "create", request_id=request_id, attempt=attempt
        )
        assert (fault is not None) == (draw("s", "Listing", "create", request_id or n, attempt) < rate)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**53))
def test_the_threshold_is_exact_at_its_edges(digest: int, numerator: int) -> None:
    rate = math.ldexp(numerator, -53)
    edge = numerator << 11
    for one in {digest, max(0, edge - 1), min(edge, 2**64 - 1)}:
        assert (one.to_bytes(8, "big") < threshold(rate)) == (math.ldexp(one >> 11, -53) < rate)


def test_faults_are_counted_for_every_operation_that_asked() -> None:
    injector = FaultInjector(replace(ALWAYS, scope=Scope.ALL_WRITES))
    for _ in range(3):
        fails(injector)
    injector.check(Surface.NON_CRITICAL_WRITE, "Listing", "view")
    injector.check(Surface.READ, "Listing", "read")
    assert injector.faults() == {("Listing", "create"): 3, ("Listing", "view"): 1}


def test_a_draw_equal_to_the_rate_does_not_fail() -> None:
    rate = draw("s", "Listing", "create", 0, 0)
    assert not fails(FaultInjector(replace(ALWAYS, fail_rate=rate)))
    assert fails(FaultInjector(replace(ALWAYS, fail_rate=math.nextafter(rate, 1.0))))


@pytest.mark.parametrize("config", [replace(ALWAYS, fail_rate=0.0), replace(ALWAYS, enabled=False)])
def test_rate_zero_and_disabled_never_fail(config: ChaosConfig) -> None:
    assert not any(fails(FaultInjector(config)) for _ in range(100))


def test_without_a_deadline_it_goes_on() -> None:
    clock = Clock()
    injector = FaultInjector(ALWAYS, clock=lambda: clock.wall, monotonic=lambda: clock.monotonic)
    clock.pass_by(1e9)
    assert fails(injector)
    assert injector.active


def test_the_deadline_ends_it_to_the_instant() -> None:
    clock = Clock()
    injector = injector_until(clock, 60)
    clock.pass_by(59.5)
    assert fails(injector)
    clock.pass_by(0.5)
    assert not fails(injector)
    assert not injector.active


def test_a_deadline_in_the_past_lets_nothing_through() -> None:
    assert not fails(injector_until(Clock(), -1))


def test_expired_stays_expired_when_the_clock_goes_back() -> None:
    clock = Clock()
    injector = injector_until(clock, 60)
    clock.wall += 60
    assert not fails(injector)
    clock.wall -= 3600
    assert not fails(injector)
    assert not injector.active


def test_a_clock_set_back_does_not_prolong_the_run() -> None:
    clock = Clock()
    injector = injector_until(clock, 60)
    clock.wall -= 3600
    clock.pass_by(60)
    assert not fails(injector)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-1000, 1000)), max_size=20))
def test_no_clock_makes_it_outlive_its_deadline(steps: list[tuple[float, float]]) -> None:
    """Time passes and the wall clock jumps; it is never active late by either clock, nor again once over."""
    clock = Clock()
    start = clock.monotonic
    injector = injector_until(clock, 60)
    deadline = clock.wall + 60
    over = False
    for passed, jump in steps:
        clock.pass_by(passed)
        clock.wall += jump
        active = fails(injector)
        assert active == injector.active
        assert not (active and (over or clock.wall >= deadline or clock.monotonic - start >= 60))
        over = over or not active


def test_disarm_ends_its_own_experiment_for_good() -> None:
    injector = FaultInjector(ALWAYS)
    assert injector.disarm("uid-1")
    assert injector.disarm("uid-1")
    assert not fails(injector)
    assert not injector.active
    assert injector.describe()["disarmed"]


@pytest.mark.parametrize("uid", ["uid-2", "", "UID-1", "None"])
def test_disarm_of_another_experiment_changes_nothing(uid: str) -> None:
    injector = FaultInjector(ALWAYS)
    assert not injector.disarm(uid)
    assert fails(injector)
    assert not injector.describe()["disarmed"]


@pytest.mark.parametrize("uid", ["", "None", "uid-1"])
def test_what_no_experiment_started_no_experiment_ends(uid: str) -> None:
    injector = FaultInjector(replace(ALWAYS, experiment=None, experiment_uid=None))
    assert not injector.disarm(uid)
    assert fails(injector)


def test_description() -> None:
    clock = Clock()
    injector = injector_until(clock, 60)
    expected = {
        "enabled": True,
        "active": True,
        "failRate": 1.0,
        "scope": "shadow_write_only",
        "seed": "s",
        "expiresAt": "2026-01-31T12:01:00Z",
        "experiment": "staging/x",
        "experimentUid": "uid-1",
        "disarmed": False,
    }
    assert injector.describe() == expected
    clock.pass_by(60)
    assert injector.describe() == expected | {"active": False}


def test_description_without_an_experiment() -> None:
    description = FaultInjector(ChaosConfig(enabled=True, fail_rate=0.1)).describe()
    assert description["expiresAt"] is description["experiment"] is description["experimentUid"] is None
