"""The operator as a process of its own, and a namespace for it to work in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

from shadowfault_testing import launch
from shadowfault_testing.api import (
    APPLY,
    MERGE,
    STRATEGIC,
    Api,
    ApiRefusalError,
    deployments,
    eventually,
    experiments,
)
from shadowfault_testing.objects import Json, container, deployment, experiment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shadowfault_cluster import Cluster


class OperatorProcess:
    """`python -m shadowfault_operator` on one namespace. Ends with the test process, however that ends."""

    def __init__(self, kubeconfig: Path, namespace: str, log: Path, **environment: str) -> None:
        self._log = log
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "KUBECONFIG": str(kubeconfig),
            "SHADOWFAULT_NAMESPACES": namespace,
            "PORT": "0",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def start(self) -> None:
        """Start it and wait until its watches are open."""
        with self._log.open("ab") as log:
            begin = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 - our own
                [
                    sys.executable,
                    *("-I", "-S", str(launch.__file__), str(os.getpid()), "-1", "-1"),
                    *(sys.executable, "-m", "shadowfault_operator"),
                ],
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._port = eventually("the operator's port", lambda: self._announced_port(begin))
        eventually("the operator to be ready", lambda: self.get("/readyz"))

    def _announced_port(self, begin: int) -> int | None:
        for line in self._log.read_bytes()[begin:].splitlines():
            entry = json.loads(line) if line.startswith(b"{") else {}
            if "port" in entry:
                return int(entry["port"])
        if self._process is None or self._process.poll() is not None:
            raise AssertionError(f"the operator ended:\n{self._log.read_text()}")
        return None

    @property
    def pid(self) -> int:
        """Of the process, which the launcher has become."""
        assert self._process is not None, "it is not running"
        return self._process.pid

    def get(self, path: str) -> str | None:
        """What its HTTP port answers; None while it does not answer with 200."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return None

    def metric(self, line: str) -> float:
        """The value of the sample that begins so; 0 where there is none."""
        for sample in (self.get("/metrics") or "").splitlines():
            if sample.startswith(line):
                return float(sample.rsplit(" ", 1)[1])
        return 0.0

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it and return its exit status; nothing happens the second time."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            return process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


class Ground:
    """A namespace that has opted in, and what is done in it. Names are made unique within it."""

    def __init__(self, cluster: Cluster, namespace: str, api: Api | None = None) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.api = api or Api(cluster.kubeconfig)
        self._count = 0

    def create_namespace(self, **labels: str) -> None:
        self.api.request(
            "POST",
            "/api/v1/namespaces",
            {
                "metadata": {
                    "name": self.namespace,
                    "labels": {"chaos.shadowfault.dev/allowed": "true", **labels},
                }
            },
        )

    def label_namespace(self, **labels: str | None) -> None:
        """Set labels, or remove them (None); `allowed` stands for the opt-in label."""
        if "allowed" in labels:
            labels["chaos.shadowfault.dev/allowed"] = labels.pop("allowed")
        self.api.request(
            "PATCH", f"/api/v1/namespaces/{self.namespace}", {"metadata": {"labels": labels}}, MERGE
        )

    def name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}-{self._count}"

    # Deployments

    def deploy(self, *, env: list[Json] | None = None, manager: str = "helm", **fields: Any) -> str:  # noqa: ANN401 - JSON
        """Create a Deployment of one container, or of `containers`; returns its name."""
        name = self.name("api")
        body = deployment(name, **({"containers": [container(env=env)]} | fields))
        self.api.request("POST", f"{deployments(self.namespace)}?fieldManager={manager}", body)
        return name

    def target(self, name: str) -> Json:
        return self.api.request("GET", deployments(self.namespace, name))

    def env(self, name: str, container_name: str = "api") -> dict[str, Json]:
        """Environment entries of a container by name, without their names."""
        containers = self.target(name)["spec"]["template"]["spec"]["containers"]
        env = next(item.get("env", []) for item in containers if item["name"] == container_name)
        return {entry["name"]: {key: value for key, value in entry.items() if key != "name"} for entry in env}

    def pod_spec(self, name: str) -> Json:
        return dict(self.target(name)["spec"]["template"])

    def generation(self, name: str) -> int:
        return int(self.target(name)["metadata"]["generation"])

    def managers(self, name: str) -> set[str]:
        return {entry["manager"] for entry in self.target(name)["metadata"]["managedFields"]}

    def apply_env(self, name: str, manager: str, env: list[Json], *, force: bool = True) -> Json:
        """Server-side apply of environment entries, as a GitOps tool does it."""
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {"template": {"spec": {"containers": [{"name": "api", "env": env}]}}},
        }
        query = f"?fieldManager={manager}&force={'true' if force else 'false'}"
        return self.api.request("PATCH", deployments(self.namespace, name) + query, body, APPLY)

    def patch_target(self, name: str, body: Json, manager: str = "person") -> None:
        self.api.request(
            "PATCH", f"{deployments(self.namespace, name)}?fieldManager={manager}", body, STRATEGIC
        )

    def kubectl(self, *args: str) -> str:
        return self.cluster.kubectl("-n", self.namespace, *args).stdout

    # Experiments

    def start(self, target: str, **spec: Any) -> str:  # noqa: ANN401 - JSON
        """Create an experiment and return its name."""
        name = self.name("shadow")
        self.api.request("POST", experiments(self.namespace), experiment(name, target=target, **spec))
        return name

    def experiment(self, name: str) -> Json | None:
        return self.api.find(experiments(self.namespace, name))

    def status(self, name: str) -> Json:
        found = self.experiment(name)
        return dict((found or {}).get("status") or {})

    def await_phase(self, name: str, phase: str, reason: str | None = None) -> Json:
        """The status once it is in that phase.

        Raises:
            TimeoutError: it did not get there.
            AssertionError: it got there for another reason.
        """

        def reached() -> Json | None:
            status = self.status(name)
            if status.get("phase") == phase:
                return status
            if status.get("phase") in {"Finished", "Refused"}:
                raise AssertionError(f"{name} is {status}")
            return None

        status = eventually(f"{name} to be {phase}", reached)
        if reason is not None and status["reason"] != reason:
            raise AssertionError(f"{name} is {status}")
        return status

    def run(self, target: str, **spec: Any) -> str:  # noqa: ANN401 - JSON
        """Create an experiment and wait until it is injected, and said so: an operator may be killed then."""
        name = self.start(target, **spec)
        self.await_phase(name, "Running")
        eventually("the Event", lambda: "Injected" in self.events(name))
        return name

    def delete(self, name: str) -> None:
        """Delete an experiment and wait until it is gone."""
        self.api.request("DELETE", experiments(self.namespace, name))
        self.await_gone(name)

    def await_gone(self, name: str) -> None:
        eventually(f"{name} to be gone", lambda: self.experiment(name) is None)

    def set_spec(self, name: str, **changes: Any) -> None:  # noqa: ANN401 - JSON
        self.api.request("PATCH", experiments(self.namespace, name), {"spec": changes}, MERGE)

    def set_status(self, name: str, changes: Json | None) -> None:
        self.api.request("PATCH", experiments(self.namespace, name) + "/status", {"status": changes}, MERGE)

    def run_events(self, name: str) -> list[str]:
        """Those up to the end of the run: the verdict follows when it can be told."""
        return [reason for reason in self.events(name) if not reason.startswith("Verdict")]

    def events(self, name: str) -> list[str]:
        """Reasons of the Events on an experiment, each as often as there is one."""
        listed = self.api.request("GET", f"/api/v1/namespaces/{self.namespace}/events")["items"]
        return sorted(item["reason"] for item in listed if item["involvedObject"]["name"] == name)

    def refused(self, call: Callable[[], object]) -> int:
        """The status code with which the API server refuses the call."""
        try:
            call()
        except ApiRefusalError as error:
            return error.status
        raise AssertionError("the API server took it")
