"""What network, API server, clock and a second operator may do: the same holds as after a crash."""

from __future__ import annotations

import random
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from shadowfault_testing.api import eventually
from shadowfault_testing.embedded import EmbeddedOperator, right_now
from shadowfault_testing.interposer import LOSE_ANSWER, LOSE_REQUEST, UNHINDERED, Answer, Interposer
from shadowfault_testing.lifecycle import FLOWS, NAME, TARGET, VALUES, Case, check

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_cluster import Cluster
    from shadowfault_testing.api import Api
    from shadowfault_testing.interposer import Request, Rule, Verdict

pytestmark = pytest.mark.cluster

ENDS = {name: FLOWS[name] for name in ("delete", "suspend", "override", "lowered rate")}
PATIENCE = 1


def what(request: Request) -> tuple[str, str, str]:
    # Lists are read one after the other: one of them stands for all.
    path = "" if "limit" in request.query else request.path
    return request.method, path, request.query.get("fieldManager", "")


def each_once(verdict: Verdict, *, reads: bool = True) -> Rule:
    """What is asked for the first time meets with this. Events go through, so that they can be counted."""
    seen: set[tuple[str, str, str]] = set()

    def rule(request: Request) -> Verdict:
        if what(request) in seen or request.path.endswith("/events") or not (reads or request.writes):
            return UNHINDERED
        seen.add(what(request))
        return verdict

    return rule


FAULTS: dict[str, Callable[[], Rule]] = {
    "a conflict": lambda: each_once(Answer(409, "Conflict"), reads=False),
    "too many requests": lambda: each_once(
        Answer(429, "TooManyRequests", {"Retry-After": str(PATIENCE)}), reads=False
    ),
    "an error": lambda: each_once(Answer(500, "InternalError")),
    "an error after it was done": lambda: each_once(Answer(500, "InternalError", forward=True)),
    "a lost request": lambda: each_once(LOSE_REQUEST),
    "a lost answer": lambda: each_once(LOSE_ANSWER),
}


def serve(
    between: Interposer,
    cases: dict[Case, Callable[[Case], bool]],
    rule: Rule | None = None,
    operators: int = 1,
) -> None:
    """Run operators over the cases until each is where it should be and no more requests come."""
    between.begin_again()
    between.obey(rule)
    namespaces = [case.ground.namespace for case in cases]
    with ExitStack() as stack:
        for _ in range(operators):
            stack.enter_context(EmbeddedOperator(between.url, *namespaces, workers=8))
        try:
            eventually(
                "all cases",
                lambda: all(done(case) for case, done in cases.items()) and between.quiet(PATIENCE + 0.5),
                seconds=60,
            )
        except TimeoutError:
            raise AssertionError([case.ground.status(NAME) for case in cases]) from None
        between.cut()


def live_through(
    between: Interposer,
    cluster: Cluster,
    api: Api,
    rule: Callable[[], Rule | None] = lambda: None,
    operators: int = 1,
) -> list[Request]:
    """One case for each end, from the begin; returns the requests that were sent."""
    cases = [(Case.create(cluster, api, VALUES), flow) for flow in ENDS.values()]
    serve(between, {case: Case.running for case, _ in cases}, rule(), operators)
    requests = list(between.requests)
    for case, _ in cases:
        check(case, FLOWS["inject"], "running")
    for case, flow in cases:
        assert flow.provoke is not None
        flow.provoke(case)
    serve(between, {case: flow.done for case, flow in cases}, rule(), operators)
    for (case, flow), name in zip(cases, ENDS, strict=True):
        check(case, flow, name)
    return requests + list(between.requests)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_everything_fails_once(
    installed: Cluster, api: Api, between: Interposer, fault: Callable[[], Rule]
) -> None:
    live_through(between, installed, api, fault)


def test_the_api_server_is_left_alone_for_as_long_as_it_asks(
    installed: Cluster, api: Api, between: Interposer
) -> None:
    case = Case.create(installed, api, VALUES)
    refused = Answer(429, "TooManyRequests", {"Retry-After": str(PATIENCE)})
    serve(between, {case: Case.running}, each_once(refused, reads=False))
    writes = [request for request in between.writes() if request.method == "PATCH"]
    for number, request in enumerate(writes):
        if what(request) not in map(what, writes[:number]):
            # Neither this request again nor a look at the experiment.
            after = [later.at for later in between.requests if later.number > request.number]
            events = {later.at for later in between.requests if later.path.endswith("/events")}
            assert min(set(after) - events) >= request.at + PATIENCE


def test_two_operators(installed: Cluster, api: Api, between: Interposer) -> None:
    """By mistake; in any order in which their requests may come."""
    chance = random.Random(4)  # noqa: S311 - an order
    between.hold_back(lambda _: chance.uniform(0, 0.03))
    try:
        for _ in range(2):
            live_through(between, installed, api, operators=2)
    finally:
        between.hold_back(lambda _: 0.0)


class Wall:
    """A clock on the wall, which someone may set."""

    def __init__(self) -> None:
        self._offset = timedelta(0)

    def __call__(self) -> datetime:
        return right_now() + self._offset

    def jump(self, **delta: float) -> None:
        self._offset += timedelta(**delta)


def errors(operator: EmbeddedOperator) -> float:
    """Passes that failed because nothing answered."""
    assert operator.parts is not None
    failed = operator.parts.metrics.reconcile_errors.labels("UnavailableError")
    return sum(sample.value for sample in failed.collect()[0].samples if sample.name.endswith("_total"))


def test_the_deadline_passes_in_a_network_cut(installed: Cluster, api: Api, between: Interposer) -> None:
    case, wall = Case.create(installed, api, VALUES), Wall()
    between.begin_again()
    with EmbeddedOperator(between.url, case.ground.namespace, now=wall) as operator:
        # Its Event comes a moment after its phase.
        eventually("the run", lambda: case.running() and between.quiet())
        between.cut()
        wall.jump(hours=1)
        eventually("tries that reach nobody", lambda: errors(operator) >= 2)
        assert case.running()
        between.mend()
        eventually("the end", case.finished)
        eventually("no request", between.quiet)
        between.cut()
    check(case, FLOWS["expiry"], "network cut")


def test_a_clock_set_back_puts_nothing_off(installed: Cluster, api: Api, between: Interposer) -> None:
    case, wall = Case.create(installed, api, VALUES, duration="3s"), Wall()
    between.begin_again()
    with EmbeddedOperator(between.url, case.ground.namespace, now=wall):
        eventually("the run", case.running)
        wall.jump(hours=-1)
        eventually("the end", case.finished)
        eventually("no request", between.quiet)
        between.cut()
    check(case, FLOWS["expiry"], "set back")


def test_a_clock_set_ahead_ends_what_it_has_passed(installed: Cluster, api: Api, between: Interposer) -> None:
    case, wall = Case.create(installed, api, VALUES), Wall()
    between.begin_again()
    with EmbeddedOperator(between.url, case.ground.namespace, now=wall):
        eventually("the run", case.running)
        generation = case.ground.generation(TARGET)
        wall.jump(minutes=9)
        eventually("no request", lambda: between.quiet(1))
        assert (case.running(), case.ground.generation(TARGET)) == (True, generation)
        wall.jump(minutes=2)
        eventually("the end", case.finished)
        eventually("no request", between.quiet)
        between.cut()
    check(case, FLOWS["expiry"], "set ahead")
