"""Ask a pod of a target for the account of an experiment that is over, beside everything else.

No restore waits for it: a worker starts it and goes on, and it puts the experiment in the queue when it has
an answer. Nothing is remembered that the status does not say: after a restart it is asked for again.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import aiohttp
import structlog

from shadowfault.account import PATH, Account, AccountError, parse_account
from shadowfault_operator.errors import ApiError, UnavailableError
from shadowfault_operator.podhttp import PodHttp, TooLargeError, bounded
from shadowfault_operator.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_operator.clock import Clock
    from shadowfault_operator.model import Experiment, Key
    from shadowfault_operator.ports import Pod, Surroundings
    from shadowfault_operator.target import Target

_log = structlog.get_logger(__name__)
_TOTAL_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 1.0
_LARGEST_ANSWER: Final = 64 * 1024
# At a time: a thousand experiments may end together, and each answer costs a pass of a verifier.
_AT_ONCE: Final = 8
# Pods asked in one round; they answer from one database, so one that answers is enough.
_MOST_PODS: Final = 3
# Looks that find no pod at all: between the old and the new ones of a rollout there may be none.
_EMPTY_LOOKS: Final = 2
# Seconds between two tries, the first and the longest.
_PAUSES: Final = (1.0, 15.0)
# From the end of the experiment; an operator that comes later asks for `_LEAST` all the same.
PATIENCE: Final = timedelta(minutes=10)
_LEAST: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Answer:
    """What came of asking about this very experiment."""

    experiment_uid: str
    what: Account | Finding


class HttpAccounts:
    """POST /chaos/account to ready pods of the target until there is an answer; `done` is told then."""

    def __init__(
        self,
        surroundings: Surroundings,
        clock: Clock,
        done: Callable[[Key], None],
        *,
        pauses: tuple[float, float] = _PAUSES,
    ) -> None:
        self._surroundings = surroundings
        self._clock = clock
        self._done = done
        self._pauses = pauses
        self._http = PodHttp(total=_TOTAL_SECONDS, connect=_CONNECT_SECONDS)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._asking: dict[Key, tuple[str, asyncio.Task[None]]] = {}
        self._answers: dict[Key, Answer] = {}
        self._stopped = False

    def answer(self, key: Key, experiment_uid: str) -> Account | Finding | None:
        """What is known by now; None where nothing is."""
        answer = self._answers.get(key)
        return answer.what if answer is not None and answer.experiment_uid == experiment_uid else None

    def ask(self, experiment: Experiment, target: Target) -> None:
        """Start asking, unless that is under way or all was stopped, and return."""
        if self._stopped:
            return
        key, uid = experiment.key, experiment.uid
        under_way = self._asking.get(key)
        if under_way is not None and under_way[0] == uid:
            return
        self.forget(key)
        self._asking[key] = (uid, asyncio.create_task(self._ask(experiment, target)))

    def forget(self, key: Key) -> None:
        """Stop asking, and drop the answer."""
        self._answers.pop(key, None)
        under_way = self._asking.pop(key, None)
        if under_way is not None:
            under_way[1].cancel()

    async def stop(self) -> None:
        """End all that is under way, and begin no more: the next operator asks anew."""
        self._stopped = True
        tasks = [task for _, task in self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Stop, and close the connections."""
        await self.stop()
        await self._http.close()

    async def _ask(self, experiment: Experiment, target: Target) -> None:
        try:
            what = await self._until_answered(experiment, target)
        except Exception:  # noqa: BLE001 - whatever a pod does, it ends in a verdict
            _log.exception("asking for the account failed", experiment=str(experiment.key))
            what = Finding.UNREACHABLE
        self._answers[experiment.key] = Answer(experiment.uid, what)
        del self._asking[experiment.key]
        self._done(experiment.key)

    async def _until_answered(self, experiment: Experiment, target: Target) -> Account | Finding:
        began, steady = self._clock.wall(), self._clock.steady()
        ended = experiment.status.finished_at or began
        patience = max(_LEAST, PATIENCE - (began - ended)).total_seconds()
        (pause, longest), empty, heard = self._pauses, 0, steady
        while True:
            async with self._turns:
                what = await self._round(experiment, target)
            if isinstance(what, Account) or what is Finding.NOT_KEPT:
                return what
            empty = empty + 1 if what is None else 0
            if empty >= _EMPTY_LOOKS:
                return Finding.NO_POD
            now = self._clock.steady()
            # A target that is at work on it gets all the time, one that says nothing of use a minute.
            heard = now if what is Finding.NOT_IN_TIME else heard
            if now + pause > min(steady + patience, heard + _LEAST.total_seconds()):
                return what or Finding.NO_POD
            await asyncio.sleep(pause)
            pause = min(longest, pause * 2)

    async def _round(self, experiment: Experiment, target: Target) -> Account | Finding | None:
        """One try; None where there is no pod of any kind."""
        injection = experiment.status.injection
        container = target.container(injection.container) if injection is not None else None
        if container is None:
            return Finding.NOT_KEPT
        try:
            seen = await self._surroundings.serving(experiment.key.namespace, target)
        except (ApiError, UnavailableError) as error:
            _log.warning("pods to ask not listed", experiment=str(experiment.key), error=str(error))
            # An API server that is away says nothing about the target.
            return Finding.NOT_IN_TIME if isinstance(error, UnavailableError) else Finding.UNREACHABLE
        if not seen.any:
            return None
        worst = Finding.NO_POD
        for pod in seen.ready[:_MOST_PODS]:
            what = await self._post(pod, container.http_port, experiment.uid)
            if what is not Finding.UNREACHABLE:
                return what
            worst = what
        return worst

    async def _post(self, pod: Pod, port: int, experiment_uid: str) -> Account | Finding:
        try:
            async with self._http.request(
                "POST", pod, port, PATH, json={"experimentUid": experiment_uid}
            ) as response:
                return _read(response.status, await _body(response), experiment_uid)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _log.info("pod not asked for the account", pod=pod.name, error=type(error).__name__)
            return Finding.UNREACHABLE


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The body, and nothing of one that is too large to be an account."""
    try:
        return await bounded(response.content, _LARGEST_ANSWER)
    except TooLargeError:
        return b""


def _read(status: int, body: bytes, experiment_uid: str) -> Account | Finding:
    if status not in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
        return Finding.UNREACHABLE if status >= HTTPStatus.INTERNAL_SERVER_ERROR else Finding.NOT_KEPT
    try:
        account = parse_account(json.loads(body), experiment_uid)
    except (AccountError, ValueError, RecursionError):
        return Finding.UNREADABLE
    return account or Finding.NOT_IN_TIME
