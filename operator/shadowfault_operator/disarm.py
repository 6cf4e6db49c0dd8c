"""Tell the pods of a target to stop injecting, at once and in parallel.

It can only make a service safer, so it carries no secret but the experiment's UID, and it delays nobody: the
restored Deployment is the guarantee, this is the quick way there.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import aiohttp
import structlog

from shadowfault_operator.errors import ApiError, UnavailableError
from shadowfault_operator.podhttp import PodHttp, TooLargeError, bounded

if TYPE_CHECKING:
    from shadowfault_operator.metrics import Metrics
    from shadowfault_operator.ports import Pod, Surroundings
    from shadowfault_operator.target import Target

_log = structlog.get_logger(__name__)
_TOTAL_SECONDS: Final = 2.0
_CONNECT_SECONDS: Final = 0.5
_LARGEST_ANSWER: Final = 4 * 1024


class HttpDisarmer:
    """POST /chaos/disarm to every running pod of the target."""

    def __init__(self, surroundings: Surroundings, metrics: Metrics) -> None:
        self._surroundings = surroundings
        self._metrics = metrics
        self._http = PodHttp(total=_TOTAL_SECONDS, connect=_CONNECT_SECONDS)
        self._tasks: set[asyncio.Task[None]] = set()

    def disarm(self, namespace: str, target: Target, container: str, experiment_uid: str) -> None:
        """Start doing so and return."""
        task = asyncio.create_task(self._sweep(namespace, target, container, experiment_uid))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for what is under way, which takes seconds at most."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()

    async def _sweep(self, namespace: str, target: Target, container: str, experiment_uid: str) -> None:
        known = target.container(container)
        if known is None:
            return
        try:
            pods = await self._surroundings.pods(namespace, target)
        except (ApiError, UnavailableError) as error:
            self._metrics.disarms.labels("unlisted").inc()
            _log.warning("pods to disarm not listed", target=f"{namespace}/{target.name}", error=str(error))
            return
        await asyncio.gather(*(self._post(pod, known.http_port, experiment_uid) for pod in pods))

    async def _post(self, pod: Pod, port: int, experiment_uid: str) -> None:
        try:
            async with self._http.request(
                "POST", pod, port, "/chaos/disarm", json={"experimentUid": experiment_uid}
            ) as response:
                result = "disarmed" if await _disarmed(response) else "declined"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            result = "unreachable"
            _log.info(
                "pod not disarmed; its rollout or its deadline will", pod=pod.name, error=type(error).__name__
            )
        self._metrics.disarms.labels(result).inc()


async def _disarmed(response: aiohttp.ClientResponse) -> bool:
    """Whether the pod says that it has stopped; what is too long or makes no sense says nothing."""
    if response.status != HTTPStatus.OK:
        return False
    try:
        answer = json.loads(await bounded(response.content, _LARGEST_ANSWER))
    except (TooLargeError, ValueError, RecursionError):
        return False
    return isinstance(answer, dict) and answer.get("disarmed") is True
