"""Every way a run ends on a real API server, and that what a person set stays as set."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_testing.api import deployments, eventually
from shadowfault_testing.objects import container, deployment

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_testing.operator import Ground, OperatorProcess

pytestmark = pytest.mark.cluster

ENV = [{"name": "NODE_ENV", "value": "staging"}]


def conditions(status: dict[str, Any]) -> dict[str, str]:
    return {item["type"]: item["status"] for item in status["conditions"]}


def test_delete_restores_before_the_experiment_is_gone(ground: Ground, operator: OperatorProcess) -> None:
    before = operator.metric('shadowfault_recoveries_total{reason="Deleted"}')
    target = ground.deploy(env=ENV)
    name = ground.run(target)
    ground.kubectl("delete", "chaosexperiment", name, "--timeout=20s")
    assert ground.env(target) == {"NODE_ENV": {"value": "staging"}}
    assert ground.events(name) == ["Accepted", "Deleted", "Injected", "Recovered"]
    # The experiment cannot be described any more; its target can.
    (line,) = [line for line in ground.kubectl("describe", "deployment", target).splitlines() if name in line]
    assert line.split()[:2] == ["Normal", "Deleted"]
    assert f"ChaosExperiment {name} (" in line
    assert operator.metric('shadowfault_recoveries_total{reason="Deleted"}') == before + 1
    assert operator.metric("shadowfault_recovery_seconds_count") >= 1


def test_the_deadline_is_absolute(ground: Ground, operator: OperatorProcess) -> None:
    target = ground.deploy(env=ENV)
    name = ground.run(target, duration="2s")
    status = ground.await_phase(name, "Finished", "Expired")
    assert ground.env(target) == {"NODE_ENV": {"value": "staging"}}
    expires_at, finished_at = (datetime.fromisoformat(status[field]) for field in ("expiresAt", "finishedAt"))
    assert (expires_at - datetime.fromisoformat(status["startedAt"])).total_seconds() == 2
    assert finished_at >= expires_at
    assert conditions(status) == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "Injected": "False",
        "Recovered": "True",
        "Refused": "False",
    }
    found = ground.experiment(name)
    assert found is not None
    eventually("the finalizer to go", lambda: "finalizers" not in (ground.experiment(name) or {})["metadata"])
    assert operator.metric("shadowfault_overrun_seconds_count") >= 1


def test_suspend_ends_a_run_for_good(ground: Ground) -> None:
    target = ground.deploy(env=ENV)
    name = ground.run(target)
    ground.set_spec(name, suspend=True)
    ground.await_phase(name, "Finished", "SuspendedWhileRunning")
    assert ground.env(target) == {"NODE_ENV": {"value": "staging"}}
    ground.set_spec(name, suspend=False)
    generation = (ground.experiment(name) or {})["metadata"]["generation"]
    eventually("the spec to be seen", lambda: ground.status(name)["observedGeneration"] == generation)
    assert ground.status(name)["phase"] == "Finished"


def test_suspended_from_the_start_it_begins_when_let(ground: Ground) -> None:
    target = ground.deploy(env=ENV)
    name = ground.start(target, suspend=True)
    ground.await_phase(name, "Pending", "Suspended")
    assert ground.generation(target) == 1
    ground.set_spec(name, suspend=False)
    ground.await_phase(name, "Running")
    ground.delete(name)


# By hand or by a tool: what is done, the reason, and what the target has afterwards beside NODE_ENV.


def kubectl_set(*settings: str) -> Callable[[Ground, str], object]:
    return lambda ground, target: ground.kubectl("set", "env", f"deployment/{target}", *settings)


def gitops_apply(value: str) -> Callable[[Ground, str], object]:
    return lambda ground, target: ground.apply_env(
        target, "flux", [{"name": "CHAOS_ENABLED", "value": value}]
    )


def merge_patch(ground: Ground, target: str) -> None:
    ground.patch_target(
        target,
        {
            "spec": {
                "template": {
                    "spec": {
                        "containers": [{"name": "api", "env": [{"name": "CHAOS_ENABLED", "value": "false"}]}]
                    }
                }
            }
        },
    )


def restart(ground: Ground, target: str) -> None:
    ground.kubectl("rollout", "restart", f"deployment/{target}")


def undo(ground: Ground, target: str) -> None:
    path = f"/apis/apps/v1/namespaces/{ground.namespace}/replicasets?labelSelector=app={target}"
    eventually("two revisions", lambda: len(ground.api.request("GET", path)["items"]) == 2)
    ground.kubectl("rollout", "undo", f"deployment/{target}")


def created_pods(ground: Ground, target: str, count: int) -> list[dict[str, Any]] | None:
    """The pods of a target that are not on their way out, once there are so many."""
    path = f"/api/v1/namespaces/{ground.namespace}/pods?labelSelector=app={target}"
    pods = [
        pod for pod in ground.api.request("GET", path)["items"] if "deletionTimestamp" not in pod["metadata"]
    ]
    return pods if len(pods) == count else None


def scale_to_zero(ground: Ground, target: str) -> None:
    ground.kubectl("scale", f"deployment/{target}", "--replicas=0")


HANDS: dict[str, tuple[Callable[[Ground, str], object], str, dict[str, dict[str, str]]]] = {
    "set env to false": (
        kubectl_set("CHAOS_ENABLED=false"),
        "Overridden",
        {"CHAOS_ENABLED": {"value": "false"}},
    ),
    "patched to false": (merge_patch, "Overridden", {"CHAOS_ENABLED": {"value": "false"}}),
    "applied by a tool": (gitops_apply("false"), "Overridden", {"CHAOS_ENABLED": {"value": "false"}}),
    "applied by a tool with the same value": (
        gitops_apply("true"),
        "Overridden",
        {"CHAOS_ENABLED": {"value": "true"}},
    ),
    "all of it removed": (
        kubectl_set("CHAOS_ENABLED-", "CHAOS_FAIL_RATE-", "CHAOS_SEED-", "CHAOS_SCOPE-"),
        "EnvironmentRemoved",
        {},
    ),
    "rollout undo": (undo, "EnvironmentRemoved", {}),
    "rate raised": (kubectl_set("CHAOS_FAIL_RATE=0.5"), "RateRaised", {"CHAOS_FAIL_RATE": {"value": "0.5"}}),
    "seed changed": (kubectl_set("CHAOS_SEED=mine"), "SeedChanged", {"CHAOS_SEED": {"value": "mine"}}),
    "scope changed": (kubectl_set("CHAOS_SCOPE=reads"), "ScopeChanged", {"CHAOS_SCOPE": {"value": "reads"}}),
    "deadline changed": (
        kubectl_set("CHAOS_EXPIRES_AT=2100-01-01T00:00:00Z"),
        "EnvironmentChanged",
        {"CHAOS_EXPIRES_AT": {"value": "2100-01-01T00:00:00Z"}},
    ),
    "rollout restart": (restart, "RolloutRestarted", {}),
    "scaled to zero": (scale_to_zero, "ScaledToZero", {}),
}


@pytest.mark.parametrize(("act", "reason", "left"), HANDS.values(), ids=HANDS.keys())
def test_a_person_wins(
    ground: Ground, act: Callable[[Ground, str], object], reason: str, left: dict[str, dict[str, str]]
) -> None:
    target = ground.deploy(env=ENV)
    name = ground.run(target)
    act(ground, target)
    ground.await_phase(name, "Finished", reason)
    assert ground.env(target) == {"NODE_ENV": {"value": "staging"}, **left}
    assert not {"shadowfault", "shadowfault-restore"} & ground.managers(target)
    if reason == "ScaledToZero":
        assert ground.target(target)["spec"]["replicas"] == 0
        ground.kubectl("scale", f"deployment/{target}", "--replicas=2")
        pods = eventually("new pods", lambda: created_pods(ground, target, 2))
        env = [entry["name"] for pod in pods for entry in pod["spec"]["containers"][0]["env"]]
        assert not [name for name in env if name.startswith("CHAOS_")]
    assert ground.events(name).count(reason) == 1
    # And it stays so when the experiment goes.
    ground.delete(name)
    assert ground.env(target) == {"NODE_ENV": {"value": "staging"}, **left}


def test_an_original_that_a_person_overrides_is_not_put_back(ground: Ground) -> None:
    target = ground.deploy(
        env=[{"name": "CHAOS_ENABLED", "value": "false"}, {"name": "CHAOS_FAIL_RATE", "value": "0"}]
    )
    name = ground.run(target)
    ground.kubectl("set", "env", f"deployment/{target}", "CHAOS_ENABLED=0")
    ground.await_phase(name, "Finished", "Overridden")
    assert ground.env(target) == {"CHAOS_ENABLED": {"value": "0"}, "CHAOS_FAIL_RATE": {"value": "0"}}


def test_a_lowered_rate_is_honoured_and_stays(ground: Ground) -> None:
    target = ground.deploy(env=ENV)
    name = ground.run(target)
    ground.kubectl("set", "env", f"deployment/{target}", "CHAOS_FAIL_RATE=0.05")
    eventually("the lowered rate", lambda: ground.status(name).get("effectiveRate") == 0.05)
    assert ground.status(name)["phase"] == "Running"
    assert ground.env(target)["CHAOS_ENABLED"] == {"value": "true"}
    ground.delete(name)
    assert ground.env(target) == {"NODE_ENV": {"value": "staging"}, "CHAOS_FAIL_RATE": {"value": "0.05"}}


def test_the_next_experiment_starts_over_what_a_person_left(ground: Ground) -> None:
    target = ground.deploy(env=ENV)
    first = ground.run(target)
    ground.kubectl("set", "env", f"deployment/{target}", "CHAOS_ENABLED=false")
    ground.await_phase(first, "Finished", "Overridden")
    second = ground.run(target)
    ground.delete(second)
    assert ground.env(target) == {"NODE_ENV": {"value": "staging"}, "CHAOS_ENABLED": {"value": "false"}}


def test_changes_to_other_parts_of_the_target_are_kept(ground: Ground) -> None:
    target = ground.deploy(env=ENV)
    name = ground.run(target)
    ground.kubectl("set", "image", f"deployment/{target}", "api=example.invalid/service:2")
    ground.kubectl("set", "env", f"deployment/{target}", "MORE=1")
    ground.kubectl("scale", f"deployment/{target}", "--replicas=2")
    ground.delete(name)
    spec = ground.target(target)["spec"]
    assert spec["replicas"] == 2
    assert spec["template"]["spec"]["containers"][0]["image"] == "example.invalid/service:2"
    assert ground.env(target) == {"NODE_ENV": {"value": "staging"}, "MORE": {"value": "1"}}


def test_a_target_that_is_deleted(ground: Ground) -> None:
    target = ground.deploy(env=ENV)
    name = ground.run(target)
    ground.api.request("DELETE", deployments(ground.namespace, target))
    ground.await_phase(name, "Finished", "TargetGone")
    ground.delete(name)


def test_a_target_that_is_deleted_and_created_again(
    own_ground: Ground, own_operator: OperatorProcess
) -> None:
    """The new one is nobody's to touch, whatever it has of the same name."""
    own_operator.start()
    target = own_ground.deploy(env=ENV)
    name = own_ground.run(target)
    own_operator.stop()
    path = deployments(own_ground.namespace, target)
    own_ground.api.request("DELETE", path)
    eventually("the target to be gone", lambda: own_ground.api.find(path) is None)
    again = deployment(target, containers=[container(env=[*ENV, {"name": "CHAOS_SEED", "value": "theirs"}])])
    own_ground.api.request("POST", deployments(own_ground.namespace), again)
    own_operator.start()
    own_ground.await_phase(name, "Finished", "TargetRecreated")
    assert own_ground.env(target) == {"NODE_ENV": {"value": "staging"}, "CHAOS_SEED": {"value": "theirs"}}
    assert own_ground.generation(target) == 1


def test_a_target_that_becomes_production(ground: Ground) -> None:
    """By a label: NODE_ENV=production beside CHAOS_ENABLED=true is refused by admission."""
    target = ground.deploy(env=ENV)
    name = ground.run(target)
    ground.kubectl("label", "deployment", target, "environment=production")
    ground.await_phase(name, "Finished", "ProductionTarget")
    assert ground.env(target) == {"NODE_ENV": {"value": "staging"}}
    assert ground.events(name).count("ProductionTarget") == 1


def test_injected_pods_that_do_not_become_ready(ground: Ground) -> None:
    target = ground.deploy(env=ENV)
    ground.patch_target(target, {"spec": {"progressDeadlineSeconds": 1}})
    name = ground.start(target)
    status = ended(ground, name)
    assert status["reason"] == "PodsNotReady"
    assert ground.env(target) == {"NODE_ENV": {"value": "staging"}}
    assert ground.events(name).count("PodsNotReady") == 1


def ended(ground: Ground, name: str) -> dict[str, Any]:
    """The status once the run is over; it may be so before anyone has seen it running."""
    return eventually(
        f"{name} to end", lambda: (status := ground.status(name)).get("phase") == "Finished" and status
    )


def test_a_namespace_that_takes_back_its_opt_in(own_ground: Ground, own_operator: OperatorProcess) -> None:
    own_operator.start()
    target = own_ground.deploy(env=ENV)
    name = own_ground.run(target)
    own_ground.label_namespace(allowed=None)
    own_ground.await_phase(name, "Finished", "NamespaceNotAllowed")
    assert own_ground.env(target) == {"NODE_ENV": {"value": "staging"}}


def test_a_namespace_that_becomes_production(own_ground: Ground, own_operator: OperatorProcess) -> None:
    own_operator.start()
    target = own_ground.deploy(env=ENV)
    name = own_ground.run(target)
    own_ground.label_namespace(environment="production")
    own_ground.await_phase(name, "Finished", "ProductionNamespace")
    assert own_ground.env(target) == {"NODE_ENV": {"value": "staging"}}


def test_a_status_that_someone_wipes_leaves_nothing_behind(ground: Ground) -> None:
    target = ground.deploy(env=ENV)
    name = ground.run(target)
    ground.set_status(name, None)
    ground.await_phase(name, "Finished", "RecordLost")
    assert ground.env(target) == {"NODE_ENV": {"value": "staging"}}


def test_a_namespace_is_deleted_with_everything_in_it(
    own_ground: Ground, own_operator: OperatorProcess
) -> None:
    own_operator.start()
    own_ground.run(own_ground.deploy(env=ENV))
    path = f"/api/v1/namespaces/{own_ground.namespace}"
    own_ground.api.request("DELETE", path)
    eventually("the namespace to be gone", lambda: own_ground.api.find(path) is None, seconds=60)
