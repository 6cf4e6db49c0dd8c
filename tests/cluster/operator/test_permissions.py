"""Each verb of the operator's roles taken away: it is named, and once it is back all goes on by itself."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from shadowfault_testing.api import eventually
from shadowfault_testing.operator import Ground, OperatorProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shadowfault_cluster import Cluster
    from shadowfault_testing.objects import Json

pytestmark = pytest.mark.cluster

DEPLOY = Path(__file__).parents[3] / "deploy"
_DOCUMENTS = [item for item in yaml.safe_load_all((DEPLOY / "operator.yaml").read_text()) if item]
ROLES = {item["metadata"]["name"]: item for item in _DOCUMENTS if item["kind"] in {"Role", "ClusterRole"}}
VERBS = [
    (role, resource, verb)
    for role, item in ROLES.items()
    for rule in item["rules"]
    for resource in rule["resources"]
    for verb in rule["verbs"]
]
# Without these nothing can be begun, and the experiment says why.
SAID_BY_THE_EXPERIMENT = {
    ("shadowfault-operator", "namespaces", "get"),
    ("shadowfault-operator", "deployments", "get"),
    ("shadowfault-operator", "chaosexperiments", "patch"),
    ("shadowfault-injector", "deployments", "patch"),
    ("shadowfault-injector", "configmaps", "get"),
}
# Without these nothing can be begun either, and the experiment cannot say so.
UNSAID = {
    ("shadowfault-operator", "chaosexperiments", "get"),
    ("shadowfault-operator", "chaosexperiments/status", "patch"),
}
# These are missed, and hold up nothing.
DISPENSABLE = {
    ("shadowfault-operator", "events", "create"),
    ("shadowfault-operator", "chaosexperiments", "delete"),
    ("shadowfault-injector", "pods", "list"),
    ("shadowfault-operator", "chaosschedules", "list"),
    ("shadowfault-operator", "chaosschedules", "watch"),
    ("shadowfault-injector", "chaosexperiments", "create"),
}


@pytest.fixture(scope="module")
def served(
    installed: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Ground, OperatorProcess]]:
    """An operator under its own service account, with all that the manifests allow it."""
    folder = tmp_path_factory.mktemp("account")
    roles = [item for item in _DOCUMENTS if item["kind"] != "Deployment"]
    installed.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(roles))
    token = installed.kubectl("-n", "shadowfault-system", "create", "token", "shadowfault-operator").stdout
    config = yaml.safe_load(installed.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token.strip()}
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    ground = Ground(installed, "op-permissions")
    ground.create_namespace()
    binding = yaml.safe_load((DEPLOY / "rbac.yaml").read_text())
    binding["metadata"]["namespace"] = ground.namespace
    installed.kubectl("apply", "-f", "-", input=yaml.safe_dump(binding))
    process = OperatorProcess(
        kubeconfig, ground.namespace, folder / "operator.log", SHADOWFAULT_RESYNC_SECONDS="1"
    )
    process.start()
    yield ground, process
    assert process.stop() == 0
    ground.api.close()


@contextmanager
def without(ground: Ground, role: str, resource: str, verb: str) -> Iterator[None]:
    """Take one verb out of a role, and put it back."""
    whole = ROLES[role]
    rules: list[Json] = [
        {
            **rule,
            "verbs": [one for one in rule["verbs"] if not (resource in rule["resources"] and one == verb)],
        }
        for rule in whole["rules"]
    ]
    lacking = {**whole, "rules": [rule for rule in rules if rule["verbs"]]}
    ground.cluster.kubectl("replace", "-f", "-", input=yaml.safe_dump(lacking))
    try:
        yield
    finally:
        ground.cluster.kubectl("replace", "-f", "-", input=yaml.safe_dump(whole))


def missing(operator: OperatorProcess) -> set[tuple[str, str, str]]:
    """(namespace, resource, verb) that the operator says it lacks."""
    pattern = r'^shadowfault_missing_permissions\{namespace="(.*?)",resource="(.*?)",verb="(.*?)"\} 1'
    return set(re.findall(pattern, operator.get("/metrics") or "", re.MULTILINE))


def stalled(ground: Ground, name: str) -> str | None:
    conditions = ground.status(name).get("conditions", [])
    found = (item for item in conditions if (item["type"], item["status"]) == ("Stalled", "True"))
    return next((f"{item['reason']}: {item['message']}" for item in found), None)


@pytest.mark.parametrize(("role", "resource", "verb"), VERBS)
def test_a_missing_verb_is_named_and_once_it_is_back_all_goes_on(
    served: tuple[Ground, OperatorProcess], role: str, resource: str, verb: str
) -> None:
    ground, operator = served
    ground.cluster.kubectl(
        "-n", ground.namespace, "create", "configmap", "settings", "--from-literal=env=staging", check=False
    )
    reference = {"configMapKeyRef": {"name": "settings", "key": "env"}}
    target = ground.deploy(env=[{"name": "NODE_ENV", "valueFrom": reference}])
    case, name = (role, resource, verb), None
    where = {"shadowfault-halt": "shadowfault-system"}.get(role, ground.namespace)
    if resource in {"namespaces", "customresourcedefinitions"}:
        where = ""
    with without(ground, role, resource, verb):
        eventually("the verb to be missed", lambda: missing(operator) == {(where, resource, verb)})
        if case in SAID_BY_THE_EXPERIMENT | UNSAID | DISPENSABLE:
            name = ground.start(target)
        if name is not None and case in SAID_BY_THE_EXPERIMENT:
            said = eventually("the condition", lambda: stalled(ground, name))
            assert said.startswith("ApiRefused: ")
            assert f'cannot {verb} resource "{resource}"' in said
            assert ground.namespace in said
        if name is not None and case in DISPENSABLE:
            ground.await_phase(name, "Running")
        if case not in DISPENSABLE:
            assert ground.generation(target) == 1
    eventually("nothing to be missed", lambda: missing(operator) == set())
    name = name or ground.start(target)
    ground.await_phase(name, "Running")
    eventually("nothing to stall it", lambda: stalled(ground, name) is None)
    ground.delete(name)
    assert "CHAOS_ENABLED" not in ground.env(target)


def test_a_refusal_that_is_over_stalls_a_run_no_longer(served: tuple[Ground, OperatorProcess]) -> None:
    ground, _ = served
    name = ground.run(ground.deploy())
    with without(ground, "shadowfault-operator", "deployments", "get"):
        eventually("the condition", lambda: stalled(ground, name))
        assert ground.status(name)["phase"] == "Running"
    eventually("nothing to stall it", lambda: stalled(ground, name) is None)
    assert ground.status(name)["phase"] == "Running"
    ground.delete(name)
