"""Who answers for a Service: pure, from the pods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shadowfault_cluster.agent.objects import Json, has_condition, is_finished, is_terminating, namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterable

# An IP address and a port.
Address = tuple[str, int]


@dataclass(frozen=True)
class Front:
    """One port of one Service: where it listens and which connections it passes on to whom."""

    listen: Address
    backends: tuple[Address, ...]


def fronts(service: Json, pods: Iterable[Json], node_ip: str) -> list[Front]:
    """The listeners of a Service with a selector, on its clusterIP and its node ports."""
    spec = service["spec"]
    address = spec.get("clusterIP")
    if not spec.get("selector") or spec.get("type") == "ExternalName" or address in {None, "", "None"}:
        return []
    ready = [pod for pod in pods if _answers(service, pod)]
    result = []
    for port in spec.get("ports") or []:
        if port.get("protocol", "TCP") != "TCP":
            continue
        backends = tuple(
            sorted((pod["status"]["podIP"], number) for pod in ready for number in _target_ports(port, pod))
        )
        result.append(Front((address, port["port"]), backends))
        if port.get("nodePort"):
            result.append(Front((node_ip, port["nodePort"]), backends))
    return result


def _answers(service: Json, pod: Json) -> bool:
    if namespace_of(pod) != namespace_of(service) or not pod.get("status", {}).get("podIP"):
        return False
    labels = pod["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in service["spec"]["selector"].items()):
        return False
    if is_finished(pod):
        return False
    unready_too = service["spec"].get("publishNotReadyAddresses", False)
    return unready_too or (has_condition(pod, "Ready") and not is_terminating(pod))


def _target_ports(port: Json, pod: Json) -> list[int]:
    """The pod's port for a Service port; empty when the pod has none of that name."""
    target = port.get("targetPort", port["port"])
    if str(target).isdecimal():
        return [int(str(target))]
    containers: list[Json] = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
    named: list[int] = [
        entry["containerPort"]
        for container in containers
        for entry in container.get("ports") or []
        if entry.get("name") == target and entry.get("protocol", "TCP") == port.get("protocol", "TCP")
    ]
    return named[:1]
