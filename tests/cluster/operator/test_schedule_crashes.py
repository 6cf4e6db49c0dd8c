"""The operator is killed at each single request it sends for a schedule; see test_crashes.py for experiments.

Nobody sees to the experiments it creates: where one has to have ended, the test writes that it has.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_testing.api import MERGE, experiments, schedules
from shadowfault_testing.embedded import EmbeddedOperator
from shadowfault_testing.interposer import crash_points
from shadowfault_testing.objects import schedule
from shadowfault_testing.operator import Ground

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_cluster import Cluster
    from shadowfault_testing.api import Api, Json
    from shadowfault_testing.interposer import Interposer

pytestmark = pytest.mark.cluster

NAME = "hourly"
# At least one full hour lies between the creation of a schedule and the one before this one.
HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=3)
AN_HOUR = timedelta(hours=1)


def named(time: datetime) -> str:
    return f"{NAME}-{int(time.timestamp()) // 60}"


def text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def given_up(time: datetime, reason: str) -> Json:
    return {"time": text(time), "reason": reason}


def refuse(ground: Ground) -> None:
    """Have the one that is there end at once."""
    (only,) = ground.api.request("GET", experiments(ground.namespace))["items"]
    about = only["metadata"]
    # By the clock of the API server, which is hours behind that of the operator.
    ended = {"phase": "Refused", "reason": "TargetNotFound", "finishedAt": about["creationTimestamp"]}
    ground.set_status(about["name"], ended)


def refuse_and_wipe(ground: Ground) -> None:
    """As if it had ended before the operator that created it could write its own status."""
    refuse(ground)
    ground.api.request("PATCH", f"{schedules(ground.namespace, NAME)}/status", {"status": None}, MERGE)


def refuse_and_close(ground: Ground) -> None:
    """And the admission policy takes no further experiments there."""
    refuse(ground)
    ground.label_namespace(allowed=None)


def children(ground: Ground) -> list[str]:
    return [
        item["metadata"]["name"] for item in ground.api.request("GET", experiments(ground.namespace))["items"]
    ]


@dataclass(frozen=True)
class Flow:
    """What the operator is killed in the middle of, and what there is in the end."""

    # The operator looks at `HOUR + after`. With `provoke` another has looked at HOUR, and then this happened.
    after: timedelta = timedelta(minutes=1)
    provoke: Callable[[Ground], None] | None = None
    spec: Json = field(default_factory=dict)
    left: tuple[str, ...] = ()
    status: Json = field(default_factory=dict)
    standing: str = "Scheduled"
    events: tuple[str, ...] = ()


FLOWS = {
    # Nobody was there an hour ago; the present time is made up for.
    "creates": Flow(
        left=(named(HOUR),),
        status={"lastScheduleTime": text(HOUR), "lastMissed": given_up(HOUR - AN_HOUR, "TooLate")},
        events=("StartMissed",),
    ),
    "prunes": Flow(
        provoke=refuse_and_wipe,
        spec={"failedExperimentsHistoryLimit": 0},
        status={"lastScheduleTime": text(HOUR)},
        events=("StartMissed",),
    ),
    "prunes and creates": Flow(
        after=AN_HOUR,
        provoke=refuse,
        spec={"failedExperimentsHistoryLimit": 0},
        left=(named(HOUR + AN_HOUR),),
        status={"lastScheduleTime": text(HOUR + AN_HOUR)},
        events=("StartMissed",),
    ),
    "holds": Flow(
        after=AN_HOUR,
        provoke=lambda _: None,
        left=(named(HOUR),),
        status={"lastScheduleTime": text(HOUR), "nextScheduleTime": text(HOUR + 2 * AN_HOUR)},
        events=("StartMissed",),
    ),
    "gives up": Flow(
        after=AN_HOUR + timedelta(minutes=11),
        provoke=lambda _: None,
        left=(named(HOUR),),
        status={"lastScheduleTime": text(HOUR), "lastMissed": given_up(HOUR + AN_HOUR, "Held")},
        events=("StartMissed", "StartMissed"),
    ),
    "is refused": Flow(
        after=AN_HOUR,
        provoke=refuse_and_close,
        left=(named(HOUR),),
        status={"lastScheduleTime": text(HOUR)},
        standing="ExperimentNotCreated",
        events=("ExperimentNotCreated", "StartMissed"),
    ),
    "stalls": Flow(
        spec={"timeZone": "Mars/Olympus"},
        standing="InvalidTimeZone",
        events=("InvalidTimeZone",),
    ),
}


def create(cluster: Cluster, api: Api, flow: Flow) -> Ground:
    ground = Ground(cluster, f"crash-{secrets.token_hex(4)}", api)
    ground.create_namespace()
    body = schedule(NAME, cron="0 * * * *", startingDeadlineSeconds=600, **flow.spec)
    api.request("POST", schedules(ground.namespace), body)
    return ground


def operator(between: Interposer, now: datetime, *grounds: Ground) -> EmbeddedOperator:
    namespaces = [ground.namespace for ground in grounds]
    return EmbeddedOperator(between.url, *namespaces, now=lambda: now, schedules=True, experiments=False)


def serve(between: Interposer, now: datetime, *grounds: Ground) -> None:
    """Run one until all have been looked at and it has come to rest."""
    between.begin_again()
    with operator(between, now, *grounds):
        between.await_rest(
            lambda: all("conditions" in status(ground) for ground in grounds), most=30 * len(grounds)
        )
        between.cut()


def prepared(between: Interposer, cluster: Cluster, api: Api, flow: Flow, count: int) -> list[Ground]:
    """That many schedules up to where the flow begins."""
    grounds = [create(cluster, api, flow) for _ in range(count)]
    if flow.provoke is not None:
        serve(between, HOUR, *grounds)
        for ground in grounds:
            flow.provoke(ground)
    return grounds


def status(ground: Ground) -> dict[str, Any]:
    found = ground.api.request("GET", schedules(ground.namespace, NAME)).get("status")
    return dict(found or {})


def check(ground: Ground, flow: Flow, where: str, *, lost_events: int = 0) -> None:
    """Each time was created at most once, none is lost without a reason, and nothing is told twice."""
    seen = status(ground)
    assert children(ground) == list(flow.left), (where, seen)
    assert flow.status.items() <= seen.items(), (where, seen)
    assert {item["reason"] for item in seen["conditions"]} == {flow.standing}, (where, seen)
    listed = ground.api.request("GET", f"/api/v1/namespaces/{ground.namespace}/events")["items"]
    said = [item["reason"] for item in listed if item["involvedObject"]["name"] == NAME]
    assert sum(item["count"] for item in listed) == len(listed), (where, said)
    missing = list(flow.events)
    for reason in said:
        assert reason in missing, (where, said)
        missing.remove(reason)
    assert len(missing) <= lost_events, (where, said)


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS.keys())
def test_killed_at_each_request(installed: Cluster, api: Api, between: Interposer, flow: Flow) -> None:
    now = HOUR + flow.after
    (alone,) = prepared(between, installed, api, flow, 1)
    serve(between, now, alone)
    check(alone, flow, "left alone")
    requests = list(between.requests)
    assert any(request.writes for request in requests)

    points = crash_points(requests)
    grounds = prepared(between, installed, api, flow, len(points))
    for ground, (request, how) in zip(grounds, points, strict=True):
        between.begin_again()
        crashed = between.crash_at(request.number, how)
        with operator(between, now, ground):
            assert crashed.happened.wait(30), f"there was no request {request.number} as before: {request}"
    serve(between, now, *grounds)
    for ground, (request, how) in zip(grounds, points, strict=True):
        # The Event that was on its way may be lost; the status says the same.
        check(ground, flow, f"{how}: {request.number} {request}", lost_events=1)
