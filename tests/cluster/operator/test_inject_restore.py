"""What goes into a real Deployment, and that it comes out again without a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shadowfault_testing.api import eventually
from shadowfault_testing.objects import container

if TYPE_CHECKING:
    from shadowfault_testing.objects import Json
    from shadowfault_testing.operator import Ground, OperatorProcess

pytestmark = pytest.mark.cluster

NAMES = {
    "CHAOS_ENABLED",
    "CHAOS_FAIL_RATE",
    "CHAOS_SEED",
    "CHAOS_SCOPE",
    "CHAOS_EXPIRES_AT",
    "CHAOS_EXPERIMENT",
    "CHAOS_EXPERIMENT_UID",
}


def test_injection_writes_the_environment_and_says_so(ground: Ground, operator: OperatorProcess) -> None:
    injections = operator.metric("shadowfault_injections_total")
    target = ground.deploy(env=[{"name": "NODE_ENV", "value": "staging"}])
    before = ground.generation(target)
    name = ground.run(target, seed=None)
    found, status = ground.experiment(name), ground.status(name)
    assert found is not None
    assert ground.env(target) == {
        "NODE_ENV": {"value": "staging"},
        "CHAOS_ENABLED": {"value": "true"},
        "CHAOS_FAIL_RATE": {"value": "0.1"},
        "CHAOS_SEED": {"value": status["seed"]},
        "CHAOS_SCOPE": {"value": "shadow_write_only"},
        "CHAOS_EXPIRES_AT": {"value": status["expiresAt"]},
        "CHAOS_EXPERIMENT": {"value": f"{ground.namespace}/{name}"},
        "CHAOS_EXPERIMENT_UID": {"value": found["metadata"]["uid"]},
    }
    assert ground.generation(target) == before + 1
    assert status["observedGeneration"] == found["metadata"]["generation"]
    assert status["effectiveRate"] == 0.1
    assert status["target"]["uid"] == ground.target(target)["metadata"]["uid"]
    conditions = {item["type"]: item["status"] for item in status["conditions"]}
    assert conditions == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "Injected": "True",
        "Recovered": "False",
        "Refused": "False",
    }
    assert eventually("its Events", lambda: ground.events(name) == ["Accepted", "Injected"])
    assert operator.metric("shadowfault_injections_total") == injections + 1
    assert operator.metric('shadowfault_experiments{phase="Running"}') >= 1


ORIGINALS: dict[str, list[Json]] = {
    "nothing": [],
    "no entry of ours": [{"name": "A", "value": "1"}],
    "values": [
        {"name": "A", "value": "1"},
        {"name": "CHAOS_ENABLED", "value": "false"},
        {"name": "B", "value": "$(A)"},
        {"name": "CHAOS_FAIL_RATE", "value": "0"},
    ],
    "the same values": [
        {"name": "CHAOS_SCOPE", "value": "shadow_write_only"},
        {"name": "CHAOS_SEED", "value": "test"},
    ],
    "no value": [{"name": "CHAOS_SEED"}, {"name": "Z", "value": "z"}],
    "references": [
        {"name": "A", "value": "1"},
        {
            "name": "CHAOS_ENABLED",
            "valueFrom": {"configMapKeyRef": {"name": "chaos", "key": "on", "optional": True}},
        },
        {"name": "CHAOS_SEED", "valueFrom": {"secretKeyRef": {"name": "chaos", "key": "seed"}}},
        {"name": "CHAOS_SCOPE", "value": "reads"},
        {"name": "B", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
    ],
}


@pytest.mark.parametrize("originals", ORIGINALS.values(), ids=ORIGINALS.keys())
def test_everything_is_put_back_in_one_rollout(ground: Ground, originals: list[Json]) -> None:
    target = ground.deploy(env=originals)
    before = ground.target(target)
    name = ground.run(target)
    env = ground.env(target)
    assert env.keys() >= NAMES
    assert env["CHAOS_ENABLED"] == {"value": "true"}
    assert env["CHAOS_SEED"] == {"value": "test"}
    assert ground.generation(target) == before["metadata"]["generation"] + 1
    ground.delete(name)
    after = ground.target(target)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 2
    assert after["metadata"].get("annotations", {}).keys() <= {"deployment.kubernetes.io/revision"}
    assert not {"shadowfault", "shadowfault-restore"} & ground.managers(target)


def test_the_status_keeps_references_and_never_what_they_refer_to(ground: Ground) -> None:
    target = ground.deploy(env=ORIGINALS["references"])
    name = ground.run(target)
    (original,) = ground.status(name)["original"]
    kept = {entry["name"]: entry.get("valueFrom") for entry in original["env"]}
    assert kept["CHAOS_SEED"] == {"secretKeyRef": {"name": "chaos", "key": "seed"}}
    assert kept["CHAOS_ENABLED"] == {"configMapKeyRef": {"name": "chaos", "key": "on", "optional": True}}
    assert original["env"][0]["managers"] == ["helm"]
    ground.delete(name)


def test_only_the_container_under_test_is_touched(ground: Ground) -> None:
    sidecar = container("proxy", env=[{"name": "CHAOS_ENABLED", "value": "false"}])
    native = container("init", restartPolicy="Always")
    target = ground.deploy(containers=[sidecar, container("api"), container("worker")])
    ground.patch_target(target, {"spec": {"template": {"spec": {"initContainers": [native]}}}})
    before = ground.target(target)["spec"]
    name = ground.run(target, targetRef={"name": target, "container": "api"})
    assert ground.env(target, "api").keys() == NAMES
    assert ground.env(target, "proxy") == {"CHAOS_ENABLED": {"value": "false"}}
    assert ground.env(target, "worker") == {}
    assert ground.status(name)["injected"][0]["container"] == "api"
    ground.delete(name)
    assert ground.target(target)["spec"] == before


def test_afterwards_the_manifests_own_tool_meets_no_conflict(ground: Ground) -> None:
    target = ground.deploy()
    ground.apply_env(target, "flux", [{"name": "CHAOS_ENABLED", "value": "false"}])
    name = ground.run(target)
    assert (
        ground.refused(
            lambda: ground.apply_env(target, "flux", [{"name": "CHAOS_ENABLED", "value": "0"}], force=False)
        )
        == 409
    )
    ground.delete(name)
    ground.apply_env(target, "flux", [{"name": "CHAOS_ENABLED", "value": "0"}], force=False)
    assert ground.env(target) == {"CHAOS_ENABLED": {"value": "0"}}


def test_nothing_leaks_into_replica_sets(ground: Ground) -> None:
    target = ground.deploy()
    name = ground.run(target)
    ground.delete(name)
    path = f"/apis/apps/v1/namespaces/{ground.namespace}/replicasets?labelSelector=app={target}"
    sets = eventually(
        "two ReplicaSets", lambda: len(found := ground.api.request("GET", path)["items"]) == 2 and found
    )
    for one in sets:
        foreign = [
            key for key in one["metadata"]["annotations"] if not key.startswith("deployment.kubernetes.io/")
        ]
        assert foreign == []
