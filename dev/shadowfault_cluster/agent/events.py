"""Kubernetes Events about pods, Services and the node."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from shadowfault_cluster.agent.api import ApiClient, ApiError, ApiUnavailableError
from shadowfault_cluster.agent.objects import Json, name_of, namespace_of, reference, timestamp, utcnow

if TYPE_CHECKING:
    import datetime as dt

_log = logging.getLogger(__name__)
_COMPONENT = "shadowfault-node-agent"
_REMEMBERED = 1024
_QUEUE = 4096


@dataclass
class _Posted:
    path: str
    count: int


class EventRecorder:
    """Posts Events in the background; a repeated one raises the count of the first, as client-go does.

    Events are a courtesy: what cannot be posted is logged and dropped, and never delays a pod.
    """

    def __init__(self, client: ApiClient, node_name: str) -> None:
        """Nothing is sent until run()."""
        self._client = client
        self._node_name = node_name
        self._queue: asyncio.Queue[tuple[Json, dt.datetime]] = asyncio.Queue(_QUEUE)
        self._posted: OrderedDict[tuple[str, ...], _Posted] = OrderedDict()

    def normal(self, item: Json, reason: str, message: str, *, field_path: str | None = None) -> None:
        """Record that something expected happened."""
        self._record(item, "Normal", reason, message, field_path)

    def warning(self, item: Json, reason: str, message: str, *, field_path: str | None = None) -> None:
        """Record that something went wrong."""
        self._record(item, "Warning", reason, message, field_path)

    def _record(
        self,
        item: Json,
        kind: Literal["Normal", "Warning"],
        reason: str,
        message: str,
        field_path: str | None,
    ) -> None:
        _log.info("%s/%s: %s: %s", namespace_of(item), name_of(item), reason, message)
        event = {
            "involvedObject": reference(item, field_path=field_path),
            "type": kind,
            "reason": reason,
            "message": message[:1024],  # the API server's limit
        }
        try:
            self._queue.put_nowait((event, utcnow()))
        except asyncio.QueueFull:
            _log.warning("too many Events at once, dropped one")

    async def run(self) -> None:
        """Post what is recorded, forever."""
        while True:
            event, moment = await self._queue.get()
            try:
                await self._post(event, moment)
            except (ApiError, ApiUnavailableError) as error:
                # A namespace that is being deleted takes no new Events: expected.
                _log.debug("Event dropped: %s", error)

    async def _post(self, event: Json, moment: dt.datetime) -> None:
        involved = event["involvedObject"]
        key = (involved["uid"], involved.get("fieldPath", ""), event["reason"], event["message"])
        known = self._posted.get(key)
        if known is not None:
            self._posted.move_to_end(key)
            body = {"count": known.count + 1, "lastTimestamp": timestamp(moment)}
            try:
                await self._client.patch(known.path, body)
            except ApiError as error:
                if error.code != 404:  # else it has expired: post it anew
                    raise
            else:
                known.count += 1
                return
        namespace = involved["namespace"] or "default"
        name = f"{involved['name'][:200]}.{secrets.token_hex(8)}"
        path = f"/api/v1/namespaces/{namespace}/events"
        await self._client.post(
            path,
            {
                "metadata": {"name": name, "namespace": namespace},
                **event,
                "count": 1,
                "firstTimestamp": timestamp(moment),
                "lastTimestamp": timestamp(moment),
                "source": {"component": _COMPONENT, "host": self._node_name},
                "reportingComponent": _COMPONENT,
                "reportingInstance": self._node_name,
            },
        )
        self._posted[key] = _Posted(f"{path}/{name}", 1)
        while len(self._posted) > _REMEMBERED:
            self._posted.popitem(last=False)
