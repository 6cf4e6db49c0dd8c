"""What a fresh API server needs before the cluster is usable, and how to tell that it is."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import httpx

from shadowfault_cluster.pki import AGENT_USER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

_POLL_SECONDS = 0.05
_AGENT_ROLE = "shadowfault:node-agent"


def _rule(groups: str, resources: str, verbs: str) -> dict[str, list[str]]:
    return {
        "apiGroups": ["" if group == "core" else group for group in groups.split()],
        "resources": resources.split(),
        "verbs": verbs.split(),
    }


# A kubelet's, a scheduler's and a kube-proxy's rights in one, as the agent is all three.
_AGENT_RULES = [
    _rule("core", "nodes nodes/status", "create get list watch update patch delete"),
    _rule("core", "pods", "get list watch delete"),
    _rule("core", "pods/status", "get update patch"),
    _rule("core", "pods/binding bindings", "create"),
    _rule("core", "configmaps secrets services endpoints namespaces serviceaccounts", "get list watch"),
    _rule("core", "serviceaccounts/token", "create"),
    _rule("core events.k8s.io", "events", "create patch update get list"),
    _rule("coordination.k8s.io", "leases", "create get list watch update patch delete"),
    _rule("discovery.k8s.io", "endpointslices", "get list watch"),
    _rule("authentication.k8s.io", "tokenreviews", "create"),
    _rule("authorization.k8s.io", "subjectaccessreviews", "create"),
]


def client(url: str, pki: Path) -> httpx.AsyncClient:
    """An HTTP client with the administrator's certificate."""
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    # trust_env off: a proxy in the environment has no business on the loopback.
    return httpx.AsyncClient(base_url=url, verify=context, timeout=5.0, trust_env=False)


async def wait_until_serving(http: httpx.AsyncClient) -> None:
    """Return when the API server says it is ready, its bootstrap roles included."""
    async for _ in _poll():
        try:
            response = await http.get("/readyz")
        except httpx.TransportError:
            continue
        if response.status_code == httpx.codes.OK:
            return


async def grant_agent(http: httpx.AsyncClient) -> None:
    """Give the node agent its rights."""
    group = "rbac.authorization.k8s.io"
    role = {"rules": _AGENT_RULES}
    binding = {
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": _AGENT_ROLE},
        "subjects": [{"apiGroup": group, "kind": "User", "name": AGENT_USER}],
    }
    for kind, plural, body in (
        ("ClusterRole", "clusterroles", role),
        ("ClusterRoleBinding", "clusterrolebindings", binding),
    ):
        response = await http.patch(
            f"/apis/{group}/v1/{plural}/{_AGENT_ROLE}",
            params={"fieldManager": "shadowfault-cluster", "force": "true"},
            headers={"Content-Type": "application/apply-patch+yaml"},
            json={"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": _AGENT_ROLE}, **body},
        )
        response.raise_for_status()


async def wait_for_default_service_account(http: httpx.AsyncClient) -> None:
    """Return when pods can be created in the default namespace: the controllers are at work."""
    await _wait_for(http, "/api/v1/namespaces/default/serviceaccounts/default", lambda _: True)


async def wait_for_node(http: httpx.AsyncClient, name: str) -> None:
    """Return when the node agent has registered its Node and reports it Ready."""
    await _wait_for(http, f"/api/v1/nodes/{name}", _is_ready)


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


async def _wait_for(http: httpx.AsyncClient, path: str, accept: Callable[[dict[str, Any]], bool]) -> None:
    async for _ in _poll():
        try:
            response = await http.get(path)
        except httpx.TransportError:
            continue
        if response.status_code == httpx.codes.OK and accept(response.json()):
            return


async def _poll() -> AsyncIterator[None]:
    while True:
        yield
        await asyncio.sleep(_POLL_SECONDS)
