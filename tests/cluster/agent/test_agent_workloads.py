"""What the real controllers make of the agent's pods: Deployments, Jobs, Services, deletion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_testing.pods import fetch, server_container, shell_container

if TYPE_CHECKING:
    from pathlib import Path

    from shadowfault_testing.pods import PodGround

pytestmark = pytest.mark.cluster

WEB = {"app": "web"}
READINESS = {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1}


def deploy(ground: PodGround, replicas: int, **container: Any) -> None:
    template = {
        "metadata": {"labels": WEB},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [server_container(**container)]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": WEB}, "template": template}
    ground.create("Deployment", "web", {"spec": spec}, "apps/v1")


def serve(ground: PodGround, **spec: Any) -> str:
    """A Service before the Deployment; returns its address."""
    ports = [{"port": 80, "targetPort": "http"}]
    ground.create("Service", "web", {"spec": {"selector": WEB, "ports": ports, **spec}})
    return str(ground.get("service", "web")["spec"]["clusterIP"])


def create_job(ground: PodGround, script: str, **spec: Any) -> None:
    pod = {
        "restartPolicy": "Never",
        "containers": [shell_container(script)],
        "terminationGracePeriodSeconds": 1,
    }
    template = {"metadata": {"labels": {"job": "true"}}, "spec": pod}
    ground.create("Job", "task", {"spec": {"backoffLimit": 0, "template": template, **spec}}, "batch/v1")


def test_a_rollout_replaces_every_pod_at_addresses_of_their_own(ground: PodGround) -> None:
    deploy(ground, 3, readinessProbe=READINESS)
    ground.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    first = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in ground.pods("app=web")}
    assert len(set(first.values())) == 3
    assert {fetch(f"{address}:8080") for address in first.values()} == set(first)

    ground.kubectl("set", "env", "deployment/web", "CHAOS_ENABLED=true")
    ground.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    ground.eventually(lambda: not {pod["metadata"]["name"] for pod in ground.pods("app=web")} & set(first))
    assert "CHAOS_ENABLED=true" in ground.kubectl("exec", "deployment/web", "--", "env").splitlines()


def test_a_service_balances_over_ready_pods_only(ground: PodGround) -> None:
    address = serve(ground)
    assert fetch(address) is None  # refused: nobody is there
    deploy(ground, 3, readinessProbe=READINESS)
    ground.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    pods = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in ground.pods("app=web")}
    ground.eventually(lambda: {fetch(address) for _ in range(6)} == set(pods))

    unready = min(pods)
    fetch(f"{pods[unready]}:8080", "/unready")
    ground.eventually(lambda: {fetch(address) for _ in range(6)} == set(pods) - {unready})
    for ip in pods.values():
        fetch(f"{ip}:8080", "/unready")
    ground.eventually(lambda: fetch(address) is None)


def test_a_node_port_is_served_on_the_node(ground: PodGround) -> None:
    serve(ground, type="NodePort")
    deploy(ground, 1)
    ground.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    port = ground.get("service", "web")["spec"]["ports"][0]["nodePort"]
    node = ground.cluster.record.addresses.kubelet
    ground.eventually(lambda: (fetch(f"{node}:{port}") or "").startswith("web-"))


def test_a_service_that_needs_dns_says_so(ground: PodGround) -> None:
    serve(ground, clusterIP="None")
    assert "clusterIP: None" in ground.wait_event("web", "UnsupportedField")


def test_a_job_completes(ground: PodGround) -> None:
    create_job(ground, "echo done")
    ground.eventually(lambda: ground.condition("job", "task", "Complete").get("status") == "True")
    assert ground.kubectl("logs", "job/task") == "done\n"
    [pod] = ground.pods("job=true")
    assert pod["status"]["phase"] == "Succeeded"
    state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["exitCode"], state["reason"]) == (0, "Completed")


def test_a_job_that_fails_leaves_its_exit_code(ground: PodGround) -> None:
    create_job(ground, "echo too bad >&2; exit 7")
    ground.eventually(lambda: ground.condition("job", "task", "Failed").get("status") == "True")
    [pod] = ground.pods("job=true")
    assert pod["status"]["phase"] == "Failed"
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7


def test_a_pod_past_its_active_deadline_fails(ground: PodGround) -> None:
    ground.pod("late", shell_container("sleep 600"), restartPolicy="Never", activeDeadlineSeconds=1)
    status = ground.wait_phase("late", "Failed")["status"]
    assert status["reason"] == "DeadlineExceeded"


def test_a_deleted_pod_may_finish_its_work_within_the_grace(ground: PodGround, tmp_path: Path) -> None:
    script = f"trap 'echo bye > {tmp_path}/bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    ground.pod("polite", shell_container(script), terminationGracePeriodSeconds=30)
    ground.eventually(lambda: ground.kubectl("logs", "polite", check=False) == "up\n")
    ground.kubectl("delete", "pod", "polite", "--wait=true", "--timeout=60s")
    assert (tmp_path / "bye").read_text() == "bye\n"


def test_a_deleted_namespace_goes_with_its_pods(ground: PodGround) -> None:
    deploy(ground, 2)
    ground.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    addresses = [pod["status"]["podIP"] for pod in ground.pods("app=web")]
    ground.cluster.kubectl("delete", "namespace", ground.namespace, "--wait=true", "--timeout=60s")
    assert [fetch(f"{address}:8080") for address in addresses] == [None, None]
