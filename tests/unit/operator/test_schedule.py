"""When a schedule is due, what it is named after, what it keeps; its schema is that of experiments."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_operator.missed import Missed, Why, missed
from shadowfault_operator.model import Experiment, Phase, parse_experiment
from shadowfault_operator.schedule import (
    InvalidScheduleError,
    Plan,
    ScheduleSpec,
    experiment_name,
    last_start,
    outdated,
    parse_schedule_spec,
    plan,
    times_before,
    unfinished,
)

CRDS = Path(__file__).parents[3] / "crds"
TEMPLATE = {"spec": {"targetRef": {"name": "api"}, "rate": 0.1, "duration": "15m"}}


def spec(schedule: str = "*/10 * * * *", **fields: Any) -> ScheduleSpec:
    return parse_schedule_spec({"schedule": schedule, "experimentTemplate": TEMPLATE, **fields})


def at(text: str) -> datetime:
    """A time of one day in UTC, or with a date of its own."""
    return datetime.fromisoformat(f"{text}+00:00" if "T" in text else f"2026-01-05T{text}+00:00")


CREATED = at("00:05")


def decide(wanted: ScheduleSpec, now: str, last: str | None = None, active: int = 0) -> Plan:
    return plan(wanted, last=at(last) if last else None, created=CREATED, now=at(now), active=active)


@pytest.mark.parametrize(
    ("now", "last", "expected"),
    [
        # New: nothing before its creation is owed.
        ("00:05", None, Plan(next=at("00:10"))),
        ("00:09:59", None, Plan(next=at("00:10"))),
        ("00:10", None, Plan(start=at("00:10"), next=at("00:20"))),
        # Once a time has been started it is not started again.
        ("00:10:01", "00:10", Plan(next=at("00:20"))),
        ("00:19:59", "00:10", Plan(next=at("00:20"))),
        # Late, but within the deadline; and too late.
        ("00:14:59", None, Plan(start=at("00:10"), next=at("00:20"))),
        ("00:15:00", None, Plan(next=at("00:20"))),
        ("03:07", "00:10", Plan(next=at("03:10"))),
        # A last start far ahead is of a clock that was wrong.
        ("00:10", "2027-01-01T00:00", Plan(start=at("00:10"), next=at("00:20"))),
        ("00:09:59", "00:10", Plan(next=at("00:20"))),
    ],
)
def test_due(now: str, last: str | None, expected: Plan) -> None:
    assert decide(spec(), now, last) == expected


def test_of_several_missed_only_the_latest_is_started() -> None:
    found = decide(spec(startingDeadlineSeconds=3600), "03:07", "00:10")
    assert found == Plan(start=at("03:00"), next=at("03:10"))


def test_while_one_is_active_it_is_held_and_made_up_for_within_the_deadline() -> None:
    assert decide(spec(), "00:10", active=1) == Plan(held=at("00:10"), next=at("00:20"))
    assert decide(spec(), "00:12").start == at("00:10")


def test_suspended_it_is_never_due() -> None:
    assert decide(spec(suspend=True), "00:10") == Plan()


# What is missed


def give_up(wanted: ScheduleSpec, now: str, last: str, *children: Experiment, **seen: bool) -> Missed | None:
    since, active = at(last), len(unfinished(children))
    found = plan(wanted, last=since, created=CREATED, now=at(now), active=active)
    return missed(
        wanted, found, since=since, now=at(now), children=[(at("00:10"), one) for one in children], **seen
    )


@pytest.mark.parametrize(
    ("now", "counts", "latest"),
    [
        ("00:19:59", {}, None),
        # 00:20 can still be made up for.
        ("00:24:59", {}, None),
        ("00:25", {Why.TOO_LATE: 1}, "00:20"),
        ("00:42", {Why.TOO_LATE: 2}, "00:30"),
        # Not counted for ever.
        ("2026-02-05T00:09", {Why.TOO_LATE: 100}, "2026-02-05T00:00"),
    ],
)
def test_what_nobody_was_there_for(now: str, counts: dict[Why, int], latest: str | None) -> None:
    found = give_up(spec(), now, "00:10")
    assert found == (Missed(at(latest), Why.TOO_LATE, counts) if latest else None)


def test_what_a_later_time_takes_the_place_of() -> None:
    wanted = spec(startingDeadlineSeconds=1300)
    assert give_up(wanted, "00:45", "00:10") == Missed(
        at("00:30"), Why.SUPERSEDED, {Why.SUPERSEDED: 1, Why.TOO_LATE: 1}
    )
    assert str(give_up(wanted, "00:45", "00:10")) == (
        "nothing is created for times up to 2026-01-05 00:30 UTC: "
        "1 because a later time was due as well by then, and only the latest is made up for; "
        "1 because nobody was there until the starting deadline had passed"
    )


def test_what_was_held_or_refused() -> None:
    running = experiment(1, "Running")
    # 00:20 is held and not given up; it is when 00:30 is due, or nothing can be made up for.
    assert give_up(spec(), "00:20", "00:10", running) is None
    held = Missed(at("00:20"), Why.HELD, {Why.HELD: 1})
    assert give_up(spec(), "00:25", "00:10", running) == held
    assert give_up(spec(), "00:30", "00:10", running) == held
    for finished_at, why in (("2026-01-05T00:19:59Z", Why.TOO_LATE), ("2026-01-05T00:20:01Z", Why.HELD)):
        status = replace(running.status, phase=Phase.FINISHED, finished_at=at(finished_at[:-1]))
        found = give_up(spec(), "00:25", "00:10", running.with_status(status))
        assert found is not None
        assert found.why is why
    assert give_up(spec(), "00:25", "00:10", held=True) == held
    assert give_up(spec(), "00:25", "00:10", refused=True) == Missed(
        at("00:20"), Why.REFUSED, {Why.REFUSED: 1}
    )


def test_what_was_started_is_not_missed_whatever_the_status_says() -> None:
    """It died after it had created the one of 00:30, and before it could say that it missed two."""
    found = plan(spec(), last=at("00:30"), created=CREATED, now=at("00:31"), active=1)
    there = [(at("00:30"), experiment(1, "Running"))]
    seen = missed(spec(), found, since=CREATED, now=at("00:31"), children=there)
    assert seen == Missed(at("00:20"), Why.TOO_LATE, {Why.TOO_LATE: 2})


def test_suspended_it_misses_nothing() -> None:
    assert give_up(spec(suspend=True), "03:00", "00:10") is None


@given(
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    schedule=st.sampled_from(["*/20 * * * *", "30 * * * *", "30 1,2 * * *"]),
    begin=st.sampled_from(["2026-01-05T00:05", "2026-03-28T22:07", "2026-10-24T21:07"]),
    looks=st.lists(st.tuples(st.integers(1, 100), st.booleans()), min_size=1, max_size=40),
)
def test_each_time_is_started_once_or_missed_once(
    zone: str, schedule: str, begin: str, looks: list[tuple[int, bool]]
) -> None:
    """Whenever somebody looks, and whether something is active then or not."""
    wanted = spec(schedule, timeZone=zone)
    since = now = at(begin)
    decided, pending = 0, 0
    for minutes, active in looks:
        now += timedelta(minutes=minutes)
        found = plan(wanted, last=since, created=at(begin), now=now, active=int(active))
        given_up = missed(wanted, found, since=since, now=now)
        pending = int(found.held is not None)
        if given_up is not None:
            assert since < given_up.latest <= now
            assert given_up.latest < (found.start or found.held or now + timedelta(seconds=1))
            since = given_up.latest
            decided += sum(given_up.counts.values())
        if found.start is not None:
            assert found.start > since
            since = found.start
            decided += 1
    # Those that cron itself names, over the same time.
    owed = [
        *itertools.takewhile(lambda time: time > at(begin), times_before(wanted, now + timedelta(seconds=1)))
    ]
    assert decided + pending == len(owed)


# Berlin: 2026-03-29 has no 02:00 to 03:00, 2026-10-25 has it twice.
@pytest.mark.parametrize(
    ("schedule", "since", "until", "expected"),
    [
        ("30 2 * * *", "2026-03-28T02:00", "2026-03-30T02:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        ("30 2 * * *", "2026-10-24T12:00", "2026-10-26T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        (
            "30 * * * *",
            "2026-10-24T23:45",
            "2026-10-25T02:45",
            ["2026-10-25T00:30", "2026-10-25T01:30", "2026-10-25T02:30"],
        ),
        ("0 3 * * *", "2026-07-01T12:00", "2026-07-02T12:00", ["2026-07-02T01:00"]),
        ("0 3 * * *", "2026-12-01T12:00", "2026-12-02T12:00", ["2026-12-02T02:00"]),
    ],
)
def test_in_a_zone_whose_clocks_change(schedule: str, since: str, until: str, expected: list[str]) -> None:
    wanted = spec(schedule, timeZone="Europe/Berlin")
    started: list[datetime] = []
    now, last = at(since), None
    while now <= at(until):
        found = plan(wanted, last=last, created=at(since), now=now, active=0)
        if found.start is not None:
            started.append(found.start)
            last = found.start
        now += timedelta(minutes=1)
    assert started == [at(text) for text in expected]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"schedule": "every day"}, "InvalidSchedule"),
        ({"schedule": "* * * * * *"}, "InvalidSchedule"),
        ({"schedule": "61 * * * *"}, "InvalidSchedule"),
        ({"schedule": "0 0 30 2 *"}, "InvalidSchedule"),
        ({"timeZone": "Mars/Olympus"}, "InvalidTimeZone"),
        ({"timeZone": "../../etc/passwd"}, "InvalidTimeZone"),
        ({"timeZone": "Europe"}, "InvalidTimeZone"),
        ({"timeZone": ""}, "InvalidTimeZone"),
        ({"startingDeadlineSeconds": 1}, "InvalidSpec"),
        ({"concurrencyPolicy": "Allow"}, "InvalidSpec"),
        ({"experimentTemplate": None}, "InvalidSpec"),
    ],
)
def test_what_makes_no_sense_is_said(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidScheduleError) as caught:
        decide(spec(**{"schedule": "* * * * *", **fields}), "00:10")
    assert caught.value.reason == reason
    assert str(caught.value).startswith("spec.")


@given(
    schedule=st.sampled_from(["* * * * *", "*/7 * * * *", "30 1,2 * * *", "0 0 1 * *"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    now=st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds
    ago=st.integers(0, 7200),
)
def test_a_start_is_after_the_last_and_not_too_late(
    schedule: str, zone: str, now: datetime, ago: int
) -> None:
    wanted, last = spec(schedule, timeZone=zone), now - timedelta(seconds=ago)
    found = plan(wanted, last=last, created=CREATED, now=now, active=0)
    assert found.next is not None
    assert found.next > now
    if found.start is not None:
        assert max(last, now - timedelta(seconds=300)) < found.start <= now
        again = plan(wanted, last=found.start, created=CREATED, now=now, active=0)
        assert again == Plan(next=found.next)


def test_names_are_of_the_minute() -> None:
    assert experiment_name("nightly", datetime.fromtimestamp(60 * 29460000, UTC)) == "nightly-29460000"


def test_what_is_there_counts_as_started_whatever_the_status_says() -> None:
    time = datetime.fromtimestamp(60 * 29460000, UTC)
    there = [experiment(1, "Running", name="e-29460000"), experiment(2, "Running", name="e-other")]
    assert last_start("e", None, there) == time
    assert last_start("e", time - timedelta(minutes=5), there) == time
    assert last_start("e", time + timedelta(minutes=5), there) == time + timedelta(minutes=5)
    assert last_start("e", None, []) is None


# History


def experiment(number: int, phase: str | None, verdict: str | None = None, **metadata: Any) -> Experiment:
    status: dict[str, Any] = {"phase": phase, "finishedAt": "2026-01-01T00:00:00Z"}
    if phase == "Finished" and verdict != "none":
        status["verdict"] = {"result": verdict or "Passed", "reason": "x", "time": status["finishedAt"]}
    stamp = f"2026-01-01T00:00:{number:02}Z"
    about = {"namespace": "n", "name": f"e-{number}", "uid": str(number), "resourceVersion": "1"}
    return parse_experiment(
        {
            "metadata": about | {"creationTimestamp": stamp} | metadata,
            "spec": TEMPLATE["spec"],
            "status": status,
        }
    )


def names(found: list[Experiment]) -> list[str]:
    return [one.key.name for one in found]


def test_what_is_beyond_the_history_goes_the_oldest_first() -> None:
    every = [
        experiment(1, "Finished"),
        experiment(2, "Refused"),
        experiment(3, "Finished", "Failed"),
        experiment(4, "Finished"),
        experiment(5, "Finished", "Inconclusive"),
        experiment(6, "Finished"),
        experiment(7, "Running"),
        experiment(8, None),
    ]
    limits = {"successfulExperimentsHistoryLimit": 1, "failedExperimentsHistoryLimit": 1}
    assert names(outdated(spec(**limits), reversed(every))) == ["e-1", "e-4", "e-2", "e-3"]
    assert names(outdated(spec(), every)) == ["e-2", "e-3"]


def test_what_goes_by_itself_or_is_not_judged_is_left_alone() -> None:
    limits = {"successfulExperimentsHistoryLimit": 0, "failedExperimentsHistoryLimit": 0}
    going = experiment(1, "Finished", deletionTimestamp="2026-01-01T00:01:00Z")
    unjudged = experiment(2, "Finished", "none")
    injected = replace(going.status, injection=object(), verdict=None)  # type: ignore[arg-type]
    assert outdated(spec(**limits), [going, unjudged.with_status(injected)]) == []


def test_active_is_all_that_has_not_ended() -> None:
    phases = [None, "Pending", "Running", "Recovering", "Finished", "Refused"]
    assert names(unfinished(experiment(n, phase) for n, phase in enumerate(phases))) == [
        "e-0",
        "e-1",
        "e-2",
        "e-3",
    ]


# The schema


def schema(name: str) -> Any:
    document = yaml.safe_load((CRDS / f"{name}.yaml").read_text())
    return document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]


def without_transitions(node: Any) -> Any:
    """A schema without the rules that compare with what was, which make no sense in a template."""
    if isinstance(node, list):
        return [without_transitions(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = dict(node)
    if rules := [rule for rule in kept.pop("x-kubernetes-validations", []) if "oldSelf" not in rule["rule"]]:
        return {key: without_transitions(item) for key, item in kept.items()} | {
            "x-kubernetes-validations": rules
        }
    return {key: without_transitions(item) for key, item in kept.items()}


def test_the_template_is_that_of_an_experiment() -> None:
    template = schema("chaosschedules")["spec"]["properties"]["experimentTemplate"]["properties"]["spec"]
    assert template == without_transitions(schema("chaosexperiments")["spec"])


def test_the_defaults_are_those_of_the_schema() -> None:
    properties = schema("chaosschedules")["spec"]["properties"]
    defaults = {name: field["default"] for name, field in properties.items() if "default" in field}
    found = spec().model_dump(by_alias=True, mode="json")
    assert {name: found[name] for name in defaults} == defaults
    assert set(found) == set(properties)
