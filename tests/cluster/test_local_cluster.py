"""The local cluster as its users see it: a real API server that is theirs alone."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from shadowfault_cluster import (
    Cluster,
    ClusterError,
    ClusterInUseError,
    ClusterNotFoundError,
    ClusterStartError,
    cache,
)
from shadowfault_cluster.assets import BINARIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Eventually = Callable[[Callable[[], Any]], Any]

pytestmark = pytest.mark.cluster

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: sleepers}
spec:
  replicas: 2
  selector: {matchLabels: {app: sleepers}}
  template:
    metadata: {labels: {app: sleepers}}
    spec:
      containers: [{name: main, image: none, command: [sleep, "600"]}]
"""


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give a namespace of the test's own."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:50].strip("-")
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def _get(cluster: Cluster, *args: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.kubectl("get", *args, "-o", "json").stdout)
    return found


def test_it_is_the_version_that_go_mod_pins(cluster: Cluster) -> None:
    if "KUBEBUILDER_ASSETS" in os.environ:
        pytest.skip("somebody else's binaries")
    versions = yaml.safe_load(cluster.kubectl("version", "-o", "yaml").stdout)
    go_mod = (cache.module_directory() / "go.mod").read_text()
    pinned = re.search(r"k8s\.io/kubernetes (v\S+)", go_mod)
    assert pinned is not None
    assert versions["serverVersion"]["gitVersion"] == pinned[1]
    assert versions["clientVersion"]["gitVersion"] == pinned[1]


def test_the_real_controllers_turn_a_deployment_into_pods(
    cluster: Cluster, namespace: str, eventually: Eventually
) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", input=DEPLOYMENT)
    eventually(lambda: len(_get(cluster, "pods", "-n", namespace)["items"]) == 2)
    cluster.kubectl("delete", "deployment", "sleepers", "-n", namespace, "--wait=false")
    # The garbage collector's work.
    eventually(lambda: not _get(cluster, "replicasets", "-n", namespace)["items"])


def test_a_service_gets_an_address_of_the_clusters_own_loopback(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "service", "clusterip", "api", "--tcp=4000:4000", "-n", namespace)
    address = _get(cluster, "service", "api", "-n", namespace)["spec"]["clusterIP"]
    assert ipaddress.ip_address(address) in ipaddress.ip_network(cluster.record.service_network)
    assert ipaddress.ip_address(address) in cluster.network


def test_service_accounts_get_tokens_that_the_api_server_believes(cluster: Cluster, namespace: str) -> None:
    token = cluster.kubectl("create", "token", "default", "-n", namespace).stdout.strip()
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["sub"] == f"system:serviceaccount:{namespace}:default"
    who = cluster.kubectl(
        "auth", "whoami", "-o", "json", f"--token={token}", kubeconfig=_without_user(cluster)
    ).stdout
    assert json.loads(who)["status"]["userInfo"]["username"] == claims["sub"]


def _without_user(cluster: Cluster) -> Path:
    """A kubeconfig that knows the cluster but nobody's credentials."""
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    document["users"] = []
    del document["contexts"][0]["context"]["user"]
    path = cluster.directory / "nobody.kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("verb", "resource", "allowed"),
    [
        ("create", "pods --subresource=binding", "yes"),
        ("patch", "pods --subresource=status", "yes"),
        ("create", "serviceaccounts --subresource=token", "yes"),
        ("patch", "deployments.apps", "no"),
        ("create", "pods", "no"),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io", "no"),
    ],
)
def test_the_agent_may_do_its_work_and_no_more(
    cluster: Cluster, verb: str, resource: str, allowed: str
) -> None:
    answer = cluster.kubectl(
        "auth", "can-i", verb, *resource.split(), "-A", "--as=shadowfault:node-agent", check=False
    )
    assert answer.stdout.strip() == allowed


def test_kubectl_never_uses_or_changes_the_users_own_kubeconfig(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.write_text("current-context: production\n")
    monkeypatch.setenv("KUBECONFIG", str(own))
    cluster.kubectl("config", "set-context", "--current", "--namespace=default")
    assert cluster.kubectl("get", "namespace", "default", "-o", "name").stdout == "namespace/default\n"
    assert own.read_text() == "current-context: production\n"
    environment = cluster.environment()
    assert environment["KUBECONFIG"] == str(cluster.kubeconfig)
    found = subprocess.run(
        ["/bin/sh", "-c", "command -v kubectl"], env=environment, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).parent == Path(cluster.record.binaries)


def test_kubectls_own_words_are_in_the_error(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"get namespace nowhere: .*namespaces \"nowhere\" not found"):
        cluster.kubectl("get", "namespace", "nowhere")


def test_the_same_name_is_refused_and_attached_to(cluster: Cluster) -> None:
    with pytest.raises(ClusterInUseError, match=f"cluster down --name {cluster.name}"):
        Cluster.start(cluster.name)
    assert Cluster.attach(cluster.name).kubeconfig == cluster.kubeconfig
    with pytest.raises(ClusterNotFoundError, match="cluster up --name no-such"):
        Cluster.attach("no-such")


@pytest.mark.parametrize("component", ["kube-controller-manager", "kube-apiserver", "etcd"])
def test_a_component_that_dies_is_started_again_and_nothing_is_forgotten(
    cluster: Cluster, component: str, eventually: Eventually
) -> None:
    cluster.kubectl("create", "namespace", f"kept-{component}")
    before = cluster.status()["components"][component]
    os.kill(before["pid"], 9)
    eventually(lambda: cluster.status()["components"][component]["restarts"] == before["restarts"] + 1)
    eventually(lambda: cluster.kubectl("get", "--raw=/readyz", check=False).stdout == "ok")
    assert cluster.record.pids[component] == cluster.status()["components"][component]["pid"] != before["pid"]
    cluster.kubectl("delete", "namespace", f"kept-{component}", "--wait=false")


def test_a_component_is_stopped_and_started_on_request(cluster: Cluster) -> None:
    cluster.stop_component("kube-apiserver", kill=True)
    assert cluster.status()["components"]["kube-apiserver"]["state"] == "stopped"
    assert cluster.kubectl("get", "--raw=/readyz", check=False).returncode != 0
    cluster.start_component("kube-apiserver")
    assert cluster.kubectl("get", "--raw=/readyz").stdout == "ok"
    with pytest.raises(ClusterError, match="no component 'nothing'; there are etcd"):
        cluster.stop_component("nothing")


def test_two_clusters_side_by_side_share_nothing(cluster: Cluster) -> None:
    with Cluster.start() as other:
        assert not other.network.overlaps(cluster.network)
        assert other.directory != cluster.directory
        other.kubectl("create", "namespace", "only-here")
        assert cluster.kubectl("get", "namespace", "only-here", check=False).returncode != 0
        # Not even the administrator of one is anybody in the other.
        stranger = yaml.safe_load(other.kubeconfig.read_text())
        stranger["clusters"] = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"]
        stranger["contexts"][0]["context"]["cluster"] = stranger["clusters"][0]["name"]
        mixed = other.directory / "mixed"
        mixed.write_text(yaml.safe_dump(stranger))
        answer = other.kubectl("get", "namespaces", kubeconfig=mixed, check=False)
        assert "Unauthorized" in answer.stderr or "must be logged in" in answer.stderr
    assert cluster.kubectl("get", "--raw=/readyz").stdout == "ok"


def test_a_component_that_cannot_start_is_named_with_its_last_words(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in BINARIES:
        (tmp_path / name).symlink_to(Path(cluster.record.binaries) / name)
    broken = tmp_path / "kube-controller-manager"
    broken.unlink()
    broken.write_text("#!/bin/sh\necho the disk is on fire >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    name = f"broken-{os.getpid()}"
    with pytest.raises(
        ClusterStartError, match=r"(?s)kube-controller-manager exited with status 3.*disk is on fire"
    ):
        Cluster.start(name)
    assert not list(cluster.directory.parent.glob(f"{name}*"))


def test_the_command_line_starts_shows_and_ends_a_cluster() -> None:
    name = f"cli-{os.getpid()}"

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "shadowfault_cluster", *args]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    try:
        up = run("up", "--name", name)
        assert up.returncode == 0, up.stderr
        kubeconfig = Cluster.attach(name).kubeconfig
        assert up.stdout == f"export KUBECONFIG={kubeconfig}\n"
        again = run("up", "--name", name)
        assert (again.returncode, again.stdout) == (1, "")
        assert "already running" in again.stderr
        (told,) = json.loads(run("status", "--name", name, "-o", "json").stdout)
        assert (told["name"], told["state"]) == (name, "ready")
        assert told["components"]["etcd"]["state"] == "running"
        assert str(kubeconfig) in run("status").stdout
    finally:
        down = run("down", "--name", name)
    assert down.returncode == 0, down.stderr
    assert not kubeconfig.exists()
    assert run("status", "--name", name).returncode == 1
    assert run("down", "--name", name).returncode == 0
