"""What a container finds in its environment and on its command line: pure resolution.

The rules are the kubelet's (makeEnvironmentVariables): envFrom in order, then
env in order, later over earlier; service variables only where nothing else set
the name; `$(NAME)` refers to what was set so far or to a service variable.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shadowfault_cluster.agent.objects import Json, name_of, namespace_of, uid_of
from shadowfault_cluster.agent.quantities import divided

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

CONFIG_MAP, SECRET = "configmap", "secret"
_REFERENCE = re.compile(r"\$(?:(\$)|\(([^)]*)\)|(.))", re.DOTALL)
_KEYED_FIELD = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")


class EnvironmentResolutionError(Exception):
    """A container's environment refers to something that is not there (yet)."""


@dataclass(frozen=True)
class Sources:
    """What references can point to. A ConfigMap or Secret that does not exist is None."""

    pod: Json
    pod_ip: str
    host_ip: str
    allocatable: Mapping[str, str]
    services: Sequence[Json] = ()
    objects: Mapping[tuple[str, str], Json | None] = field(default_factory=dict)


def referenced_objects(container: Json) -> set[tuple[str, str]]:
    """The ConfigMaps and Secrets, as (CONFIG_MAP | SECRET, name), that the environment reads."""
    found: set[tuple[str, str]] = set()
    for entry in container.get("envFrom") or []:
        kind, reference = _env_from(entry)
        found.add((kind, reference.get("name", "")))
    for entry in container.get("env") or []:
        source = entry.get("valueFrom") or {}
        for key, kind in (("configMapKeyRef", CONFIG_MAP), ("secretKeyRef", SECRET)):
            if key in source:
                found.add((kind, source[key].get("name", "")))
    return found


def resolve(container: Json, sources: Sources) -> dict[str, str]:
    """The variables the pod declares for `container`.

    Raises EnvironmentResolutionError, in the kubelet's words.
    """
    links = bool(sources.pod["spec"].get("enableServiceLinks", True))
    services = service_variables(sources.services, namespace_of(sources.pod), links=links)
    values: dict[str, str] = {}
    for entry in container.get("envFrom") or []:
        values |= dict(_bulk(entry, sources))
    for entry in container.get("env") or []:
        name = entry["name"]
        if entry.get("value"):
            values[name] = expand(entry["value"], values, services)
        elif entry.get("valueFrom"):
            resolved = _from_source(container, entry["valueFrom"], sources)
            if resolved is not None:
                values[name] = resolved
        else:
            values[name] = ""
    values = services | values
    for name, value in values.items():
        if "\0" in value:
            raise EnvironmentResolutionError(f"the value of {name} holds a NUL byte, no process can take it")
    return values


def expand(text: str, *mappings: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by its value in the first mapping that has it; `$$` is a `$`; unknown names stay."""

    def replacement(match: re.Match[str]) -> str:
        escaped, name, other = match.groups()
        if escaped:
            return "$"
        if name is None:
            return f"${other}"
        return next((mapping[name] for mapping in mappings if name in mapping), match[0])

    return _REFERENCE.sub(replacement, text)


def command_line(container: Json, environment: Mapping[str, str]) -> list[str]:
    """Command and args with `$(NAME)` expanded. Empty when the container names no command."""
    command = container.get("command") or []
    if not command:
        return []
    return [expand(word, environment) for word in [*command, *(container.get("args") or [])]]


def service_variables(services: Iterable[Json], namespace: str, *, links: bool) -> dict[str, str]:
    """The variables that tell a container where Services are, in both spellings Kubernetes has."""
    variables: dict[str, str] = {}
    for service in services:
        # The API server's own Service is told to everyone, whatever enableServiceLinks says.
        api_server = namespace_of(service) == "default" and name_of(service) == "kubernetes"
        if not api_server and not (links and namespace_of(service) == namespace):
            continue
        address = service["spec"].get("clusterIP")
        ports = service["spec"].get("ports") or []
        if address in {None, "", "None"} or not ports:
            continue
        variables |= dict(_service_lines(_variable(name_of(service)), address, ports))
    return variables


def _service_lines(prefix: str, address: str, ports: Sequence[Json]) -> Iterator[tuple[str, str]]:
    yield f"{prefix}_SERVICE_HOST", address
    yield f"{prefix}_SERVICE_PORT", str(ports[0]["port"])
    for index, port in enumerate(ports):
        if port.get("name"):
            yield f"{prefix}_SERVICE_PORT_{_variable(port['name'])}", str(port["port"])
        protocol = port.get("protocol", "TCP")
        url = f"{protocol.lower()}://{address}:{port['port']}"
        link = f"{prefix}_PORT_{port['port']}_{protocol}"
        if index == 0:
            yield f"{prefix}_PORT", url
        yield link, url
        yield f"{link}_PROTO", protocol.lower()
        yield f"{link}_PORT", str(port["port"])
        yield f"{link}_ADDR", address


def _variable(name: str) -> str:
    return name.replace("-", "_").upper()


def _env_from(entry: Json) -> tuple[str, Json]:
    if "configMapRef" in entry:
        return CONFIG_MAP, entry["configMapRef"]
    return SECRET, entry["secretRef"]


def _bulk(entry: Json, sources: Sources) -> Iterator[tuple[str, str]]:
    kind, reference = _env_from(entry)
    item = sources.objects.get((kind, reference.get("name", "")))
    if item is None:
        if reference.get("optional"):
            return
        raise EnvironmentResolutionError(f'{kind} "{reference.get("name", "")}" not found')
    for key in sorted(item.get("data") or {}):
        yield entry.get("prefix", "") + key, _text(kind, item, key)


def _text(kind: str, item: Json, key: str) -> str:
    value = item["data"][key]
    # Environments hold bytes: what is not UTF-8 passes through as surrogates, as in os.environ.
    return value if kind == CONFIG_MAP else base64.b64decode(value).decode("utf-8", "surrogateescape")


def _from_source(container: Json, source: Json, sources: Sources) -> str | None:
    if "fieldRef" in source:
        return _field(source["fieldRef"]["fieldPath"], sources)
    if "resourceFieldRef" in source:
        return _resource(container, source["resourceFieldRef"], sources)
    if "configMapKeyRef" in source:
        return _key(CONFIG_MAP, "ConfigMap", source["configMapKeyRef"], sources)
    if "secretKeyRef" in source:
        return _key(SECRET, "Secret", source["secretKeyRef"], sources)
    raise EnvironmentResolutionError(f"valueFrom.{next(iter(source))} is not supported by the local cluster")


def _key(kind: str, title: str, reference: Json, sources: Sources) -> str | None:
    name, key = reference.get("name", ""), reference["key"]
    item = sources.objects.get((kind, name))
    if item is not None and key in (item.get("data") or {}):
        return _text(kind, item, key)
    if reference.get("optional"):
        return None
    if item is None:
        raise EnvironmentResolutionError(f'{kind} "{name}" not found')
    namespace = namespace_of(sources.pod)
    raise EnvironmentResolutionError(f"couldn't find key {key} in {title} {namespace}/{name}")


def _field(path: str, sources: Sources) -> str:
    pod = sources.pod
    keyed = _KEYED_FIELD.fullmatch(path)
    if keyed:
        return str((pod["metadata"].get(keyed[1]) or {}).get(keyed[2], ""))
    plain = {
        "metadata.name": name_of(pod),
        "metadata.namespace": namespace_of(pod),
        "metadata.uid": uid_of(pod),
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", ""),
        "status.hostIP": sources.host_ip,
        "status.hostIPs": sources.host_ip,
        "status.podIP": sources.pod_ip,
        "status.podIPs": sources.pod_ip,
    }
    if path not in plain:
        raise EnvironmentResolutionError(f"fieldRef {path} is not supported by the local cluster")
    return str(plain[path])


def _resource(container: Json, reference: Json, sources: Sources) -> str:
    name = reference.get("containerName") or container["name"]
    spec = sources.pod["spec"]
    every = [*spec["containers"], *(spec.get("initContainers") or [])]
    target = next((other for other in every if other["name"] == name), container)
    kind, _, resource = reference["resource"].partition(".")
    quantity = (target.get("resources", {}).get(kind) or {}).get(resource)
    if quantity is None:
        # A container without a limit may use what the node has; without a request it asks for nothing.
        quantity = sources.allocatable.get(resource, "0") if kind == "limits" else "0"
    return divided(str(quantity), str(reference.get("divisor") or "0"))
