"""What is refused, with its reason in status, condition and Event, and that nothing is patched then."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_testing.api import ApiRefusalError, eventually
from shadowfault_testing.objects import container, experiment

if TYPE_CHECKING:
    from shadowfault_testing.operator import Ground, OperatorProcess

pytestmark = pytest.mark.cluster


def assert_refused(ground: Ground, name: str, reason: str) -> str:
    """Refused for that reason, everywhere it is said; returns the message."""
    status = ground.await_phase(name, "Refused", reason)
    conditions = {item["type"]: (item["status"], item["reason"]) for item in status["conditions"]}
    assert conditions["Refused"] == ("True", reason)
    assert conditions["Stalled"] == ("True", reason)
    assert conditions["Injected"][0] == "False"
    eventually("the Event", lambda: reason in ground.events(name))
    assert ground.events(name).count(reason) == 1
    eventually("no finalizer", lambda: "finalizers" not in (ground.experiment(name) or {})["metadata"])
    return str(status["message"])


TARGETS: dict[str, tuple[dict[str, Any], str]] = {
    "NODE_ENV production": ({"env": [{"name": "NODE_ENV", "value": "production"}]}, "ProductionTarget"),
    "NODE_ENV from a Secret": (
        {"env": [{"name": "NODE_ENV", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
        "NodeEnvUnresolvable",
    ),
    "NODE_ENV from a ConfigMap that says production": (
        {
            "env": [
                {"name": "NODE_ENV", "valueFrom": {"configMapKeyRef": {"name": "live", "key": "NODE_ENV"}}}
            ]
        },
        "ProductionTarget",
    ),
    "envFrom a ConfigMap that says production": (
        {"containers": [container(envFrom=[{"configMapRef": {"name": "live"}}])]},
        "ProductionTarget",
    ),
    "envFrom a Secret": (
        {"containers": [container(envFrom=[{"secretRef": {"name": "s"}}])]},
        "NodeEnvUnresolvable",
    ),
    "a production label": ({"labels": {"environment": "production"}}, "ProductionTarget"),
    "a name twice": (
        {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
        "DuplicateEnvironment",
    ),
    "two containers": ({"containers": [container(), container("proxy")]}, "ContainerAmbiguous"),
    "no replicas": ({"replicas": 0}, "TargetWithoutReplicas"),
    "chaos by hand": ({"env": [{"name": "CHAOS_ENABLED", "value": "true"}]}, "ChaosAlreadyEnabled"),
}


@pytest.fixture(scope="module", autouse=True)
def config_maps(served: tuple[Ground, OperatorProcess]) -> None:
    ground = served[0]
    path = f"/api/v1/namespaces/{ground.namespace}/configmaps"
    for name in ("live", "test"):
        ground.api.request(
            "POST",
            path,
            {"metadata": {"name": name}, "data": {"NODE_ENV": "production" if name == "live" else name}},
        )


@pytest.mark.parametrize(("fields", "reason"), TARGETS.values(), ids=TARGETS.keys())
def test_a_target_is_refused(
    ground: Ground, operator: OperatorProcess, fields: dict[str, Any], reason: str
) -> None:
    refusals = operator.metric(f'shadowfault_refusals_total{{reason="{reason}"}}')
    target = ground.deploy(**fields)
    before = ground.target(target)
    assert_refused(ground, ground.start(target), reason)
    after = ground.target(target)
    assert (after["spec"], after["metadata"]["generation"]) == (
        before["spec"],
        before["metadata"]["generation"],
    )
    assert operator.metric(f'shadowfault_refusals_total{{reason="{reason}"}}') == refusals + 1


def test_a_config_map_that_says_otherwise_is_accepted(ground: Ground) -> None:
    ground.delete(
        ground.run(ground.deploy(containers=[container(envFrom=[{"configMapRef": {"name": "test"}}])]))
    )


def test_a_target_that_is_not_there(ground: Ground) -> None:
    assert "nowhere" in assert_refused(ground, ground.start("nowhere"), "TargetNotFound")


def test_a_container_that_is_not_there(ground: Ground) -> None:
    target = ground.deploy()
    name = ground.start(target, targetRef={"name": target, "container": "web"})
    assert "web" in assert_refused(ground, name, "ContainerNotFound")


def test_a_target_whose_rollouts_are_paused(ground: Ground) -> None:
    target = ground.deploy()
    ground.kubectl("rollout", "pause", f"deployment/{target}")
    assert_refused(ground, ground.start(target), "TargetPaused")
    assert ground.generation(target) == 2  # the pause itself


def test_the_running_one_keeps_its_target(ground: Ground) -> None:
    target = ground.deploy()
    first = ground.run(target)
    env = ground.env(target)
    second = ground.start(target)
    assert first in assert_refused(ground, second, "TargetBusy")
    assert ground.env(target) == env
    assert ground.status(first)["phase"] == "Running"
    ground.delete(second)
    assert ground.env(target) == env
    ground.delete(first)
    ground.delete(ground.run(target))


def test_one_of_many_at_once_gets_the_target(ground: Ground) -> None:
    target = ground.deploy()
    before = ground.target(target)
    names = [ground.start(target) for _ in range(6)]

    def phases() -> list[str]:
        return [ground.status(name).get("phase", "") for name in names]

    eventually("all to be settled", lambda: set(phases()) <= {"Running", "Refused"})
    assert phases().count("Running") == 1
    ground.delete(names[phases().index("Running")])
    assert ground.target(target)["spec"] == before["spec"]


@pytest.mark.parametrize("mark", ["label", "opt-in"])
def test_the_operator_refuses_what_admission_let_in_before(
    own_ground: Ground, own_operator: OperatorProcess, mark: str
) -> None:
    """Created while the namespace was in order: by then admission has nothing more to say."""
    target = own_ground.deploy()
    name = own_ground.start(target)
    if mark == "label":
        own_ground.label_namespace(tier="prod-eu")
    else:
        own_ground.label_namespace(allowed="no")
    own_operator.start()
    assert_refused(own_ground, name, "ProductionNamespace" if mark == "label" else "NamespaceNotAllowed")
    assert own_ground.generation(target) == 1


def allowed(ground: Ground, target: str) -> bool:
    try:
        path = f"/apis/chaos.shadowfault.dev/v1alpha1/namespaces/{ground.namespace}/chaosexperiments"
        ground.api.request("POST", f"{path}?dryRun=All", experiment("probe", target=target))
    except ApiRefusalError as error:
        if error.status == 403:
            return False
        raise
    return True


def test_a_refusal_is_final(own_ground: Ground, own_operator: OperatorProcess) -> None:
    target = own_ground.deploy()
    name = own_ground.start(target)
    own_ground.label_namespace(allowed=None)
    own_operator.start()
    own_ground.await_phase(name, "Refused")
    own_ground.label_namespace(allowed="true")
    # The next one shows that the operator has seen the change; admission may take a moment to see it.
    eventually("admission to allow it", lambda: allowed(own_ground, target))
    own_ground.delete(own_ground.run(target))
    assert own_ground.status(name)["phase"] == "Refused"


def test_objects_older_than_the_schema_end_and_can_be_deleted(
    own_ground: Ground, own_operator: OperatorProcess
) -> None:
    """A CRD without any rule takes everything; the operator has to live with what is stored."""
    crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/chaosexperiments.chaos.shadowfault.dev"
    strict = own_ground.api.request("GET", crd)
    versions = [dict(strict["spec"]["versions"][0])]
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    versions[0]["schema"] = {
        "openAPIV3Schema": {"type": "object", "properties": {"spec": free, "status": free}}
    }
    target = own_ground.deploy()
    broken: list[Any] = [
        None,
        {"rate": "much"},
        {"targetRef": "api"},
        {"targetRef": {"name": target}, "rate": 2.0, "duration": "9h"},
    ]
    try:
        own_ground.api.request("PATCH", crd, {"spec": {"versions": versions}}, "application/merge-patch+json")
        path = f"/apis/chaos.shadowfault.dev/v1alpha1/namespaces/{own_ground.namespace}/chaosexperiments"

        def accepted(body: dict[str, Any]) -> bool:
            # The schemas of before stay in force for a moment, and not in all handlers for the same one.
            try:
                own_ground.api.request("POST", path, body)
            except ApiRefusalError as error:
                if error.status == 422:
                    return False
                raise
            return True

        for number, spec in enumerate(broken):
            body = experiment(f"broken-{number}") | {"spec": spec}
            if spec is None:
                del body["spec"]
            eventually("the loose schema", lambda body=body: accepted(body))
    finally:
        own_ground.api.request(
            "PATCH", crd, {"spec": {"versions": strict["spec"]["versions"]}}, "application/merge-patch+json"
        )
    own_operator.start()
    for number in range(len(broken)):
        # Not all of them can have a status: the API server refuses any update of a value of the wrong type.
        eventually("the Event", lambda number=number: "InvalidSpec" in own_ground.events(f"broken-{number}"))
        assert (own_ground.experiment(f"broken-{number}") or {})["metadata"].get("finalizers") is None
    assert_refused(own_ground, f"broken-{len(broken) - 1}", "InvalidSpec")
    # What cannot be suspended, `drain` deletes, and nothing holds it.
    drained = subprocess.run(
        [sys.executable, "-m", "shadowfault_cli", "drain", "-n", own_ground.namespace, "--timeout", "20"],
        env={**os.environ, "KUBECONFIG": str(own_ground.cluster.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert drained.returncode == 0, drained.stderr
    for number in range(len(broken)):
        left = own_ground.experiment(f"broken-{number}")
        if left is not None:
            assert left["status"]["phase"] == "Refused"
            own_ground.delete(f"broken-{number}")
    assert own_ground.generation(target) == 1
