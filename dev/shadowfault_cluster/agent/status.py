"""From the states of a pod's containers to its status: pure, after the kubelet's rules.

The phase follows getPhase of the kubelet, the conditions its GeneratePodReadyCondition
and its neighbours; `kubectl`, the Deployment and the Job controllers read them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from shadowfault_cluster.agent.objects import Json, timestamp

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Sequence


class Role(Enum):
    """What a container is for in its pod."""

    INIT = "init"
    SIDECAR = "sidecar"  # an init container with restartPolicy Always
    MAIN = "main"


@dataclass
class ContainerState:
    """One container as status shows it. `state` and `last_state` are v1.ContainerState."""

    name: str
    image: str
    role: Role
    state: Json = field(default_factory=lambda: {"waiting": {"reason": "PodInitializing"}})
    last_state: Json = field(default_factory=dict)
    restart_count: int = 0
    ready: bool = False
    started: bool = False
    container_id: str = ""

    @property
    def exit_code(self) -> int | None:
        """The exit code of a container that has ended and was not started again."""
        terminated = self.state.get("terminated")
        return None if terminated is None else int(terminated["exitCode"])

    @property
    def ever_ended(self) -> bool:
        """Whether any run of it has ended."""
        return "terminated" in self.state or "terminated" in self.last_state

    def as_status(self) -> Json:
        """v1.ContainerStatus."""
        return {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "state": self.state,
            "lastState": self.last_state,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restart_count,
            **({"containerID": self.container_id} if self.container_id else {}),
        }


@dataclass(frozen=True)
class Verdict:
    """An end that the agent decided, such as DeadlineExceeded."""

    reason: str
    message: str


@dataclass(frozen=True)
class Observed:
    """What is known of a pod at one moment. `terminal`: none of its containers will run (again)."""

    containers: Sequence[ContainerState]
    pod_ip: str
    host_ip: str
    started_at: dt.datetime
    terminal: bool = False
    verdict: Verdict | None = None


def initial_states(pod: Json, now: dt.datetime) -> list[ContainerState]:
    """The states of a pod's containers when an agent takes it over, in the order of their start.

    A container that ran under an agent before has died with it: it counts as ended, as it does
    for a kubelet that no longer finds a container it knew.
    """
    told = pod.get("status", {})
    statuses = {
        entry["name"]: entry
        for entry in [*(told.get("initContainerStatuses") or []), *(told.get("containerStatuses") or [])]
    }
    states = []
    for group in ("initContainers", "containers"):
        for container in pod["spec"].get(group) or []:
            role = Role.MAIN
            if group == "initContainers":
                role = Role.SIDECAR if container.get("restartPolicy") == "Always" else Role.INIT
            state = ContainerState(container["name"], container["image"], role)
            if container["name"] in statuses:
                _restore(state, statuses[container["name"]], now)
            states.append(state)
    return states


def _restore(state: ContainerState, status: Json, now: dt.datetime) -> None:
    state.restart_count = status.get("restartCount", 0)
    state.last_state = status.get("lastState") or {}
    state.container_id = status.get("containerID", "")
    before = status.get("state") or {}
    if "terminated" in before:
        state.state = before
        state.ready = state.role is Role.INIT and state.exit_code == 0
    elif "running" in before:
        state.state = {
            "terminated": {
                "exitCode": 137,
                "reason": "ContainerStatusUnknown",
                "message": "the node agent was restarted, and its processes ended with it",
                "startedAt": before["running"].get("startedAt"),
                "finishedAt": timestamp(now),
            }
        }


def restarts(policy: str, role: Role, exit_code: int) -> bool:
    """Whether a container that ended with `exit_code` is started again, under the pod's restartPolicy."""
    if role is Role.SIDECAR:
        return True
    if policy == "Always":
        return role is Role.MAIN or exit_code != 0
    return policy == "OnFailure" and exit_code != 0


def pod_status(pod: Json, observed: Observed, previous: Json, now: dt.datetime) -> Json:
    """v1.PodStatus, as a strategic merge patch (so a reason that no longer holds is null)."""
    phase = pod_phase(pod["spec"]["restartPolicy"], observed)
    verdict = observed.verdict
    inits = [item.as_status() for item in observed.containers if item.role is not Role.MAIN]
    status: Json = {
        "phase": phase,
        "reason": verdict.reason if verdict else None,
        "message": verdict.message if verdict else None,
        "hostIP": observed.host_ip,
        "hostIPs": [{"ip": observed.host_ip}],
        "startTime": timestamp(observed.started_at),
        "observedGeneration": pod["metadata"].get("generation", 0),
        "conditions": _conditions(pod, observed, phase, previous, now),
        "containerStatuses": [item.as_status() for item in observed.containers if item.role is Role.MAIN],
    }
    if inits:
        status["initContainerStatuses"] = inits
    if observed.pod_ip:
        status |= {"podIP": observed.pod_ip, "podIPs": [{"ip": observed.pod_ip}]}
    return status


def pod_phase(policy: str, observed: Observed) -> str:
    """Pending, Running, Succeeded or Failed."""
    inits = [item for item in observed.containers if item.role is Role.INIT]
    mains = [item for item in observed.containers if item.role is Role.MAIN]
    if observed.verdict is not None:
        return "Failed"
    if observed.terminal:
        succeeded = all(item.exit_code == 0 for item in [*inits, *mains])
        return "Succeeded" if succeeded else "Failed"
    if policy == "Never" and any(item.exit_code not in {None, 0} for item in inits):
        return "Failed"
    sidecars = [item for item in observed.containers if item.role is Role.SIDECAR]
    if any(item.exit_code != 0 for item in inits) or not all(_begun(item) for item in sidecars):
        return "Pending"
    return "Running" if all(_begun(item) for item in mains) else "Pending"


def _begun(item: ContainerState) -> bool:
    return "running" in item.state or item.ever_ended


def _conditions(pod: Json, observed: Observed, phase: str, previous: Json, now: dt.datetime) -> list[Json]:
    uninitialized = [
        item.name
        for item in observed.containers
        if (item.role is Role.INIT and item.exit_code != 0)
        or (item.role is Role.SIDECAR and not item.started)
    ]
    unready = [item.name for item in observed.containers if item.role is not Role.INIT and not item.ready]
    completed = phase == "Succeeded"
    initialized = completed or not uninitialized
    containers_ready = not observed.terminal and not unready
    gates = _closed_gates(pod)
    ended = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase)
    why_unready = (
        ended or "ContainersNotReady",
        None if ended else f"containers with unready status: [{' '.join(unready)}]",
    )
    why_gated = (
        "ReadinessGatesNotReady",
        f"corresponding condition of pod readiness gate is not True: {', '.join(gates)}",
    )
    wanted = [
        _condition("PodReadyToStartContainers", bool(observed.pod_ip) and not observed.terminal),
        _condition(
            "Initialized",
            initialized,
            "PodCompleted" if completed else "ContainersNotInitialized",
            f"containers with incomplete status: [{' '.join(uninitialized)}]",
            told_when_true=completed,
        ),
        _condition(
            "Ready", containers_ready and not gates, *(why_gated if containers_ready else why_unready)
        ),
        _condition("ContainersReady", containers_ready, *why_unready),
        _condition("PodScheduled", True),
    ]
    return [_with_transition(condition, previous, now) for condition in wanted]


def _condition(
    kind: str,
    holds: bool,
    reason: str | None = None,
    message: str | None = None,
    *,
    told_when_true: bool = False,
) -> Json:
    told = not holds or told_when_true
    return {
        "type": kind,
        "status": "True" if holds else "False",
        "reason": reason if told else None,
        "message": message if not holds else None,
    }


def _closed_gates(pod: Json) -> list[str]:
    present = {entry["type"]: entry["status"] for entry in pod.get("status", {}).get("conditions") or []}
    gates: Iterable[Json] = pod["spec"].get("readinessGates") or []
    return [gate["conditionType"] for gate in gates if present.get(gate["conditionType"]) != "True"]


def _with_transition(condition: Json, previous: Json, now: dt.datetime) -> Json:
    """Keep the time of the last change for as long as the condition stays what it was."""
    earlier: Iterable[Json] = previous.get("conditions") or []
    before = next((old for old in earlier if old["type"] == condition["type"]), None)
    since = None
    if before is not None and before["status"] == condition["status"]:
        since = before.get("lastTransitionTime")
    return condition | {"lastTransitionTime": since or timestamp(now)}
