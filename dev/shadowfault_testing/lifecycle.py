"""One experiment on one Deployment from its begin to its end, and what must hold of it (docs/safety.md).

For tests that do something to the operator on the way. Nobody runs the Deployment's pods.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from shadowfault_testing.api import deployments, experiments
from shadowfault_testing.embedded import right_now
from shadowfault_testing.objects import container, deployment, experiment
from shadowfault_testing.operator import Ground

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_cluster import Cluster
    from shadowfault_testing.api import Api
    from shadowfault_testing.objects import Json

VALUES: list[Json] = [
    {"name": "NODE_ENV", "value": "staging"},
    {"name": "CHAOS_ENABLED", "value": "false"},
    {"name": "CHAOS_SEED", "value": "theirs"},
]
REFERENCES: list[Json] = [
    *VALUES[:2],
    {"name": "CHAOS_SEED", "valueFrom": {"secretKeyRef": {"name": "chaos", "key": "seed"}}},
]
TARGET, NAME = "api", "shadow"


@dataclass(eq=False)
class Case:
    """One target and one experiment in a namespace of their own."""

    ground: Ground
    before: Json

    @classmethod
    def create(cls, cluster: Cluster, api: Api, originals: list[Json], **spec: Any) -> Case:  # noqa: ANN401 - JSON
        ground = Ground(cluster, f"crash-{secrets.token_hex(4)}", api)
        ground.create_namespace()
        body = deployment(TARGET, containers=[container(env=originals)])
        # Nobody places its pods: what is looked at here is the Deployment.
        body["spec"]["template"]["spec"]["schedulerName"] = "nobody"
        created = ground.api.request("POST", f"{deployments(ground.namespace)}?fieldManager=helm", body)
        ground.api.request("POST", experiments(ground.namespace), experiment(NAME, target=TARGET, **spec))
        return cls(ground, created["spec"])

    def phase(self) -> str | None:
        """The phase; None for an experiment that is gone or that nobody has looked at."""
        return self.ground.status(NAME).get("phase")

    def running(self) -> bool:
        return self.phase() == "Running"

    def finished(self) -> bool:
        """Finished, released and judged; nobody runs the pods, so that nobody can be asked."""
        found = self.ground.experiment(NAME)
        status = (found or {}).get("status", {})
        settled = found is not None and "finalizers" not in found["metadata"]
        return settled and status.get("phase") == "Finished" and "verdict" in status

    def gone(self) -> bool:
        return self.ground.experiment(NAME) is None

    def delete(self) -> None:
        self.ground.api.request("DELETE", experiments(self.ground.namespace, NAME))

    def suspend(self) -> None:
        self.ground.set_spec(NAME, suspend=True)

    def _set(self, name: str, value: str) -> None:
        env = {"containers": [{"name": "api", "env": [{"name": name, "value": value}]}]}
        self.ground.patch_target(TARGET, {"spec": {"template": {"spec": env}}}, manager="kubectl-set")

    def override(self) -> None:
        self._set("CHAOS_ENABLED", "0")

    def lower(self) -> None:
        self._set("CHAOS_FAIL_RATE", "0.05")

    def lowered(self) -> bool:
        return self.running() and self.ground.status(NAME).get("effectiveRate") == 0.05


def in_an_hour() -> datetime:
    return right_now() + timedelta(hours=1)


@dataclass(frozen=True)
class Flow:
    """What the operator is killed in the middle of."""

    done: Callable[[Case], bool]
    # None: the experiment is new. Else it is running, and then this happens while no operator is there.
    provoke: Callable[[Case], None] | None = None
    now: Callable[[], datetime] = right_now
    originals: list[Json] = field(default_factory=lambda: VALUES)
    events: tuple[str, ...] = ()
    conflicts: bool = False
    # What a person has set by then, and how often the template has changed.
    theirs: dict[str, str] = field(default_factory=dict)
    rollouts: int = 2

    @property
    def ending(self) -> set[str]:
        """The reason of the end, where the flow has one."""
        return {name for name in self.events if name not in _NO_ENDS and not name.startswith("Verdict")}


_NO_ENDS = {"Accepted", "Injected", "RateLowered", "Recovered"}
FLOWS = {
    "inject": Flow(Case.running, originals=REFERENCES, events=("Accepted", "Injected"), rollouts=1),
    "delete": Flow(
        Case.gone,
        Case.delete,
        originals=REFERENCES,
        events=("Accepted", "Deleted", "Injected", "Recovered"),
    ),
    "inject in conflicts": Flow(Case.running, events=("Accepted", "Injected"), rollouts=1, conflicts=True),
    "delete in conflicts": Flow(
        Case.gone, Case.delete, events=("Accepted", "Deleted", "Injected", "Recovered"), conflicts=True
    ),
    "suspend": Flow(
        Case.finished,
        Case.suspend,
        events=("Accepted", "Injected", "Recovered", "SuspendedWhileRunning", "VerdictInconclusive"),
    ),
    "expiry": Flow(
        Case.finished,
        lambda _: None,
        now=in_an_hour,
        events=("Accepted", "Expired", "Injected", "Recovered", "VerdictInconclusive"),
    ),
    "override": Flow(
        Case.finished,
        Case.override,
        events=("Accepted", "Injected", "Overridden", "Recovered", "VerdictInconclusive"),
        theirs={"CHAOS_ENABLED": "0"},
        rollouts=3,
    ),
    "lowered rate": Flow(
        Case.lowered,
        Case.lower,
        events=("Accepted", "Injected", "RateLowered"),
        theirs={"CHAOS_FAIL_RATE": "0.05"},
    ),
}


def check(case: Case, flow: Flow, where: str, *, lost_events: int = 0) -> None:
    """What must hold for the case once it has come to rest; that many Events may be missing.

    Raises:
        AssertionError: it does not; `where` says of which case.
    """
    ground, spec = case.ground, case.ground.target(TARGET)["spec"]
    listed = ground.api.request("GET", f"/api/v1/namespaces/{ground.namespace}/events")["items"]
    events = [item for item in listed if item["involvedObject"]["name"] == NAME]
    reasons = {item["reason"] for item in events}
    said = (where, sorted((item["reason"], item["message"]) for item in events))
    assert sum(item["count"] for item in events) == len(reasons), said
    assert reasons <= set(flow.events), said
    assert len(flow.events) - len(reasons) <= lost_events, said
    # Of all of them, that one is told by whoever comes next.
    assert flow.ending <= reasons, said
    on_target = [item["reason"] for item in listed if item["involvedObject"]["kind"] == "Deployment"]
    assert on_target == [name for name in flow.events if name == "Deleted"], (where, on_target)
    generation = ground.generation(TARGET)
    assert generation == 1 + flow.rollouts, (where, ground.status(NAME))
    if flow.done in {Case.running, Case.lowered}:
        env = ground.env(TARGET)
        assert env["CHAOS_ENABLED"] == {"value": "true"}, where
        assert env["CHAOS_EXPERIMENT_UID"]["value"] == ground.experiment(NAME)["metadata"]["uid"], where  # type: ignore[index]
        kept = {item["name"]: item.get("valueFrom") for item in ground.status(NAME)["original"][0]["env"]}
        assert kept.keys() == {"CHAOS_ENABLED", "CHAOS_SEED"}, (where, kept)
    else:
        restored(case, flow, spec, where)


def restored(case: Case, flow: Flow, spec: Json, where: str) -> None:
    """The target is as it was before, but for what a person has set."""
    expected = {entry["name"]: entry for entry in case.before["template"]["spec"]["containers"][0]["env"]}
    expected |= {name: {"name": name, "value": value} for name, value in flow.theirs.items()}
    found = spec["template"]["spec"]["containers"][0].pop("env")
    assert {entry["name"]: entry for entry in found} == expected, where
    assert len(found) == len(expected), where
    assert spec == without_env(case.before), where
    assert not {"shadowfault", "shadowfault-restore"} & case.ground.managers(TARGET), where


def without_env(spec: Json) -> Json:
    (only,) = spec["template"]["spec"]["containers"]
    pod = {**spec["template"]["spec"], "containers": [{key: only[key] for key in only if key != "env"}]}
    return {**spec, "template": {**spec["template"], "spec": pod}}
