"""What the operator sees of a Deployment: containers, environment, and who owns which entry."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shadowfault_operator.model import Json

MANAGER: Final = "shadowfault"
RESTORE_MANAGER: Final = "shadowfault-restore"
RESTARTED_AT: Final = "kubectl.kubernetes.io/restartedAt"
_DEFAULT_PORT: Final = 4000


@dataclass(frozen=True)
class Container:
    """A container of the pod template, as plain JSON inside."""

    raw: Json

    @property
    def name(self) -> str:
        return str(self.raw["name"])

    @property
    def env(self) -> list[Json]:
        return list(self.raw.get("env") or ())

    @property
    def env_from(self) -> list[Json]:
        return list(self.raw.get("envFrom") or ())

    def entry(self, name: str) -> Json | None:
        """The environment entry of that name; the last one counts, as in a running container."""
        return next((entry for entry in reversed(self.env) if entry.get("name") == name), None)

    def value(self, name: str) -> str | None:
        """The literal value of an entry; None when it is absent or taken from elsewhere."""
        entry = self.entry(name)
        return None if entry is None or "valueFrom" in entry else str(entry.get("value", ""))

    @property
    def http_port(self) -> int:
        """The declared port named http, else the first one, else the service's usual 4000."""
        ports = self.raw.get("ports") or []
        named = [port for port in ports if port.get("name") == "http"]
        return int((named or ports or [{"containerPort": _DEFAULT_PORT}])[0]["containerPort"])


@dataclass(frozen=True)
class Target:
    """A Deployment as last read."""

    raw: Json

    @property
    def _metadata(self) -> Json:
        return dict(self.raw["metadata"])

    @property
    def _template(self) -> Json:
        return dict(self.raw["spec"]["template"])

    @property
    def name(self) -> str:
        return str(self._metadata["name"])

    @property
    def uid(self) -> str:
        return str(self._metadata["uid"])

    @property
    def generation(self) -> int:
        return int(self._metadata.get("generation", 0))

    @property
    def resource_version(self) -> str:
        return str(self._metadata["resourceVersion"])

    @property
    def managed_fields(self) -> list[Json]:
        return list(self._metadata.get("managedFields") or ())

    @property
    def replicas(self) -> int:
        return int(self.raw["spec"].get("replicas", 1))

    @property
    def ready_replicas(self) -> int:
        """Pods that are ready, of whatever generation."""
        return int((self.raw.get("status") or {}).get("readyReplicas") or 0)

    @property
    def paused(self) -> bool:
        return bool(self.raw["spec"].get("paused", False))

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the Deployment and of its pods, the latter winning."""
        template = self._template.get("metadata") or {}
        return {**(self._metadata.get("labels") or {}), **(template.get("labels") or {})}

    @property
    def annotations(self) -> dict[str, str]:
        """Annotations of the Deployment itself."""
        return dict(self._metadata.get("annotations") or {})

    @property
    def owner_references(self) -> list[Json]:
        return list(self._metadata.get("ownerReferences") or ())

    @property
    def scalers(self) -> frozenset[str]:
        """Field managers that own spec.replicas."""
        return frozenset(
            str(managed.get("manager", ""))
            for managed in self.managed_fields
            if "f:replicas" in ((managed.get("fieldsV1") or {}).get("f:spec") or {})
        )

    @property
    def selector(self) -> dict[str, Any]:
        return dict(self.raw["spec"].get("selector") or {})

    @property
    def restarted_at(self) -> str:
        """What `kubectl rollout restart` wrote last; empty when nobody ever did."""
        annotations = (self._template.get("metadata") or {}).get("annotations") or {}
        return str(annotations.get(RESTARTED_AT, ""))

    @property
    def containers(self) -> list[Container]:
        return [Container(raw) for raw in self._template["spec"].get("containers") or ()]

    @property
    def init_containers(self) -> list[Container]:
        return [Container(raw) for raw in self._template["spec"].get("initContainers") or ()]

    def container(self, name: str) -> Container | None:
        return next((container for container in self.containers if container.name == name), None)

    @property
    def rollout_failed(self) -> bool:
        """The Deployment controller gave up on the current generation (progressDeadlineSeconds)."""
        status = self.raw.get("status") or {}
        if int(status.get("observedGeneration", 0)) < self.generation:
            return False
        return any(
            condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded"
            for condition in status.get("conditions") or ()
        )

    def owners(self, container: str, name: str) -> frozenset[str]:
        """Field managers that own the value (or valueFrom) of an environment entry."""
        return self._owners.get((container, name), frozenset())

    @cached_property
    def _owners(self) -> dict[tuple[str, str], frozenset[str]]:
        """By container and entry; a decision asks for many of one target."""
        found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for managed in self.managed_fields:
            fields = managed.get("fieldsV1") or {}
            for step in ("f:spec", "f:template", "f:spec", "f:containers"):
                fields = fields.get(step) or {}
            for container, owned in _by_name(fields):
                for name, entry in _by_name(owned.get("f:env") or {}):
                    if "f:value" in entry or "f:valueFrom" in entry:
                        found[container, name].add(str(managed.get("manager", "")))
        return {entry: frozenset(managers) for entry, managers in found.items()}

    @property
    def has_our_managers(self) -> bool:
        return any(managed.get("manager") in {MANAGER, RESTORE_MANAGER} for managed in self.managed_fields)

    def managed_fields_of_others(self) -> list[Json]:
        return [
            managed
            for managed in self.managed_fields
            if managed.get("manager") not in {MANAGER, RESTORE_MANAGER}
        ]


def _by_name(fields: Json) -> Iterator[tuple[str, Json]]:
    """What fieldsV1 lists under keys such as `k:{"name":"api"}`, by that name."""
    for key, owned in fields.items():
        name = json.loads(key.removeprefix("k:")).get("name") if key.startswith("k:") else None
        if name is not None:
            yield str(name), owned
