"""Binds pending pods to the only node: the place of a scheduler."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shadowfault_cluster.agent.api import ApiClient, ApiError, ApiUnavailableError
from shadowfault_cluster.agent.objects import (
    Json,
    is_finished,
    is_terminating,
    name_of,
    namespace_of,
    timestamp,
    uid_of,
    utcnow,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shadowfault_cluster.agent.events import EventRecorder

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5


@dataclass(frozen=True)
class Obstacle:
    """Why a pod cannot be bound: reason and message of its condition PodScheduled."""

    reason: str
    message: str


def wants_binding(pod: Json) -> bool:
    """Whether the pod waits for the scheduler we stand in for."""
    spec = pod["spec"]
    ours = spec.get("schedulerName", "default-scheduler") == "default-scheduler"
    return ours and not spec.get("nodeName") and not is_terminating(pod) and not is_finished(pod)


def obstacle(pod: Json, labels: Mapping[str, str], *, room: bool) -> Obstacle | None:
    """What keeps the pod from a node with these labels; None when nothing does."""
    gates = [gate["name"] for gate in pod["spec"].get("schedulingGates") or []]
    if gates:
        return Obstacle("SchedulingGated", f"waiting for the scheduling gates {', '.join(gates)}")
    selector = pod["spec"].get("nodeSelector") or {}
    missing = [f"{key}={value}" for key, value in selector.items() if labels.get(key) != value]
    if missing:
        return Obstacle(
            "Unschedulable", f"the only node lacks the labels {', '.join(missing)} of nodeSelector"
        )
    if not room:
        return Obstacle("Unschedulable", "the only node has no free pod address")
    return None


class Binder:
    """Considers each pod once for each change of it, of the node's labels or of the free addresses."""

    def __init__(
        self,
        client: ApiClient,
        events: EventRecorder,
        node_name: str,
        labels: Mapping[str, str],
        room: Callable[[], bool],
    ) -> None:
        """`room()` tells whether one more pod has a place."""
        self._client = client
        self._events = events
        self._node_name = node_name
        self._labels = labels
        self._room = room
        self._waiting: dict[str, Json] = {}
        self._told: dict[str, Obstacle] = {}
        self._wake = asyncio.Event()

    def consider(self, pod: Json) -> None:
        """Bind this pod as soon as possible."""
        self._waiting[uid_of(pod)] = pod
        self._wake.set()

    def forget(self, uid: str) -> None:
        """The pod is bound or gone."""
        self._waiting.pop(uid, None)
        self._told.pop(uid, None)

    def retry(self) -> None:
        """An address became free."""
        if self._waiting:
            self._wake.set()

    async def run(self) -> None:
        """Bind forever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            for uid, pod in list(self._waiting.items()):
                try:
                    if await self._bind(pod):
                        self._waiting.pop(uid, None)
                except (ApiError, ApiUnavailableError) as error:
                    _log.info("binding %s/%s: %s", namespace_of(pod), name_of(pod), error)
                    asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._wake.set)

    async def _bind(self, pod: Json) -> bool:
        """Whether the pod needs no more attention."""
        path = f"/api/v1/namespaces/{namespace_of(pod)}/pods/{name_of(pod)}"
        found = obstacle(pod, self._labels, room=self._room())
        if found is not None:
            await self._explain(pod, path, found)
            return False
        target = {"apiVersion": "v1", "kind": "Node", "name": self._node_name}
        metadata = {"name": name_of(pod), "uid": uid_of(pod)}
        try:
            await self._client.post(f"{path}/binding", {"metadata": metadata, "target": target})
        except ApiError as error:
            if error.code not in {404, 409}:  # gone, or bound already
                raise
            return True
        message = f"Successfully assigned {namespace_of(pod)}/{name_of(pod)} to {self._node_name}"
        self._events.normal(pod, "Scheduled", message)
        return True

    async def _explain(self, pod: Json, path: str, found: Obstacle) -> None:
        if self._told.get(uid_of(pod)) == found:
            return
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": found.reason,
            "message": found.message,
            "lastTransitionTime": timestamp(utcnow()),
        }
        body = {"metadata": {"uid": uid_of(pod)}, "status": {"conditions": [condition]}}
        await self._client.patch(f"{path}/status", body)
        self._told[uid_of(pod)] = found
        if found.reason == "Unschedulable":
            self._events.warning(pod, "FailedScheduling", found.message)
