"""Writes one pod's status to the API server: one request at a time, always the latest state."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from shadowfault_cluster.agent.api import ApiError, ApiUnavailableError
from shadowfault_cluster.agent.objects import Json, uid_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_cluster.agent.context import PodContext

_log = logging.getLogger(__name__)
_RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_NOT_FOUND, _CONFLICT = 404, 409


class StatusReporter:
    """Coalesces changes: what changes while a request is under way goes into the next one."""

    def __init__(self, context: PodContext, compute: Callable[[Json], Json]) -> None:
        """`compute(previous)` gives the status now; `previous` is the last one the server took."""
        self._context = context
        self._compute = compute
        self._taken: Json = context.pod.get("status", {})
        self._dirty = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.gone = asyncio.Event()

    def changed(self) -> None:
        """Something that status shows has changed."""
        self._dirty.set()
        self._idle.clear()

    async def flush(self) -> None:
        """Return when the server has what is known now, or no longer has the pod."""
        idle, gone = (asyncio.create_task(event.wait()) for event in (self._idle, self.gone))
        try:
            await asyncio.wait({idle, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()
            gone.cancel()

    async def run(self) -> None:
        """Send changes until the pod is gone."""
        failures = 0
        while not self.gone.is_set():
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._send()
            except (ApiError, ApiUnavailableError) as error:
                _log.warning("status of %s: %s", self._context.path, error)
                self._dirty.set()
                await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
                failures += 1
                continue
            failures = 0
            if not self._dirty.is_set():
                self._idle.set()

    async def _send(self) -> None:
        status = self._compute(self._taken)
        if status == self._taken:
            return
        # With the UID a pod that was recreated under the same name is refused (409), not overwritten.
        body = {"metadata": {"uid": uid_of(self._context.pod)}, "status": status}
        try:
            await self._context.node.client.patch(f"{self._context.path}/status", body)
        except ApiError as error:
            if error.code not in {_NOT_FOUND, _CONFLICT}:
                raise
            _log.info("status of %s: %s", self._context.path, error)
            if error.code == _NOT_FOUND or "UID" in error.message or "uid" in error.message:
                self.gone.set()
                return
            raise
        self._taken = status
