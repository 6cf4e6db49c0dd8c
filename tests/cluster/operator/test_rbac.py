"""The operator under its own service account: the manifests under deploy/ give it enough, and no more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from shadowfault_testing.api import MERGE, eventually, experiments, schedules
from shadowfault_testing.objects import schedule
from shadowfault_testing.operator import Ground, OperatorProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shadowfault_cluster import Cluster

pytestmark = pytest.mark.cluster

DEPLOY = Path(__file__).parents[3] / "deploy"


@pytest.fixture(scope="module")
def kubeconfig(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kubeconfig with a token of the operator's service account, its roles installed but for rbac.yaml."""
    documents = [item for item in yaml.safe_load_all((DEPLOY / "operator.yaml").read_text()) if item]
    roles = [item for item in documents if item["kind"] != "Deployment"]
    installed.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(roles))
    token = installed.kubectl("-n", "shadowfault-system", "create", "token", "shadowfault-operator").stdout
    config = yaml.safe_load(installed.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token.strip()}
    path = tmp_path_factory.mktemp("account") / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def operator(kubeconfig: Path, own_ground: Ground, tmp_path: Path) -> Iterator[OperatorProcess]:
    process = OperatorProcess(kubeconfig, own_ground.namespace, tmp_path / "operator.log")
    yield process
    process.stop()
    assert "Traceback" not in (tmp_path / "operator.log").read_text()


def let_in(ground: Ground) -> None:
    """Apply rbac.yaml for the namespace."""
    manifest = yaml.safe_load((DEPLOY / "rbac.yaml").read_text())
    manifest["metadata"]["namespace"] = ground.namespace
    ground.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(manifest))


def test_it_is_enough(own_ground: Ground, operator: OperatorProcess) -> None:
    let_in(own_ground)
    own_ground.api.request(
        "POST",
        f"/api/v1/namespaces/{own_ground.namespace}/configmaps",
        {"metadata": {"name": "settings"}, "data": {"env": "staging"}},
    )
    reference = {"configMapKeyRef": {"name": "settings", "key": "env"}}
    operator.start()
    target = own_ground.deploy(env=[{"name": "NODE_ENV", "valueFrom": reference}])
    before = own_ground.target(target)["spec"]
    name = own_ground.run(target)
    own_ground.delete(name)
    assert own_ground.target(target)["spec"] == before
    assert own_ground.events(name) == ["Accepted", "Deleted", "Injected", "Recovered"]
    eventually("the pods to be listed", lambda: operator.metric("shadowfault_injections_total"))
    assert operator.metric('shadowfault_disarm_requests_total{result="unlisted"}') == 0
    own_ground.await_gone(own_ground.start("nothing", ttlSecondsAfterFinished=0))


def overdue(ground: Ground, target: str) -> str:
    """A schedule that is due at once: as if it had last started something two minutes ago. Its path."""
    path = schedules(ground.namespace, "often")
    body = schedule("often", spec={"targetRef": {"name": target}}, suspend=True)
    ground.api.request("POST", schedules(ground.namespace), body)
    last = (datetime.now(UTC) - timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    ground.api.request("PATCH", f"{path}/status", {"status": {"lastScheduleTime": last}}, MERGE)
    ground.api.request("PATCH", path, {"spec": {"suspend": False}}, MERGE)
    return path


def test_it_is_enough_for_a_schedule_where_it_is_let_in(
    own_ground: Ground, operator: OperatorProcess
) -> None:
    target = own_ground.deploy(env=[{"name": "NODE_ENV", "value": "staging"}])
    operator.start()
    path = overdue(own_ground, target)

    def stalled() -> str | None:
        conditions = own_ground.api.request("GET", path).get("status", {}).get("conditions", [])
        found = next((item for item in conditions if item["type"] == "Stalled"), {"status": "False"})
        return str(found["message"]) if found["status"] == "True" else None

    assert "cannot create resource" in eventually("the condition", stalled)
    # The minute before is not made up for.
    told = ["ExperimentNotCreated", "StartMissed"]
    eventually("its Events", lambda: own_ground.events("often") == told)
    let_in(own_ground)
    # Whatever is changed has it try again.
    eventually(
        "to be let in",
        lambda: (
            own_ground.cluster.kubectl(
                "-n",
                own_ground.namespace,
                "auth",
                "can-i",
                "create",
                "chaosexperiments.chaos.shadowfault.dev",
                "--as",
                "system:serviceaccount:shadowfault-system:shadowfault-operator",
                check=False,
            ).stdout.strip()
            == "yes"
        ),
    )
    own_ground.api.request("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, MERGE)

    def only() -> str | None:
        items = own_ground.api.request("GET", experiments(own_ground.namespace))["items"]
        return str(items[0]["metadata"]["name"]) if items else None

    name = eventually("the experiment", only)
    own_ground.await_phase(name, "Running")
    eventually("nothing to stall it", lambda: stalled() is None)
    own_ground.api.request("DELETE", path)
    own_ground.delete(name)


def test_without_the_namespaces_binding_nothing_is_injected_and_the_status_says_why(
    own_ground: Ground, operator: OperatorProcess
) -> None:
    operator.start()
    target = own_ground.deploy()
    name = own_ground.start(target)

    def stalled() -> dict[str, str] | None:
        conditions = own_ground.status(name).get("conditions", [])
        return next(
            (item for item in conditions if (item["type"], item["status"]) == ("Stalled", "True")), None
        )

    condition = eventually("the condition", stalled)
    assert condition["reason"] == "ApiRefused"
    assert "cannot patch resource" in condition["message"]
    assert own_ground.generation(target) == 1
    eventually("the Event", lambda: own_ground.events(name) == ["Accepted", "ApiRefused"])
    # Let in, it goes on by itself.
    let_in(own_ground)
    own_ground.await_phase(name, "Running")
    own_ground.delete(name)


def test_who_may_not_read_the_halt_begins_nothing(
    kubeconfig: Path, own_ground: Ground, tmp_path: Path
) -> None:
    let_in(own_ground)
    process = OperatorProcess(
        kubeconfig, own_ground.namespace, tmp_path / "operator.log", POD_NAMESPACE=own_ground.namespace
    )
    process.start()
    target = own_ground.deploy()
    name = own_ground.start(target)
    message = own_ground.await_phase(name, "Refused", "Halted")["message"]
    assert "cannot be read" in message
    assert own_ground.generation(target) == 1
    assert process.stop() == 0


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("get", "secrets"),
        ("list", "secrets"),
        ("patch", "deployments.apps"),
        ("update", "deployments.apps"),
        ("create", "deployments.apps"),
        ("get", "configmaps"),
        ("list", "pods"),
        ("create", "pods"),
        ("create", "pods/exec"),
        ("deletecollection", "chaosexperiments.chaos.shadowfault.dev"),
        ("create", "chaosexperiments.chaos.shadowfault.dev"),
        ("patch", "namespaces"),
        ("*", "*"),
    ],
)
def test_it_is_no_more(own_ground: Ground, kubeconfig: Path, verb: str, resource: str) -> None:
    """In a namespace without the binding; the account asks for itself."""
    answer = own_ground.cluster.kubectl(
        "-n", own_ground.namespace, "auth", "can-i", verb, resource, kubeconfig=kubeconfig, check=False
    )
    assert answer.stdout.strip() == "no", answer


def test_no_role_has_a_wildcard_and_the_injector_is_bound_in_namespaces_only() -> None:
    documents = [item for item in yaml.safe_load_all((DEPLOY / "operator.yaml").read_text()) if item]
    for item in documents:
        for rule in item.get("rules", []):
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        if item["kind"] == "ClusterRoleBinding":
            assert item["roleRef"]["name"] != "shadowfault-injector"


@pytest.mark.parametrize(
    ("role", "looks", "writes"), [("view", "yes", "no"), ("edit", "yes", "yes"), ("admin", "yes", "yes")]
)
def test_the_clusters_own_roles_hold_for_experiments_too(
    own_ground: Ground, role: str, looks: str, writes: str
) -> None:
    cluster, namespace = own_ground.cluster, own_ground.namespace
    cluster.kubectl("apply", "-f", str(DEPLOY / "authors.yaml"))
    cluster.kubectl(
        "-n", namespace, "create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}er"
    )

    def may(verb: str, kind: str, *more: str) -> str:
        asked = ("-n", namespace, "auth", "can-i", verb, f"{kind}.chaos.shadowfault.dev", f"--as={role}er")
        return cluster.kubectl(*asked, *more, check=False).stdout.strip()

    for kind in ("chaosexperiments", "chaosschedules"):
        # The controller that adds the rules takes a moment.
        eventually("the rules to be added", lambda kind=kind: may("list", kind) == looks)
        for verb in ("create", "patch", "delete"):
            eventually(f"{verb}: {writes}", lambda kind=kind, verb=verb: may(verb, kind) == writes)
    # What an experiment came to is the operator's to say.
    assert may("patch", "chaosexperiments", "--subresource=status") == "no"
