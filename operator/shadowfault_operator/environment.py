"""What NODE_ENV is in a container, without starting it: value, valueFrom and envFrom, as the kubelet does it.

https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-container/ and the API
reference of EnvVar, EnvVarSource and EnvFromSource.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shadowfault_operator.model import Json
    from shadowfault_operator.target import Container

NODE_ENV: Final = "NODE_ENV"


@dataclass(frozen=True)
class Resolved:
    """The value; None when the variable is not set at all."""

    value: str | None


@dataclass(frozen=True)
class Unresolvable:
    """Why the value cannot be told."""

    why: str


Resolution: TypeAlias = Resolved | Unresolvable

# ConfigMaps by name; None for one that does not exist.
ConfigMaps: TypeAlias = "Mapping[str, Mapping[str, str] | None]"


def referenced_config_maps(container: Container) -> Iterator[str]:
    """Names of the ConfigMaps that NODE_ENV may come from."""
    entry = container.entry(NODE_ENV)
    if entry is not None:
        reference = (entry.get("valueFrom") or {}).get("configMapKeyRef")
        if reference:
            yield str(reference["name"])
        return
    for source in container.env_from:
        if "configMapRef" in source:
            yield str(source["configMapRef"]["name"])


def node_env(container: Container, config_maps: ConfigMaps) -> Resolution:
    """NODE_ENV of the container. An `env` entry wins over envFrom, a later envFrom over an earlier one."""
    entry = container.entry(NODE_ENV)
    if entry is None:
        return _from_sources(container.env_from, config_maps)
    if "valueFrom" in entry:
        return _from_reference(entry["valueFrom"], config_maps)
    value = str(entry.get("value", ""))
    if "$(" in value:
        return Unresolvable(f"its value {value!r} refers to other variables")
    return Resolved(value)


def _from_reference(source: Json, config_maps: ConfigMaps) -> Resolution:
    reference = source.get("configMapKeyRef")
    if reference is None:
        return Unresolvable(
            f"it comes from {' and '.join(source) or 'nowhere'}, which the operator does not read"
        )
    name, key = reference["name"], reference["key"]
    data = config_maps.get(name)
    if data is not None and key in data:
        return Resolved(data[key])
    if reference.get("optional"):
        return Resolved(None)
    return Unresolvable(
        f"ConfigMap {name} has no key {key}" if data is not None else f"there is no ConfigMap {name}"
    )


def _from_sources(sources: list[Json], config_maps: ConfigMaps) -> Resolution:
    found: Resolution = Resolved(None)
    for source in sources:
        prefix = source.get("prefix") or ""
        if not NODE_ENV.startswith(prefix):
            continue
        if "configMapRef" not in source:
            found = Unresolvable(f"envFrom takes it from {_source_name(source)} if that has it")
            continue
        reference = source["configMapRef"]
        data = config_maps.get(reference["name"])
        key = NODE_ENV.removeprefix(prefix)
        if data is not None and key in data:
            found = Resolved(data[key])
        elif data is None and not reference.get("optional"):
            found = Unresolvable(f"there is no ConfigMap {reference['name']}")
    return found


def _source_name(source: Json) -> str:
    if "secretRef" in source:
        return f"Secret {source['secretRef'].get('name', '')}, which the operator may not read,"
    return "an unknown source"
