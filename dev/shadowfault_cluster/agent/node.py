"""The Node object and the heartbeat that keeps it Ready."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from shadowfault_cluster.agent.api import MERGE, ApiClient, ApiError, ApiUnavailableError
from shadowfault_cluster.agent.objects import Json, has_condition, micro_timestamp, timestamp, uid_of, utcnow

if TYPE_CHECKING:
    from shadowfault_cluster.agent.config import AgentConfig

_log = logging.getLogger(__name__)

# The kubelet's own figures: a lease of 40 s, renewed every quarter of it.
_LEASE_SECONDS = 40
_RENEW_SECONDS = 10
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_RETRY_SECONDS = 0.5


def allocatable(pods: int) -> dict[str, str]:
    """What the node offers, as v1.ResourceList."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    return {"cpu": str(os.cpu_count() or 1), "memory": f"{memory}Ki", "pods": str(pods)}


def node_status(config: AgentConfig) -> Json:
    """v1.NodeStatus of a node in good health."""
    now = timestamp(utcnow())
    resources = allocatable(config.pod_capacity)
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    machine_id = _read("/etc/machine-id") or "unknown"
    return {
        "capacity": resources,
        "allocatable": resources,
        "conditions": [
            {
                "type": kind,
                "status": "True" if kind == "Ready" else "False",
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": now,
                "lastTransitionTime": now,
            }
            for kind, reason, message in (
                ("MemoryPressure", "NotMeasured", "the node agent does not measure memory"),
                ("DiskPressure", "NotMeasured", "the node agent does not measure disks"),
                ("PIDPressure", "NotMeasured", "the node agent does not measure process ids"),
                ("Ready", "AgentReady", "the node agent runs pods as local processes"),
            )
        ],
        "addresses": [
            {"type": "InternalIP", "address": config.host_ip},
            {"type": "Hostname", "address": config.node_name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.kubelet_port}},
        "nodeInfo": {
            "machineID": machine_id,
            "systemUUID": machine_id,
            "bootID": _read("/proc/sys/kernel/random/boot_id") or "unknown",
            "kernelVersion": platform.release(),
            "osImage": "local processes",
            "containerRuntimeVersion": "shadowfault-node-agent://1",
            "kubeletVersion": "v1.34.0-shadowfault",
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": architecture,
        },
    }


def node_labels(config: AgentConfig) -> dict[str, str]:
    """The labels every kubelet sets: nodeSelectors refer to them."""
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        "kubernetes.io/hostname": config.node_name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
    }


class NodeKeeper:
    """Registers the Node, renews its Lease, and makes it Ready again when it was given up."""

    def __init__(self, client: ApiClient, config: AgentConfig) -> None:
        """Nothing is sent until register()."""
        self._client = client
        self._config = config
        self.node: Json = {}

    async def register(self) -> Json:
        """Create the Node or take over the one of an agent before us; retries until it is there."""
        while True:
            try:
                self.node = await self._register()
            except (ApiError, ApiUnavailableError) as error:
                _log.info("registering the node: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return self.node

    async def _register(self) -> Json:
        name, status = self._config.node_name, node_status(self._config)
        metadata = {"name": name, "labels": node_labels(self._config)}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {}, "status": status}
        try:
            return await self._client.post("/api/v1/nodes", node)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        await self._client.patch(f"/api/v1/nodes/{name}", {"metadata": metadata})
        return await self._client.patch(f"/api/v1/nodes/{name}/status", {"status": status})

    async def run(self) -> None:
        """Renew the Lease forever."""
        while True:
            try:
                await self._renew()
                await self._stay_ready()
            except (ApiError, ApiUnavailableError) as error:
                _log.info("renewing the node's lease: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                await asyncio.sleep(_RENEW_SECONDS)

    async def _stay_ready(self) -> None:
        """After an outage (a suspended laptop) the node lifecycle controller has marked the node Unknown."""
        try:
            node = await self._client.get(f"/api/v1/nodes/{self._config.node_name}")
        except ApiError as error:
            if error.code != 404:
                raise
            node = {}
        if not has_condition(node, "Ready"):
            self.node = await self._register()

    async def _renew(self) -> None:
        name = self._config.node_name
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": _LEASE_SECONDS,
            "renewTime": micro_timestamp(utcnow()),
        }
        try:
            await self._client.patch(f"{_LEASES}/{name}", {"spec": spec}, MERGE)
        except ApiError as error:
            if error.code != 404:
                raise
            owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid_of(self.node)}
            metadata = {"name": name, "namespace": "kube-node-lease", "ownerReferences": [owner]}
            await self._client.post(_LEASES, {"metadata": metadata, "spec": spec})


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""
