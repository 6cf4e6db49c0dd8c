"""Container states in, pod status out, as the kubelet's tables have it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from shadowfault_cluster.agent.status import (
    ContainerState,
    Observed,
    Role,
    Verdict,
    initial_states,
    pod_phase,
    pod_status,
    restarts,
)

Json = dict[str, Any]
NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
WAITING: Json = {"waiting": {"reason": "ContainerCreating"}}
RUNNING: Json = {"running": {"startedAt": "2026-01-02T03:04:05Z"}}


def ended(code: int) -> Json:
    return {"terminated": {"exitCode": code}}


def state(
    current: Json, role: Role = Role.MAIN, *, last: Json | None = None, ready: bool = False
) -> ContainerState:
    return ContainerState(
        f"{role.value}-{id(current) % 97}",
        "none",
        role,
        current,
        last or {},
        ready=ready,
        started="running" in current,
    )


def observed(*states: ContainerState, terminal: bool = False, verdict: Verdict | None = None) -> Observed:
    return Observed(states, "127.9.10.2", "127.9.0.10", NOW, terminal, verdict)


def pod(policy: str = "Always", **spec: Any) -> Json:
    return {"metadata": {"name": "p", "generation": 3}, "spec": {"restartPolicy": policy, **spec}}


INIT, SIDE = Role.INIT, Role.SIDECAR


@pytest.mark.parametrize(
    ("policy", "states", "phase"),
    [
        ("Always", [state(WAITING)], "Pending"),
        ("Always", [state(RUNNING)], "Running"),
        ("Always", [state(RUNNING), state(WAITING)], "Pending"),
        ("Always", [state(WAITING, last=ended(1))], "Running"),  # crash loop
        ("Always", [state(ended(1))], "Running"),
        ("Never", [state(RUNNING), state(ended(1))], "Running"),
        ("Always", [state(RUNNING, INIT), state(WAITING)], "Pending"),
        ("Always", [state(ended(0), INIT), state(RUNNING)], "Running"),
        ("Always", [state(ended(1), INIT), state(WAITING)], "Pending"),
        ("Never", [state(ended(1), INIT), state(WAITING)], "Failed"),
        ("Always", [state(WAITING, SIDE), state(WAITING)], "Pending"),
        ("Always", [state(RUNNING, SIDE), state(RUNNING)], "Running"),
    ],
)
def test_phase_while_it_lives(policy: str, states: list[ContainerState], phase: str) -> None:
    assert pod_phase(policy, observed(*states)) == phase


@pytest.mark.parametrize(
    ("states", "phase"),
    [
        ([state(ended(0))], "Succeeded"),
        ([state(ended(0)), state(ended(2))], "Failed"),
        ([state(ended(143), SIDE), state(ended(0))], "Succeeded"),
        ([state(ended(1), INIT), state(WAITING)], "Failed"),
        ([state(WAITING)], "Failed"),
    ],
)
def test_phase_at_the_end(states: list[ContainerState], phase: str) -> None:
    assert pod_phase("OnFailure", observed(*states, terminal=True)) == phase


def test_a_verdict_is_a_failure_with_its_reason() -> None:
    seen = observed(state(ended(0)), terminal=True, verdict=Verdict("DeadlineExceeded", "too long"))
    status = pod_status(pod(), seen, {}, NOW)
    assert (status["phase"], status["reason"], status["message"]) == (
        "Failed",
        "DeadlineExceeded",
        "too long",
    )


@pytest.mark.parametrize(
    ("policy", "role", "code", "again"),
    [
        ("Always", Role.MAIN, 0, True),
        ("Always", Role.MAIN, 1, True),
        ("OnFailure", Role.MAIN, 0, False),
        ("OnFailure", Role.MAIN, 1, True),
        ("Never", Role.MAIN, 1, False),
        ("Always", Role.INIT, 0, False),
        ("Always", Role.INIT, 1, True),
        ("Never", Role.INIT, 1, False),
        ("Never", Role.SIDECAR, 0, True),
    ],
)
def test_who_is_restarted(policy: str, role: Role, code: int, *, again: bool) -> None:
    assert restarts(policy, role, code) is again


def conditions(status: Json) -> dict[str, tuple[str, str | None]]:
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in status["conditions"]}


def test_conditions_of_a_pod_on_its_way() -> None:
    status = pod_status(pod(), observed(state(RUNNING, INIT), state(WAITING)), {}, NOW)
    assert conditions(status) == {
        "PodReadyToStartContainers": ("True", None),
        "Initialized": ("False", "ContainersNotInitialized"),
        "Ready": ("False", "ContainersNotReady"),
        "ContainersReady": ("False", "ContainersNotReady"),
        "PodScheduled": ("True", None),
    }


def test_conditions_of_a_ready_and_of_a_completed_pod() -> None:
    ready = conditions(pod_status(pod(), observed(state(RUNNING, ready=True)), {}, NOW))
    assert (ready["Ready"], ready["ContainersReady"]) == (("True", None), ("True", None))
    done = conditions(pod_status(pod("Never"), observed(state(ended(0)), terminal=True), {}, NOW))
    assert (done["Ready"], done["Initialized"]) == (("False", "PodCompleted"), ("True", "PodCompleted"))


def test_a_readiness_gate_holds_ready_back() -> None:
    gated = pod(readinessGates=[{"conditionType": "example.com/open"}])
    seen = observed(state(RUNNING, ready=True))
    closed = conditions(pod_status(gated, seen, {}, NOW))
    assert (closed["Ready"], closed["ContainersReady"]) == (
        ("False", "ReadinessGatesNotReady"),
        ("True", None),
    )
    gated["status"] = {"conditions": [{"type": "example.com/open", "status": "True"}]}
    assert conditions(pod_status(gated, seen, {}, NOW))["Ready"] == ("True", None)


def test_the_time_of_a_transition_is_kept_until_the_next() -> None:
    first = pod_status(pod(), observed(state(WAITING)), {}, NOW)
    later = NOW + dt.timedelta(minutes=1)
    same = pod_status(pod(), observed(state(WAITING)), first, later)
    assert same == first
    changed = pod_status(pod(), observed(state(RUNNING, ready=True)), first, later)
    times = {entry["type"]: entry["lastTransitionTime"] for entry in changed["conditions"]}
    assert (times["Ready"], times["PodScheduled"]) == ("2026-01-02T03:05:05Z", "2026-01-02T03:04:05Z")


def test_an_agent_takes_over_what_another_left() -> None:
    def status(name: str, current: Json, count: int = 0) -> Json:
        return {"name": name, "state": current, "restartCount": count, "lastState": {}}

    taken = pod(
        initContainers=[{"name": "i", "image": "x"}, {"name": "s", "image": "x", "restartPolicy": "Always"}],
        containers=[{"name": "a", "image": "x"}, {"name": "b", "image": "x"}],
    )
    taken["status"] = {
        "initContainerStatuses": [status("i", ended(0)), status("s", RUNNING, 1)],
        "containerStatuses": [status("a", RUNNING, 4)],
    }
    states = {item.name: item for item in initial_states(taken, NOW)}
    assert [(item.name, item.role) for item in states.values()] == [
        ("i", Role.INIT),
        ("s", Role.SIDECAR),
        ("a", Role.MAIN),
        ("b", Role.MAIN),
    ]
    assert states["i"].exit_code == 0
    assert states["a"].exit_code == 137
    assert states["a"].state["terminated"]["reason"] == "ContainerStatusUnknown"
    assert (states["a"].restart_count, states["b"].exit_code) == (4, None)
