"""The ports over the real Kubernetes API."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Any, Final

import structlog

from shadowfault.config import EXPERIMENT_UID
from shadowfault_operator.client import APPLY, MERGE, STRATEGIC, ApiClient
from shadowfault_operator.durations import format_instant
from shadowfault_operator.errors import AlreadyExistsError, ApiError, NotFoundError, UnavailableError
from shadowfault_operator.model import (
    FINALIZER,
    GROUP,
    KIND,
    PLURAL,
    SCHEDULE_KIND,
    SCHEDULE_LABEL,
    SCHEDULES,
    VERSION,
    Experiment,
    Json,
    Key,
    Status,
    parse_experiment,
    status_document,
)
from shadowfault_operator.nets import Namespace, Objection
from shadowfault_operator.ports import Pod, Serving
from shadowfault_operator.reasons import Reason
from shadowfault_operator.target import MANAGER, RESTORE_MANAGER, Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from datetime import datetime

    from shadowfault_operator.environment import ConfigMaps
    from shadowfault_operator.injection import Overlay
    from shadowfault_operator.reasons import EventType

_log = structlog.get_logger(__name__)
_OPERATOR: Final = "shadowfault-operator"
_PAGE: Final = 500


class KubeExperiments:
    """ChaosExperiments of the namespaces served; of all when `namespaces` is empty."""

    def __init__(self, client: ApiClient, namespaces: Iterable[str]) -> None:
        self._client = client
        self._namespaces = tuple(namespaces)

    async def get(self, key: Key) -> Experiment | None:
        try:
            return parse_experiment(await self._client.request("GET", _experiment_path(key)))
        except NotFoundError:
            return None

    async def list_all(self) -> list[Experiment]:
        items = _listed(self._client, f"/apis/{GROUP}/{VERSION}", PLURAL, self._namespaces)
        return [parse_experiment(item) async for item in items]

    async def set_status(self, experiment: Experiment, status: Status) -> Experiment:
        body = {
            "metadata": {"resourceVersion": experiment.resource_version},
            "status": status_document(status),
        }
        path = _experiment_path(experiment.key) + "/status"
        return parse_experiment(await self._patch(path, body))

    async def add_finalizer(self, experiment: Experiment) -> Experiment:
        return await self._set_finalizers(experiment, [*experiment.finalizers, FINALIZER])

    async def remove_finalizer(self, experiment: Experiment) -> Experiment:
        return await self._set_finalizers(
            experiment, [name for name in experiment.finalizers if name != FINALIZER]
        )

    async def delete(self, experiment: Experiment) -> None:
        preconditions = {"uid": experiment.uid, "resourceVersion": experiment.resource_version}
        await self._client.request(
            "DELETE", _experiment_path(experiment.key), body={"preconditions": preconditions}
        )

    async def _set_finalizers(self, experiment: Experiment, finalizers: list[str]) -> Experiment:
        body = {"metadata": {"resourceVersion": experiment.resource_version, "finalizers": finalizers}}
        return parse_experiment(await self._patch(_experiment_path(experiment.key), body))

    async def _patch(self, path: str, body: Json) -> Json:
        return await self._client.request(
            "PATCH", path, params={"fieldManager": MANAGER}, body=body, content_type=MERGE
        )


class KubeTargets:
    """Deployments; lists are of the namespaces served, of all when `namespaces` is empty."""

    def __init__(self, client: ApiClient, namespaces: Iterable[str] = ()) -> None:
        self._client = client
        self._namespaces = tuple(namespaces)

    async def get(self, key: Key) -> Target | None:
        try:
            return Target(await self._client.request("GET", _deployment_path(key)))
        except NotFoundError:
            return None

    async def list_all(self) -> AsyncIterator[tuple[str, Target]]:
        async for item in _listed(self._client, "/apis/apps/v1", "deployments", self._namespaces):
            yield item["metadata"]["namespace"], Target(item)

    async def inject(self, key: Key, overlay: Overlay) -> Target:
        params = {"fieldManager": MANAGER}
        if overlay.apply:
            # What is forced away is on record in the status by now.
            params["force"] = "true"
        return Target(
            await self._client.request(
                "PATCH",
                _deployment_path(key),
                params=params,
                body=overlay.body,
                content_type=APPLY if overlay.apply else STRATEGIC,
            )
        )

    async def restore(self, key: Key, body: Json) -> Target:
        return Target(
            await self._client.request(
                "PATCH",
                _deployment_path(key),
                params={"fieldManager": RESTORE_MANAGER},
                body=body,
                content_type=STRATEGIC,
            )
        )


class KubeSurroundings:
    """Namespaces, ConfigMaps and pods."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def namespace(self, name: str) -> Namespace | None:
        try:
            raw = await self._client.request("GET", f"/api/v1/namespaces/{name}")
        except NotFoundError:
            return None
        return Namespace(name, dict(raw["metadata"].get("labels") or {}))

    async def config_maps(self, namespace: str, names: Iterable[str]) -> ConfigMaps:
        wanted = sorted(set(names))
        found = await asyncio.gather(*(self._config_map(namespace, name) for name in wanted))
        return dict(zip(wanted, found, strict=True))

    async def _config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        try:
            raw = await self._client.request("GET", f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        except NotFoundError:
            return None
        return dict(raw.get("data") or {})

    async def pods(self, namespace: str, target: Target) -> list[Pod]:
        params = {"labelSelector": label_selector(target.selector), "fieldSelector": "status.phase=Running"}
        answer = await self._client.request("GET", f"/api/v1/namespaces/{namespace}/pods", params=params)
        return [_pod(item) for item in answer.get("items") or () if item.get("status", {}).get("podIP")]

    async def serving(self, namespace: str, target: Target) -> Serving:
        params = {"labelSelector": label_selector(target.selector)}
        answer = await self._client.request("GET", f"/api/v1/namespaces/{namespace}/pods", params=params)
        items = answer.get("items") or ()
        # The newest first: it is not about to go with the rollout that put the target back.
        ready = sorted((item for item in items if _is_ready(item)), key=_created, reverse=True)
        return Serving(
            tuple(Pod(item["metadata"]["name"], item["status"]["podIP"]) for item in ready), bool(items)
        )


def _is_ready(pod: Json) -> bool:
    status = pod.get("status") or {}
    conditions = status.get("conditions") or ()
    ready = any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)
    return ready and bool(status.get("podIP")) and "deletionTimestamp" not in pod["metadata"]


def _created(pod: Json) -> tuple[str, str]:
    return pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]


class KubeAnnouncer:
    """Events on the experiment, named after what they say: the same one twice is one Event.

    A delete is told on the target too, for what it is about is gone right after.
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def announce(self, experiment: Experiment, what: Objection, now: datetime) -> None:
        about = {
            "kind": KIND,
            "namespace": experiment.key.namespace,
            "name": experiment.key.name,
            "uid": experiment.uid,
            "resourceVersion": experiment.resource_version,
        }
        reason, injection = what.reason, experiment.status.injection
        said = [_post_event(self._client, about, reason.event_type, reason.title, what.message, now)]
        if reason is Reason.DELETED and injection is not None:
            target = {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "namespace": experiment.key.namespace,
                "name": injection.target_name,
                "uid": injection.target_uid,
            }
            message = f"{KIND} {experiment.key.name} ({experiment.uid}) was deleted: what it wrote here goes"
            said.append(_post_event(self._client, target, reason.event_type, reason.title, message, now))
        await asyncio.gather(*said)


class KubeSchedules:
    """ChaosSchedules of the namespaces served, of all when `namespaces` is empty, and what they create."""

    def __init__(self, client: ApiClient, namespaces: Iterable[str]) -> None:
        self._client = client
        self._namespaces = tuple(namespaces)

    async def keys(self) -> list[Key]:
        """Every schedule; none where the kind is not installed."""
        items = _listed(self._client, f"/apis/{GROUP}/{VERSION}", SCHEDULES, self._namespaces)
        try:
            return [Key(item["metadata"]["namespace"], item["metadata"]["name"]) async for item in items]
        except NotFoundError:
            return []

    async def get(self, key: Key) -> Json | None:
        try:
            return await self._client.request("GET", _schedule_path(key))
        except NotFoundError:
            return None

    async def experiments_of(self, key: Key, uid: str) -> list[Experiment]:
        """Those that it owns: one with its label alone is somebody else's."""
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{key.namespace}/{PLURAL}"
        params = {"labelSelector": f"{SCHEDULE_LABEL}={key.name}"}
        answer = await self._client.request("GET", path, params=params)
        return [
            parse_experiment(item)
            for item in answer.get("items") or ()
            if any(
                owner.get("controller") and owner.get("uid") == uid
                for owner in item["metadata"].get("ownerReferences") or ()
            )
        ]

    async def create_experiment(self, namespace: str, body: Json) -> Experiment:
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"
        params = {"fieldManager": MANAGER}
        return parse_experiment(await self._client.request("POST", path, params=params, body=body))

    async def delete_experiment(self, experiment: Experiment) -> None:
        body = {"preconditions": {"uid": experiment.uid, "resourceVersion": experiment.resource_version}}
        await self._client.request("DELETE", _experiment_path(experiment.key), body=body)

    async def set_status(self, raw: Json, status: Json) -> None:
        metadata = raw["metadata"]
        path = _schedule_path(Key(metadata["namespace"], metadata["name"])) + "/status"
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status}
        params = {"fieldManager": MANAGER}
        await self._client.request("PATCH", path, params=params, body=body, content_type=MERGE)

    async def announce(
        self, raw: Json, event_type: EventType, reason: str, message: str, now: datetime
    ) -> None:
        """An Event on the schedule. Never raises."""
        fields = ("namespace", "name", "uid", "resourceVersion")
        about = {"kind": SCHEDULE_KIND} | {field: raw["metadata"][field] for field in fields}
        await _post_event(self._client, about, event_type, reason, message, now)


async def _post_event(  # noqa: PLR0913, PLR0917 - what an Event says
    client: ApiClient, about: Json, event_type: EventType, reason: str, message: str, now: datetime
) -> None:
    """An Event, named after what it says; one that is lost stops nothing."""
    namespace, name = about["namespace"], about["name"]
    digest = zlib.crc32(f"{about['uid']}{reason}{message}".encode())
    body = {
        "metadata": {"namespace": namespace, "name": f"{name}.{digest:08x}"},
        "involvedObject": {"apiVersion": f"{GROUP}/{VERSION}", **about},
        "type": event_type.value,
        "reason": reason,
        "message": message[:1024],
        "source": {"component": _OPERATOR},
        "reportingComponent": _OPERATOR,
        "firstTimestamp": format_instant(now),
        "lastTimestamp": format_instant(now),
        "count": 1,
    }
    try:
        await client.request("POST", f"/api/v1/namespaces/{namespace}/events", body=body)
    except AlreadyExistsError:
        return
    except (ApiError, UnavailableError) as error:
        _log.warning("event not stored", about=f"{namespace}/{name}", reason=reason, error=str(error))


async def _listed(
    client: ApiClient, group: str, plural: str, namespaces: Iterable[str]
) -> AsyncIterator[Json]:
    """Every object of a kind, page by page."""
    for root in [f"{group}/namespaces/{name}/{plural}" for name in namespaces] or [f"{group}/{plural}"]:
        params = {"limit": str(_PAGE)}
        while True:
            page = await client.request("GET", root, params=params)
            for item in page.get("items") or ():
                yield item
            token = page["metadata"].get("continue")
            if not token:
                break
            params["continue"] = token


def _pod(raw: Json) -> Pod:
    entries = (entry for one in raw["spec"].get("containers") or () for entry in one.get("env") or ())
    return Pod(
        name=raw["metadata"]["name"],
        address=raw["status"]["podIP"],
        uid=raw["metadata"]["uid"],
        ready="deletionTimestamp" not in raw["metadata"]
        and any(
            condition.get("type") == "Ready" and condition.get("status") == "True"
            for condition in raw["status"].get("conditions") or ()
        ),
        experiments=frozenset(
            str(entry.get("value")) for entry in entries if entry.get("name") == EXPERIMENT_UID
        ),
    )


def _experiment_path(key: Key) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{key.namespace}/{PLURAL}/{key.name}"


def _schedule_path(key: Key) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{key.namespace}/{SCHEDULES}/{key.name}"


def _deployment_path(key: Key) -> str:
    return f"/apis/apps/v1/namespaces/{key.namespace}/deployments/{key.name}"


def label_selector(selector: dict[str, Any]) -> str:
    """metav1.LabelSelector as a query, https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/."""
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        key, operator, values = expression["key"], expression["operator"], expression.get("values") or ()
        match operator:
            case "Exists":
                terms.append(key)
            case "DoesNotExist":
                terms.append(f"!{key}")
            case _:
                terms.append(f"{key} {operator.lower()} ({','.join(values)})")
    return ",".join(terms)
