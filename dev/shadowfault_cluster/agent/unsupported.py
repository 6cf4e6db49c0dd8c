"""Which fields of a pod or Service have no effect here: pure, by allow-list.

What is not known to be supported is reported, so a field of a later Kubernetes
version is never silently ignored. Values the API server fills in by default,
and settings that cannot matter on one node without images, are not reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from shadowfault_cluster.agent.objects import Json

# The volume that ServiceAccount admission adds; here it becomes the pod's KUBECONFIG.
_TOKEN_VOLUME = "kube-api-access-"  # noqa: S105 - a name, not a token
_TERMINATION_LOG = "/dev/termination-log"

_POD_FIELDS = {
    "activeDeadlineSeconds",
    "automountServiceAccountToken",
    "containers",
    "enableServiceLinks",
    "hostname",
    "imagePullSecrets",
    "initContainers",
    "nodeName",
    "nodeSelector",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "restartPolicy",
    "schedulerName",
    "schedulingGates",
    "serviceAccount",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "tolerations",
    "volumes",
}
_CONTAINER_FIELDS = {
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "restartPolicy",
    "startupProbe",
    "terminationMessagePolicy",
    "volumeMounts",
    "workingDir",
}
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def unsupported_pod_fields(pod: Json) -> list[str]:
    """The paths of the fields of `pod` that have no effect here, in a stable order."""
    spec = pod["spec"]
    found = list(_unknown(spec, _POD_FIELDS, "spec", defaults={"dnsPolicy": {"ClusterFirst", "Default"}}))
    for volume in spec.get("volumes") or []:
        if not volume["name"].startswith(_TOKEN_VOLUME):
            kind = next((key for key in volume if key != "name"), "emptyDir")
            found.append(f"spec.volumes[{volume['name']}].{kind}")
    for group in ("initContainers", "containers"):
        for container in spec.get(group) or []:
            found += _container(container, f"spec.{group}[{container['name']}]", group)
    return found


def unsupported_service_fields(service: Json) -> list[str]:
    """The paths, with the reason, of what a Service asks for in vain."""
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return ["spec.type: ExternalName (there is no cluster DNS)"]
    found = []
    if spec.get("clusterIP") == "None":
        found.append("spec.clusterIP: None (there is no cluster DNS)")
    if not spec.get("selector"):
        found.append("spec.selector: empty (EndpointSlices cannot hold loopback addresses)")
    if spec.get("sessionAffinity", "None") != "None":
        found.append("spec.sessionAffinity")
    if spec.get("type") == "LoadBalancer":
        found.append("spec.type: LoadBalancer (reachable by its clusterIP and nodePort only)")
    if spec.get("externalIPs"):
        found.append("spec.externalIPs")
    found += [
        f"spec.ports[{port.get('name') or port['port']}].protocol: {port['protocol']} (TCP only)"
        for port in spec.get("ports") or []
        if port.get("protocol", "TCP") != "TCP"
    ]
    return found


def wants_token(pod: Json) -> Json | None:
    """The serviceAccountToken projection of a pod, None when it is not to have one."""
    for volume in pod["spec"].get("volumes") or []:
        if volume["name"].startswith(_TOKEN_VOLUME):
            for source in volume.get("projected", {}).get("sources") or []:
                if "serviceAccountToken" in source:
                    projection: Json = source["serviceAccountToken"]
                    return projection
    return None


def _unknown(
    item: Json, known: Container[str], path: str, *, defaults: dict[str, set[str]] | None = None
) -> Iterator[str]:
    for key, value in item.items():
        if key in known or _is_empty(value) or value in (defaults or {}).get(key, ()):
            continue
        yield f"{path}.{key}"


def _is_empty(value: object) -> bool:
    return value is None or value is False or value in ({}, [], "")


def _container(container: Json, path: str, group: str) -> Iterator[str]:
    yield from _unknown(
        container, _CONTAINER_FIELDS, path, defaults={"terminationMessagePath": {_TERMINATION_LOG}}
    )
    if container.get("restartPolicy", "Always") != "Always" or (
        container.get("restartPolicy") and group == "containers"
    ):
        yield f"{path}.restartPolicy"
    for port in container.get("ports") or []:
        if port.get("hostPort"):
            yield f"{path}.ports[{port['containerPort']}].hostPort"
    for probe in _PROBES:
        if "grpc" in container.get(probe, {}):
            yield f"{path}.{probe}.grpc"
    lifecycle = container.get("lifecycle", {})
    yield from _unknown(lifecycle, {"preStop", "postStart"}, f"{path}.lifecycle")
    for hook in ("preStop", "postStart"):
        if "tcpSocket" in lifecycle.get(hook, {}):
            yield f"{path}.lifecycle.{hook}.tcpSocket"
