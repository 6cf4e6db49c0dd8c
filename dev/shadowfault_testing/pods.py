"""A namespace with pods in it: short words for tests of the node agent."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_cluster import Cluster

Json = dict[str, Any]

# Answers every GET with the pod's name. After GET /unready, /ready fails; after GET /dead, /alive does.
SERVER = """
import http.server, os, sys
state = {"/ready": 200, "/alive": 200}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/unready": state["/ready"] = 503
        if self.path == "/dead": state["/alive"] = 500
        if self.path == "/headers": print("headers:", self.headers["X-Probe"], flush=True)
        body = os.environ["HOSTNAME"].encode()
        self.send_response(state.get(self.path, 200))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8080), Handler).serve_forever()
"""


def server_container(**fields: object) -> Json:
    """A container that runs SERVER on port 8080, named http."""
    return {
        "name": "main",
        "image": "none",
        "command": ["python", "-c", SERVER],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"name": "http", "containerPort": 8080}],
        **fields,
    }


def shell_container(script: str, **fields: object) -> Json:
    """A container that runs a shell script."""
    return {"name": "main", "image": "none", "command": ["sh", "-c", script], **fields}


def fetch(address: str, path: str = "/") -> str | None:
    """What answers there; None when the connection is refused or cut."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as response:
            return str(response.read().decode())
    except (urllib.error.URLError, ConnectionError):
        return None


@dataclass
class PodGround:
    """One namespace of the cluster."""

    cluster: Cluster
    namespace: str
    eventually: Callable[[Callable[[], Any]], Any]

    def kubectl(self, *args: str, check: bool = True) -> str:
        """What kubectl prints on stdout, in this namespace."""
        return self.cluster.kubectl("--namespace", self.namespace, *args, check=check).stdout

    def create(self, kind: str, name: str, spec: Json, api_version: str = "v1", **metadata: object) -> None:
        """Create an object."""
        item = {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace, **metadata},
            **spec,
        }
        self.cluster.kubectl("create", "-f", "-", input=json.dumps(item))

    def pod(self, name: str, *containers: Json, labels: Json | None = None, **spec: object) -> None:
        """Create a pod that ends quickly when asked to."""
        whole = {"terminationGracePeriodSeconds": 1, "containers": list(containers), **spec}
        self.create("Pod", name, {"spec": whole}, labels=labels or {})

    def get(self, kind: str, name: str) -> Json:
        """An object; an empty one when there is none."""
        text = self.kubectl("get", kind, name, "--ignore-not-found", "--output=json")
        item: Json = json.loads(text) if text else {}
        return item

    def pods(self, selector: str) -> list[Json]:
        """The pods with these labels that are not being deleted."""
        items = json.loads(self.kubectl("get", "pods", "--selector", selector, "--output=json"))["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def container(self, pod: str, name: str = "main") -> Json:
        """The status of a container; an empty one when there is none yet."""
        status = self.get("pod", pod).get("status", {})
        every = [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
        return next((entry for entry in every if entry["name"] == name), {})

    def phase(self, pod: str) -> str:
        """The phase of a pod."""
        return str(self.get("pod", pod).get("status", {}).get("phase", ""))

    def condition(self, kind: str, name: str, condition: str) -> Json:
        """A condition of an object; an empty one when it has none of that type."""
        conditions = self.get(kind, name).get("status", {}).get("conditions", [])
        return next((entry for entry in conditions if entry["type"] == condition), {})

    def wait_ready(self, pod: str) -> Json:
        """The pod, once it is Ready."""
        self.eventually(lambda: self.condition("pod", pod, "Ready").get("status") == "True")
        return self.get("pod", pod)

    def wait_phase(self, pod: str, phase: str) -> Json:
        """The pod, once it is in that phase."""
        self.eventually(lambda: self.phase(pod) == phase)
        return self.get("pod", pod)

    def wait_gone(self, kind: str, name: str) -> None:
        """Return when there is no such object."""
        self.eventually(lambda: not self.get(kind, name))

    def events(self, name: str, reason: str) -> list[str]:
        """The messages of the Events about an object that have this reason, as often as they happened."""
        selector = f"involvedObject.name={name},reason={reason}"
        items = json.loads(self.kubectl("get", "events", "--field-selector", selector, "--output=json"))[
            "items"
        ]
        return [item["message"] for item in items for _ in range(item["count"])]

    def wait_event(self, name: str, reason: str) -> str:
        """The message of the first such Event."""
        return str(self.eventually(lambda: self.events(name, reason))[0])
