"""Kubernetes objects as plain JSON, for tests: with just enough in them to be taken by a real API server."""

from __future__ import annotations

from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]


def deployment(
    name: str = "api",
    *,
    containers: list[Json] | None = None,
    replicas: int = 1,
    labels: dict[str, str] | None = None,
) -> Json:
    """A Deployment; one container `api` with no environment unless others are given."""
    selector = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": selector},
                "spec": {"containers": containers or [container()]},
            },
        },
    }


def container(name: str = "api", *, env: list[Json] | None = None, **fields: Any) -> Json:  # noqa: ANN401 - JSON
    """A container; its image is never pulled where no node takes the pod."""
    return {"name": name, "image": "example.invalid/service:1", **({"env": env} if env else {}), **fields}


def experiment(name: str = "shadow", *, target: str = "api", **spec: Any) -> Json:  # noqa: ANN401 - JSON
    """A ChaosExperiment of a tenth of the shadow writes for ten minutes, unless `spec` says otherwise."""
    return {
        "apiVersion": "chaos.shadowfault.dev/v1alpha1",
        "kind": "ChaosExperiment",
        "metadata": {"name": name},
        "spec": {
            "targetRef": {"kind": "Deployment", "name": target},
            "rate": 0.1,
            "seed": "test",
            "scope": "shadow_write_only",
            "duration": "10m",
            **spec,
        },
    }


def schedule(
    name: str = "often",
    *,
    cron: str = "* * * * *",
    spec: Json | None = None,
    **fields: Any,  # noqa: ANN401 - JSON
) -> Json:
    """A ChaosSchedule of the experiment that `experiment` makes; `spec` is for the experiment."""
    return {
        "apiVersion": "chaos.shadowfault.dev/v1alpha1",
        "kind": "ChaosSchedule",
        "metadata": {"name": name},
        "spec": {
            "schedule": cron,
            "experimentTemplate": {"spec": {**experiment()["spec"], **(spec or {})}},
            **fields,
        },
    }


def owned(manager: str, names: list[str], *, container: str = "api", operation: str = "Update") -> Json:
    """One entry of metadata.managedFields: `manager` owns these environment entries."""
    entries: Json = {f'k:{{"name":"{name}"}}': {".": {}, "f:name": {}, "f:value": {}} for name in names}
    fields: Json = {f'k:{{"name":"{container}"}}': {"f:env": entries}}
    return {
        "manager": manager,
        "operation": operation,
        "apiVersion": "apps/v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:template": {"f:spec": {"f:containers": fields}}}},
    }
