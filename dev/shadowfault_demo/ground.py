"""What the demo stands on: namespaces, CRD and policies, the operator, the service, the verifier."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from shadowfault_demo.observe import Staging
from shadowfault_demo.waiting import until

if TYPE_CHECKING:
    from shadowfault_cluster import Cluster

NAMESPACE = Staging.NAMESPACE
PRODUCTION = "shop-production"
OPERATOR_NAMESPACE = "shadowfault-system"

_MANIFESTS = Path(__file__).parent / "manifests"
_CHECKOUT = Path(__file__).resolve().parents[2]


class NotACheckoutError(RuntimeError):
    """The demo installs the checkout's own crds/ and deploy/; an installed wheel has neither."""


@dataclass(frozen=True)
class Ground:
    """The running cluster with everything installed."""

    cluster: Cluster
    staging: Staging


def checkout() -> Path:
    """The root of the source checkout.

    Raises:
        NotACheckoutError: the package runs from somewhere else.
    """
    if not (_CHECKOUT / "crds").is_dir() or not (_CHECKOUT / "deploy").is_dir():
        raise NotACheckoutError(
            "the demo runs from a source checkout: clone the repository and type `make demo`"
        )
    return _CHECKOUT


def manifest(file: str, /, **values: str) -> str:
    """A manifest of the demo with its ${placeholders} filled in."""
    return Template((_MANIFESTS / file).read_text()).substitute(values)


def install_crds(cluster: Cluster) -> None:
    """Apply CRD and admission policies; returns when the API server serves and enforces them."""
    cluster.kubectl("apply", "-f", str(checkout() / "crds"))
    cluster.kubectl(
        "wait", "--for=condition=Established", "--timeout=30s", "crd/chaosexperiments.chaos.shadowfault.dev"
    )
    cluster.kubectl("apply", "-f", "-", input=manifest("namespaces.yaml"))
    # A policy is in force a moment after it is stored; only a refusal shows that it is.
    until("the admission policy to be in force", lambda: refusal(cluster, PRODUCTION), seconds=30)


def refusal(cluster: Cluster, namespace: str) -> str | None:
    """What the API server answers to an experiment in the namespace; None when it would take it."""
    answer = cluster.kubectl(
        "apply", "--dry-run=server", "-f", "-", input=experiment("probe", namespace=namespace), check=False
    )
    return answer.stderr.strip() if answer.returncode else None


def experiment(
    name: str, *, namespace: str = NAMESPACE, rate: str = "0.1", seed: str = "demo", duration: str = "10m"
) -> str:
    """The manifest of an experiment on the service."""
    return manifest(
        "experiment.yaml", name=name, namespace=namespace, rate=rate, seed=seed, duration=duration
    )


def install_operator(cluster: Cluster) -> None:
    """Apply the operator with its service account and RBAC; returns before it is ready."""
    deploy = checkout() / "deploy"
    cluster.kubectl("apply", "-f", str(deploy / "operator.yaml"))
    cluster.kubectl("apply", "-f", str(deploy / "rbac.yaml"))


def install_service(cluster: Cluster) -> Staging:
    """Apply the service with three replicas and the verifier CronJob; returns before they are ready."""
    staging = Staging(cluster)
    staging.data.mkdir(exist_ok=True)
    cluster.kubectl("apply", "-f", "-", input=manifest("api.yaml", **staging.database_urls()))
    return staging


def await_rollouts(cluster: Cluster) -> None:
    """Wait until the operator and the service are up to date and ready."""
    for namespace, name in ((OPERATOR_NAMESPACE, "shadowfault-operator"), (NAMESPACE, "api")):
        await_rollout(cluster, namespace, name)


def await_rollout(cluster: Cluster, namespace: str, name: str) -> None:
    """`kubectl rollout status` of one Deployment."""
    cluster.kubectl("-n", namespace, "rollout", "status", f"deployment/{name}", "--timeout=60s")


def personal_kubeconfigs() -> dict[Path, str]:
    """Digest of every kubeconfig of the person who runs this, to show that none was touched."""
    named = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"
        for path in [*named, Path.home() / ".kube" / "config"]
    }


def processes_of(cookie: str) -> list[int]:
    """Ids of the processes that carry the cluster's cookie in their environment."""
    wanted = f"SHADOWFAULT_CLUSTER_ID={cookie}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # it ended just now, or it is another user's
            continue
    return found
