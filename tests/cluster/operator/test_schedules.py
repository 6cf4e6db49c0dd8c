"""ChaosSchedules on the real API server: created once, run, ended, held, suspended, pruned, deleted."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_testing.api import MERGE, eventually, experiments, schedules
from shadowfault_testing.embedded import EmbeddedOperator
from shadowfault_testing.interposer import Interposer
from shadowfault_testing.objects import schedule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shadowfault_cluster import Cluster
    from shadowfault_testing.operator import Ground, OperatorProcess

pytestmark = pytest.mark.cluster

ENV = [{"name": "NODE_ENV", "value": "staging"}]
# The hour after the one that it is: what a schedule is created in is no minute of the tests.
HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=2)


class Dial:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = HOUR - timedelta(minutes=30)

    def __call__(self) -> datetime:
        with self._lock:
            return self._now

    def set(self, now: datetime) -> None:
        with self._lock:
            self._now = now


@pytest.fixture
def dial() -> Dial:
    return Dial()


@pytest.fixture
def operators(installed: Cluster, own_ground: Ground, dial: Dial) -> Iterator[Interposer]:
    """Two of them by mistake, by one clock, that look at everything every quarter of a second."""
    with ExitStack() as stack:
        between = stack.enter_context(Interposer(installed.kubeconfig))
        for _ in range(2):
            stack.enter_context(
                EmbeddedOperator(
                    between.url, own_ground.namespace, now=dial, resync_seconds=0.25, schedules=True
                )
            )
        yield between


def create(ground: Ground, target: str, name: str = "hourly", **fields: Any) -> None:
    body = schedule(
        name,
        cron="0 * * * *",
        spec={"targetRef": {"name": target}, "duration": "30m"},
        startingDeadlineSeconds=600,
        **fields,
    )
    ground.api.request("POST", schedules(ground.namespace), body)


def status(ground: Ground, name: str = "hourly") -> dict[str, Any]:
    found = ground.api.request("GET", schedules(ground.namespace, name)).get("status")
    return dict(found or {})


def children(ground: Ground) -> list[dict[str, Any]]:
    return list(ground.api.request("GET", experiments(ground.namespace))["items"])


def named(time: datetime, name: str = "hourly") -> str:
    return f"{name}-{int(time.timestamp()) // 60}"


def seen(ground: Ground, **fields: Any) -> None:
    """Wait until the status says so."""
    eventually(
        f"the status to say {fields}", lambda: fields.items() <= status(ground).items() and status(ground)
    )


def text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.usefixtures("operators")
def test_it_creates_one_that_runs_and_ends_and_then_the_next(own_ground: Ground, dial: Dial) -> None:
    target = own_ground.deploy(env=ENV)
    template = {"metadata": {"labels": {"team": "a"}}}
    create(own_ground, target)
    own_ground.api.request(
        "PATCH",
        schedules(own_ground.namespace, "hourly"),
        {"spec": {"experimentTemplate": template}},
        MERGE,
    )
    seen(own_ground, nextScheduleTime=text(HOUR), active=[])
    assert children(own_ground) == []
    dial.set(HOUR)
    own_ground.await_phase(named(HOUR), "Running")
    (only,) = children(own_ground)
    assert only["metadata"]["labels"] == {"team": "a", "chaos.shadowfault.dev/schedule": "hourly"}
    (owner,) = only["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("ChaosSchedule", "hourly", True)
    active = [{"name": named(HOUR), "uid": only["metadata"]["uid"]}]
    seen(own_ground, lastScheduleTime=text(HOUR), active=active)
    assert own_ground.env(target)["CHAOS_ENABLED"] == {"value": "true"}
    # Held while one runs: the next time passes, and is made up for when the run has ended.
    own_ground.api.request(
        "PATCH",
        schedules(own_ground.namespace, "hourly"),
        {"spec": {"schedule": "*/5 * * * *"}},
        MERGE,
    )
    dial.set(HOUR + timedelta(minutes=5))
    seen(own_ground, nextScheduleTime=text(HOUR + timedelta(minutes=10)), active=active)
    assert len(children(own_ground)) == 1
    dial.set(HOUR + timedelta(minutes=31))
    eventually("the run to end", lambda: own_ground.status(named(HOUR)).get("reason") == "Expired")
    later = HOUR + timedelta(minutes=30)
    eventually("the latest missed", lambda: own_ground.experiment(named(later)))
    own_ground.await_phase(named(later), "Running")
    assert {item["metadata"]["name"] for item in children(own_ground)} == {named(HOUR), named(later)}


@pytest.mark.usefixtures("operators")
def test_deleting_it_deletes_and_ends_what_runs(own_ground: Ground, dial: Dial) -> None:
    target = own_ground.deploy(env=ENV)
    create(own_ground, target)
    seen(own_ground, active=[])
    dial.set(HOUR)
    own_ground.await_phase(named(HOUR), "Running")
    own_ground.api.request("DELETE", schedules(own_ground.namespace, "hourly"))
    # The garbage collector learns of a new kind within half a minute.
    eventually("it to go", lambda: own_ground.experiment(named(HOUR)) is None, seconds=90)
    assert own_ground.env(target) == {"NODE_ENV": {"value": "staging"}}


@pytest.mark.usefixtures("operators")
def test_suspended_it_creates_nothing(own_ground: Ground, dial: Dial) -> None:
    target = own_ground.deploy(env=ENV)
    create(own_ground, target, suspend=True)
    create(own_ground, target, name="beside")
    seen(own_ground, active=[])
    assert "nextScheduleTime" not in status(own_ground)
    dial.set(HOUR)
    own_ground.await_phase(named(HOUR, "beside"), "Running")
    assert [item["metadata"]["name"] for item in children(own_ground)] == [named(HOUR, "beside")]


@pytest.mark.usefixtures("operators")
def test_what_is_deleted_is_not_created_again_and_what_failed_is_pruned(
    own_ground: Ground, dial: Dial
) -> None:
    create(own_ground, "nothing-of-that-name")
    seen(own_ground, active=[])
    for hour in range(3):
        time = HOUR + timedelta(hours=hour)
        dial.set(time)
        own_ground.await_phase(named(time), "Refused", "TargetNotFound")
        seen(own_ground, lastScheduleTime=text(time), active=[])
        eventually(
            "the history to be cut",
            lambda time=time: [item["metadata"]["name"] for item in children(own_ground)] == [named(time)],
        )
    own_ground.api.request("DELETE", experiments(own_ground.namespace, named(time)))
    dial.set(time + timedelta(minutes=1))
    own_ground.await_gone(named(time))
    own_ground.api.request(
        "PATCH", schedules(own_ground.namespace, "hourly"), {"spec": {"suspend": True}}, MERGE
    )
    generation = own_ground.api.request("GET", schedules(own_ground.namespace, "hourly"))["metadata"]
    seen(own_ground, observedGeneration=generation["generation"])
    assert children(own_ground) == []


def stalled(ground: Ground) -> str | None:
    conditions = {item["type"]: item for item in status(ground).get("conditions", [])}
    found = conditions.get("Stalled")
    return str(found["reason"]) if found and found["status"] == "True" else None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"timeZone": "Mars/Olympus"}, "InvalidTimeZone"), ({"schedule": "0 0 30 2 *"}, "InvalidSchedule")],
    ids=["zone", "cron"],
)
def test_what_makes_no_sense_is_said_once_and_can_be_put_right(
    own_ground: Ground, operators: Interposer, dial: Dial, fields: dict[str, str], reason: str
) -> None:
    path = schedules(own_ground.namespace, "hourly")
    create(own_ground, own_ground.deploy(env=ENV))
    own_ground.api.request("PATCH", path, {"spec": fields}, MERGE)
    eventually("the condition", lambda: stalled(own_ground) == reason)
    eventually("the Event", lambda: own_ground.events("hourly") == [reason])
    own_ground.api.request("PATCH", path, {"spec": {"timeZone": "UTC", "schedule": "0 * * * *"}}, MERGE)
    eventually("nothing to stall it", lambda: stalled(own_ground) is None)
    dial.set(HOUR)
    own_ground.await_phase(named(HOUR), "Running")
    assert operators.url


def test_a_scrape_shows_its_state_and_when_it_is_due(
    own_ground: Ground, own_operator: OperatorProcess
) -> None:
    own_operator.start()
    path = schedules(own_ground.namespace, "hourly")
    due = f'{{namespace="{own_ground.namespace}",schedule="hourly"}}'

    def is_now(state: str) -> None:
        sample = f'shadowfault_schedules{{state="{state}"}}'
        eventually(f"it to be {state}", lambda: own_operator.metric(sample) == 1)

    create(own_ground, "nowhere", timeZone="Mars/Olympus")
    is_now("stalled")
    own_ground.api.request("PATCH", path, {"spec": {"timeZone": "UTC"}}, MERGE)
    is_now("active")
    found = own_operator.metric(f"shadowfault_schedule_next_timestamp_seconds{due}")
    assert (found % 3600, found > datetime.now(UTC).timestamp()) == (0, True)
    own_ground.api.request("PATCH", path, {"spec": {"suspend": True}}, MERGE)
    is_now("suspended")
    own_ground.api.request("DELETE", path)
    eventually("it to be gone", lambda: "hourly" not in (own_operator.get("/metrics") or "hourly"))
