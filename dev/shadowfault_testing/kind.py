"""A kind cluster for the end-to-end suite, always by name and with a kubeconfig of its own.

Nothing here reads or writes the current context of whoever runs it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# The port on every node under which the suite reaches the service, and on this machine for our own cluster.
NODE_PORT: Final = 30400
# Of the names of the clusters that the suite makes.
PREFIX: Final = "shadowfault-e2e-"
_TOOLS: Final = ("docker", "kind", "kubectl", "helm")
_CONFIG: Final = """\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
    extraPortMappings:
      - {{containerPort: {node_port}, hostPort: {host_port}, listenAddress: 127.0.0.1, protocol: TCP}}
"""


class MissingToolError(Exception):
    """What the suite needs and this machine has not."""


class CommandError(Exception):
    """A command failed; the message has what it printed."""


def require_tools() -> None:
    """Look for everything the suite starts.

    Raises:
        MissingToolError: naming what is missing.
    """
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise MissingToolError(f"the e2e suite needs {', '.join(missing)} on PATH")
    if run(["docker", "info"], check=False).returncode:
        raise MissingToolError("the e2e suite needs a running Docker daemon: `docker info` fails")


def run(
    command: Sequence[str],
    *,
    check: bool = True,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
    seconds: float = 600,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Raises:
        CommandError: its exit status is not 0 and `check` is true.
    """
    done = subprocess.run(  # noqa: S603 - the suite's own commands
        command,
        check=False,
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        timeout=seconds,
    )
    if check and done.returncode:
        raise CommandError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


@dataclass(frozen=True)
class Kind:
    """A cluster. `api_url` is where NODE_PORT is reached from here."""

    name: str
    kubeconfig: Path
    api_url: str

    @property
    def disposable(self) -> bool:
        """Whether this suite made it, now or earlier, so that even its node may be harmed."""
        return self.name.startswith(PREFIX)

    @classmethod
    def create(cls, name: str, kubeconfig: Path) -> Self:
        """Make a cluster; KIND_NODE_IMAGE chooses the node's image, kind's own default otherwise."""
        port = _free_port()
        command = ["kind", "create", "cluster", "--name", name, "--kubeconfig", str(kubeconfig)]
        command += ["--config", "-", "--wait", "180s"]
        image = os.environ.get("KIND_NODE_IMAGE")
        if image:
            command += ["--image", image]
        _say(f"kind cluster {name}")
        run(command, stdin=_CONFIG.format(node_port=NODE_PORT, host_port=port))
        made = cls(name, kubeconfig, f"http://127.0.0.1:{port}")
        made.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
        return made

    @classmethod
    def attach(cls, name: str, kubeconfig: Path) -> Self:
        """An existing kind cluster, by its name."""
        kubeconfig.write_text(run(["kind", "get", "kubeconfig", "--name", name]).stdout)
        kubeconfig.chmod(0o600)
        inspected = run(
            [
                *("docker", "inspect", "--format"),
                "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
                f"{name}-control-plane",
            ]
        )
        return cls(name, kubeconfig, f"http://{inspected.stdout.strip()}:{NODE_PORT}")

    def delete(self) -> None:
        """Remove it."""
        run(["kind", "delete", "cluster", "--name", self.name, "--kubeconfig", str(self.kubeconfig)])

    def load(self, *images: str) -> None:
        """Bring images from this machine's Docker onto the nodes."""
        _say(f"loading {', '.join(images)}")
        run(["kind", "load", "docker-image", "--name", self.name, *images])

    def kubectl(
        self, *args: str, stdin: str | None = None, check: bool = True, seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Kubectl on this cluster."""
        command = ["kubectl", "--kubeconfig", str(self.kubeconfig), *args]
        return run(command, stdin=stdin, check=check, seconds=seconds)

    def helm(self, *args: str, check: bool = True, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Helm on this cluster."""
        return run(["helm", "--kubeconfig", str(self.kubeconfig), *args], check=check, seconds=seconds)

    def on_node(self, *command: str) -> str:
        """A command on the control plane's node."""
        return run(["docker", "exec", f"{self.name}-control-plane", *command]).stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _say(message: str) -> None:
    sys.stderr.write(f"e2e: {message}\n")
    sys.stderr.flush()
