"""The life of containers: probes, restarts, init containers, logs, exec, environment, tokens."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_testing.pods import fetch, server_container, shell_container

if TYPE_CHECKING:
    from pathlib import Path

    from shadowfault_testing.pods import PodGround

pytestmark = pytest.mark.cluster


def http_probe(path: str, **fields: Any) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "http"}, "periodSeconds": 1, "failureThreshold": 1, **fields}


def test_a_failed_liveness_probe_restarts_the_container(ground: PodGround) -> None:
    ground.pod("web", server_container(livenessProbe=http_probe("/alive")))
    address = ground.wait_ready("web")["status"]["podIP"]
    ground.eventually(lambda: fetch(f"{address}:8080", "/dead"))
    ground.eventually(lambda: ground.container("web").get("restartCount", 0) >= 1)
    assert "failed liveness probe" in ground.wait_event("web", "Killing")
    assert any("statuscode: 500" in message for message in ground.events("web", "Unhealthy"))
    assert ground.get("pod", "web")["status"]["podIP"] == address


def test_a_startup_probe_holds_the_others_back_and_kills_what_never_starts(ground: PodGround) -> None:
    never = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2}
    ground.pod("stuck", server_container(startupProbe=never, readinessProbe=http_probe("/ready")))
    ground.eventually(lambda: ground.container("stuck").get("restartCount", 0) >= 1)
    assert "failed startup probe" in ground.wait_event("stuck", "Killing")
    assert not any("Readiness" in message for message in ground.events("stuck", "Unhealthy"))

    begun = {"exec": {"command": ["sh", "-c", "test -e begun"]}, "periodSeconds": 1, "failureThreshold": 60}
    ground.pod("slow", shell_container("sleep 0.5; touch begun; sleep 600", startupProbe=begun))
    ground.wait_ready("slow")
    assert ground.container("slow")["started"] is True


def test_probes_send_their_headers_and_reach_tcp_ports(ground: PodGround) -> None:
    headers = {"path": "/headers", "port": 8080, "httpHeaders": [{"name": "X-Probe", "value": "yes"}]}
    tcp = {"tcpSocket": {"port": "http"}, "periodSeconds": 1}
    ground.pod("web", server_container(startupProbe={"httpGet": headers}, readinessProbe=tcp))
    ground.wait_ready("web")
    assert "headers: yes" in ground.kubectl("logs", "web")


def test_a_crashing_container_backs_off_and_keeps_its_last_state(ground: PodGround) -> None:
    ground.pod("crash", shell_container("echo run $RANDOM$$; exit 3"))
    ground.eventually(lambda: ground.container("crash").get("restartCount", 0) >= 2)

    def waiting() -> dict[str, Any] | None:
        status = ground.container("crash")
        reason = status.get("state", {}).get("waiting", {}).get("reason")
        return status if reason == "CrashLoopBackOff" else None

    status = ground.eventually(waiting)
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert status["ready"] is False
    assert "Back-off restarting" in ground.wait_event("crash", "BackOff")
    assert ground.kubectl("logs", "crash", "--previous").startswith("run ")


def test_a_killed_process_reports_its_signal(ground: PodGround) -> None:
    ground.pod("killed", shell_container("kill -9 $$$$"), restartPolicy="Never")
    ground.wait_phase("killed", "Failed")
    assert ground.container("killed")["state"]["terminated"]["exitCode"] == 137


def test_a_command_that_does_not_exist_is_a_start_error(ground: PodGround) -> None:
    ground.pod(
        "typo", {"name": "main", "image": "none", "command": ["no-such-command"]}, restartPolicy="Never"
    )
    ground.wait_phase("typo", "Failed")
    terminated = ground.container("typo")["state"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (128, "StartError")
    assert "no-such-command" in terminated["message"]


def test_a_container_without_a_command_waits_and_says_why(ground: PodGround) -> None:
    ground.pod("image", {"name": "main", "image": "nginx"})
    ground.wait_event("image", "CommandRequired")
    ground.eventually(
        lambda: (
            ground.container("image").get("state", {}).get("waiting", {}).get("reason") == "CommandRequired"
        )
    )


def test_init_containers_run_in_order_and_sidecars_stay(ground: PodGround) -> None:
    sidecar = shell_container("echo sidecar >> order; exec sleep 600", restartPolicy="Always") | {
        "name": "side"
    }
    sidecar["startupProbe"] = {"exec": {"command": ["test", "-e", "order"]}, "periodSeconds": 1}
    inits = [
        sidecar,
        shell_container("echo first >> order") | {"name": "first"},
        shell_container("echo second >> order") | {"name": "second"},
    ]
    ground.pod("ordered", shell_container("cat order"), initContainers=inits, restartPolicy="Never")
    pod = ground.wait_phase("ordered", "Succeeded")
    assert ground.kubectl("logs", "ordered", "--container", "main") == "sidecar\nfirst\nsecond\n"
    ended = [entry["state"]["terminated"]["exitCode"] for entry in pod["status"]["initContainerStatuses"]]
    assert ended == [143, 0, 0]


def test_a_failed_init_container_keeps_the_pod_from_starting(ground: PodGround) -> None:
    init = shell_container("exit 5") | {"name": "init"}
    ground.pod("broken", shell_container("echo never"), initContainers=[init], restartPolicy="Never")
    ground.wait_phase("broken", "Failed")
    assert "waiting" in ground.container("broken")["state"]
    assert ground.container("broken", "init")["state"]["terminated"]["exitCode"] == 5


def test_the_environment_is_what_the_pod_declares(ground: PodGround) -> None:
    ground.kubectl("create", "configmap", "settings", "--from-literal=COLOUR=red", "--from-literal=SIZE=1")
    ground.kubectl("create", "secret", "generic", "secrets", "--from-literal=token=s3cr3t")
    env = [
        {"name": "SIZE", "value": "2"},
        {"name": "GREETING", "value": "$(MY_COLOUR) $(SIZE) $$(SIZE) $(MISSING)"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "secrets", "key": "token"}}},
        {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "no", "optional": True}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "CORES", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
    ]
    sources = [
        {"configMapRef": {"name": "settings"}},
        {"prefix": "MY_", "configMapRef": {"name": "settings"}},
        {"secretRef": {"name": "absent", "optional": True}},
    ]
    container = {
        "name": "main",
        "image": "none",
        "command": ["sh", "-c", "env; echo args: $0", "$(GREETING)"],
        "env": env,
        "envFrom": sources,
        "resources": {"limits": {"cpu": "1500m"}},
    }
    ground.pod("env", container, labels={"app": "web"}, restartPolicy="Never")
    ground.wait_phase("env", "Succeeded")
    lines = ground.kubectl("logs", "env").splitlines()
    expected = {
        "COLOUR=red",
        "MY_SIZE=1",
        "SIZE=2",
        "GREETING=red 2 $(SIZE) $(MISSING)",
        "TOKEN=s3cr3t",
        "LABEL=web",
        "CORES=2",
        "args: red 2 $(SIZE) $(MISSING)",
        "HOSTNAME=env",
    }
    assert expected <= set(lines)
    assert not any(line.startswith("NONE=") for line in lines)


def test_a_missing_config_map_is_waited_for(ground: PodGround) -> None:
    ground.pod(
        "late",
        shell_container("echo $KEY", envFrom=[{"configMapRef": {"name": "late"}}]),
        restartPolicy="Never",
    )
    waiting = ground.eventually(
        lambda: ground.container("late").get("state", {}).get("waiting", {}).get("message")
    )
    assert waiting == 'configmap "late" not found'
    ground.kubectl("create", "configmap", "late", "--from-literal=KEY=found")
    ground.wait_phase("late", "Succeeded")
    assert ground.kubectl("logs", "late") == "found\n"


WHO = """
import kubernetes, os, socket
kubernetes.config.load_kube_config()
api = kubernetes.client.AuthenticationV1Api()
review = api.create_self_subject_review(kubernetes.client.V1SelfSubjectReview())
print(review.status.user_info.username)
address = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])
with socket.create_connection(address):
    print("service reached")
"""


def test_a_pod_is_its_service_account(ground: PodGround) -> None:
    ground.kubectl("create", "serviceaccount", "worker")
    container = {"name": "main", "image": "none", "command": ["python", "-W", "ignore", "-c", WHO]}
    ground.pod("who", container, serviceAccountName="worker", restartPolicy="Never")
    ground.eventually(lambda: ground.phase("who") in {"Succeeded", "Failed"})
    user = f"system:serviceaccount:{ground.namespace}:worker"
    assert ground.kubectl("logs", "who").splitlines() == [user, "service reached"]


def test_a_pod_may_do_without_a_token(ground: PodGround) -> None:
    container = shell_container("echo ${KUBECONFIG-none}")
    ground.pod("nobody", container, automountServiceAccountToken=False, restartPolicy="Never")
    ground.wait_phase("nobody", "Succeeded")
    assert ground.kubectl("logs", "nobody") == "none\n"


def test_logs_by_tail_time_and_following(ground: PodGround) -> None:
    ground.pod("talk", shell_container("echo one; echo two >&2; sleep 1; echo three"), restartPolicy="Never")
    ground.eventually(lambda: ground.container("talk").get("state", {}).get("running"))
    followed = ground.kubectl("logs", "talk", "--follow")  # ends with the container
    assert sorted(followed.splitlines()) == ["one", "three", "two"]
    assert ground.kubectl("logs", "talk", "--tail=1") == "three\n"
    stamped = ground.kubectl("logs", "talk", "--timestamps", "--tail=1").split()
    assert (stamped[0][-1], stamped[1]) == ("Z", "three")
    assert ground.kubectl("logs", "talk", "--since-time=2999-01-01T00:00:00Z") == ""


def test_exec_runs_beside_the_container(ground: PodGround) -> None:
    ground.pod("web", server_container())
    ground.wait_ready("web")
    assert ground.kubectl("exec", "web", "--", "printenv", "HOSTNAME") == "web\n"
    kubectl = (
        "--namespace",
        ground.namespace,
        "exec",
        "-i",
        "web",
        "--",
        "sh",
        "-c",
        "cat; echo bad >&2; exit 3",
    )
    result = ground.cluster.kubectl(*kubectl, input="typed", check=False)
    assert (result.returncode, result.stdout) == (3, "typed")
    assert result.stderr.startswith("bad\n")


def test_hooks_run_at_both_ends(ground: PodGround, tmp_path: Path) -> None:
    lifecycle = {
        "postStart": {"exec": {"command": ["sh", "-c", f"echo begun >> {tmp_path}/life"]}},
        "preStop": {"exec": {"command": ["sh", "-c", f"echo ending >> {tmp_path}/life"]}},
    }
    script = f"trap 'echo ended >> {tmp_path}/life; exit' TERM; echo up; while :; do sleep 0.05; done"
    ground.pod("hooked", shell_container(script, lifecycle=lifecycle), terminationGracePeriodSeconds=30)
    ground.wait_ready("hooked")
    ground.eventually(lambda: ground.kubectl("logs", "hooked") == "up\n")
    ground.kubectl("delete", "pod", "hooked", "--timeout=60s")
    assert (tmp_path / "life").read_text().split() == ["begun", "ending", "ended"]


def test_what_has_no_effect_is_said_once(ground: PodGround) -> None:
    container = shell_container(
        "sleep 600",
        resources={"limits": {"memory": "64Mi"}},
        volumeMounts=[{"name": "data", "mountPath": "/data"}],
    )
    ground.pod("wishes", container, volumes=[{"name": "data", "emptyDir": {}}], hostNetwork=True)
    message = ground.wait_event("wishes", "UnsupportedField")
    for field in ("spec.hostNetwork", "spec.volumes[data].emptyDir", "spec.containers[main].resources"):
        assert field in message
    ground.wait_ready("wishes")
    ground.kubectl("label", "pod", "wishes", "changed=true")
    ground.wait_event("wishes", "Started")
    assert len(ground.events("wishes", "UnsupportedField")) == 1


def test_a_pod_that_fits_no_node_stays_pending(ground: PodGround) -> None:
    ground.pod("picky", shell_container("true"), nodeSelector={"disk": "fast"})
    assert "disk=fast" in ground.wait_event("picky", "FailedScheduling")
    assert ground.condition("pod", "picky", "PodScheduled")["reason"] == "Unschedulable"
    ground.kubectl("delete", "pod", "picky", "--timeout=60s")


def is_running(marker: str) -> bool:
    """Whether a process has `marker` on its command line."""
    return subprocess.run(["pgrep", "--full", marker], capture_output=True, check=False).returncode == 0


def test_a_deleted_pod_leaves_no_process(ground: PodGround) -> None:
    # Ignores SIGTERM, and has a child that left its process group.
    marker = f"sleep 1{int(ground.namespace[-8:], 16)}"
    script = f"trap '' TERM; setsid {marker} & while :; do {marker}; done"
    ground.pod("stubborn", shell_container(script))
    ground.eventually(lambda: is_running(marker))
    ground.kubectl("delete", "pod", "stubborn", "--timeout=60s")
    ground.eventually(lambda: not is_running(marker))
