"""The operator is killed at each single request it sends: what it had begun is finished by the next one.

The number of requests is discovered by a run that is left alone. Then there is one run for each request that
is lost, and one for each write that arrives and whose answer is lost; nothing passes afterwards. All of them
are taken up by a second operator, and what must hold then does (docs/safety.md).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest

from shadowfault_testing.embedded import EmbeddedOperator
from shadowfault_testing.interposer import LOSE_REQUEST, UNHINDERED, Answer, crash_points
from shadowfault_testing.lifecycle import FLOWS, NAME, TARGET, Case, Flow, check, restored

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_cluster import Cluster
    from shadowfault_testing.api import Api
    from shadowfault_testing.interposer import Interposer, Request, Rule, Verdict

pytestmark = pytest.mark.cluster

# Of an operator until it rests, for each experiment. It takes fifteen or so.
_MOST_REQUESTS = 60


def conflict_once() -> Rule:
    """Each write of an object is refused with a conflict the first time."""
    seen: set[tuple[str, str]] = set()

    def rule(request: Request) -> Verdict:
        write = (request.path, request.query.get("fieldManager", ""))
        if request.method != "PATCH" or write in seen:
            return UNHINDERED
        seen.add(write)
        return Answer(409, "Conflict")

    return rule


def serve(between: Interposer, cases: list[Case], until: Callable[[Case], bool], flow: Flow) -> None:
    """Run an operator over the cases until they are through and it has come to rest."""
    between.begin_again()
    between.obey(conflict_once() if flow.conflicts else None)
    namespaces = [case.ground.namespace for case in cases]
    with EmbeddedOperator(between.url, *namespaces, now=flow.now, workers=8):
        most = _MOST_REQUESTS * len(cases)
        between.await_rest(most=most)
        left = list(cases)

        def through() -> bool:
            left[:] = [case for case in left if not until(case)]
            return not left

        try:
            between.await_rest(through, most=most)
        except AssertionError as error:
            raise AssertionError(
                str(error), [(case.ground.namespace, case.ground.status(NAME)) for case in left]
            ) from None
        between.cut()


def prepared(between: Interposer, cluster: Cluster, api: Api, flow: Flow, count: int) -> list[Case]:
    """That many cases up to where the flow begins."""
    cases = [Case.create(cluster, api, flow.originals) for _ in range(count)]
    if flow.provoke is not None:
        serve(between, cases, Case.running, FLOWS["inject"])
        for case in cases:
            flow.provoke(case)
    return cases


def crash(between: Interposer, case: Case, flow: Flow, request: Request, how: str) -> None:
    """Run an operator that is killed at this request."""
    between.begin_again()
    between.obey(conflict_once() if flow.conflicts else None)
    crashed = between.crash_at(request.number, how)
    with EmbeddedOperator(between.url, case.ground.namespace, now=flow.now):
        assert crashed.happened.wait(30), (
            f"there was no request {request.number} as in the first run: {request}"
        )


def test_what_is_mended_stays_so_on_a_busy_machine(between: Interposer) -> None:
    between.begin_again()
    # Its loop has other things to do when it is told.
    between._loop.call_soon_threadsafe(time.sleep, 0.2)
    between.cut()
    between.mend()
    assert httpx.get(f"{between.url}/version", trust_env=False).status_code == 200


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS.keys())
def test_killed_at_each_request(installed: Cluster, api: Api, between: Interposer, flow: Flow) -> None:
    (alone,) = prepared(between, installed, api, flow, 1)
    serve(between, [alone], flow.done, flow)
    check(alone, flow, "left alone")
    requests = list(between.requests)
    assert any(request.writes for request in requests)

    points = crash_points(requests)
    cases = prepared(between, installed, api, flow, len(points))
    for case, (request, how) in zip(cases, points, strict=True):
        crash(between, case, flow, request, how)
    serve(between, cases, flow.done, flow)
    for case, (request, how) in zip(cases, points, strict=True):
        # The Event that was on its way may be lost; the condition says the same.
        check(case, flow, f"{how}: {request.number} {request}", lost_events=1)

    still = [case for case in cases if not case.gone()]
    if flow.done in {Case.running, Case.lowered}:
        end_all(between, still, flow)


def test_no_injection_and_no_restore_waits_for_an_event(
    installed: Cluster, api: Api, between: Interposer
) -> None:
    flow = FLOWS["delete"]
    (case,) = prepared(between, installed, api, FLOWS["inject"], 1)
    serve(between, [case], Case.running, FLOWS["inject"])
    injecting = [request.path.split("/")[-2] for request in between.writes()]
    case.delete()
    serve(between, [case], Case.gone, flow)
    restoring = [request.path.split("/")[-2] for request in between.writes()]
    # A delete is told on the target too.
    for kinds, count in ((injecting, 2), (restoring, 3)):
        events = [number for number, request in enumerate(kinds) if request == case.ground.namespace]
        assert len(events) == count
        assert kinds.index("deployments") < events[0], kinds


def test_a_delete_is_begun_with_what_was_told_of_it(
    installed: Cluster, api: Api, between: Interposer
) -> None:
    """So that the restore comes third; the enumeration above is over these very requests."""
    (case,) = prepared(between, installed, api, FLOWS["inject"], 1)
    serve(between, [case], Case.running, FLOWS["inject"])
    case.delete()
    serve(between, [case], Case.gone, FLOWS["delete"])
    paths = [(request.method, request.path.rsplit("/", 1)[-1]) for request in between.requests]
    restored_at = paths.index(("PATCH", TARGET))
    assert ("GET", NAME) not in paths[:restored_at], paths
    assert paths.index(("PATCH", "status")) < restored_at, paths


def test_a_target_that_changed_in_the_middle_of_an_injection(
    installed: Cluster, api: Api, between: Interposer
) -> None:
    """Whether it was injected and taken out again, or never, nobody can tell: it is not injected again."""
    flow = FLOWS["inject"]
    alone, case = prepared(between, installed, api, flow, 2)
    serve(between, [alone], Case.running, flow)
    injection = next(one for one in between.requests if one.writes and one.path.endswith(f"/{TARGET}"))
    crash(between, case, flow, injection, LOSE_REQUEST)
    case.ground.patch_target(TARGET, {"spec": {"replicas": 2}})
    serve(between, [case], Case.finished, flow)
    assert case.ground.status(NAME)["reason"] == "Interrupted"
    assert case.ground.generation(TARGET) == 2


def end_all(between: Interposer, cases: list[Case], flow: Flow) -> None:
    """What runs after a crash ends as any other."""
    for case in cases:
        case.delete()
    serve(between, cases, Case.gone, flow)
    for case in cases:
        restored(case, flow, case.ground.target(TARGET)["spec"], case.ground.namespace)
