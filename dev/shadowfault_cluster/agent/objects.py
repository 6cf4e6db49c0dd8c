"""Small readings of Kubernetes objects, which are plain JSON here."""

from __future__ import annotations

import datetime as dt
from typing import Any

# A Kubernetes object, or a part of one, as the API server spells it.
Json = dict[str, Any]


def namespace_of(item: Json) -> str:
    """The namespace of an object; empty for one that has none."""
    return str(item["metadata"].get("namespace", ""))


def name_of(item: Json) -> str:
    """The name of an object."""
    return str(item["metadata"]["name"])


def uid_of(item: Json) -> str:
    """The UID of an object."""
    return str(item["metadata"]["uid"])


def is_terminating(item: Json) -> bool:
    """Whether someone asked for the object's deletion."""
    return "deletionTimestamp" in item["metadata"]


def is_finished(pod: Json) -> bool:
    """Whether a pod has run to its end (phase Succeeded or Failed)."""
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}


def has_condition(item: Json, kind: str) -> bool:
    """Whether the condition of that type is True."""
    conditions = item.get("status", {}).get("conditions") or []
    return any(entry["type"] == kind and entry["status"] == "True" for entry in conditions)


def reference(item: Json, *, field_path: str | None = None) -> Json:
    """An ObjectReference to `item`, as Events carry it."""
    target = {
        "apiVersion": item.get("apiVersion", "v1"),
        "kind": item["kind"],
        "namespace": namespace_of(item),
        "name": name_of(item),
        "uid": uid_of(item),
        "resourceVersion": item["metadata"].get("resourceVersion", ""),
    }
    return target | ({"fieldPath": field_path} if field_path else {})


def utcnow() -> dt.datetime:
    """The time, in UTC."""
    return dt.datetime.now(dt.UTC)


def timestamp(moment: dt.datetime) -> str:
    """metav1.Time: RFC 3339 in whole seconds."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp(moment: dt.datetime) -> str:
    """metav1.MicroTime: RFC 3339 with microseconds."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_timestamp(text: str) -> dt.datetime:
    """The moment that `text`, an RFC 3339 time, names."""
    return dt.datetime.fromisoformat(text)
