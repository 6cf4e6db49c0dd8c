"""What this process serves while it is under an experiment, written down beside the requests."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import structlog

from shadowfault_api.deadline import Deadline
from shadowfault_api.entities import new_id

if TYPE_CHECKING:
    from shadowfault import FaultInjector
    from shadowfault_api.accounts.store import AccountStore

_log: Final = structlog.get_logger("shadowfault.accounts")
_EVERY_SECONDS: Final = 2.0
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_ROUTES: Final = "/api/listings"


class Tally:
    """Counts writes a user asked for, and those the service answered with an error of its own.

    It counts while the experiment can inject here, and says once when that is over: told to stop, past the
    deadline, or at the end of the process. Where no experiment is behind the chaos it does nothing.
    """

    def __init__(
        self, store: AccountStore, injector: FaultInjector | None, *, every_seconds: float = _EVERY_SECONDS
    ) -> None:
        self._store = store
        uid = None if injector is None else injector.config.experiment_uid
        self._injector = injector if uid else None
        self._uid = uid or ""
        self._every_seconds = every_seconds
        self._process_id = new_id()
        self._requests = 0
        self._errors = 0
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def note(self, method: str, route: str, status: int) -> None:
        """Count a request that was answered."""
        if self._injector is None or method not in _WRITES or not route.startswith(_ROUTES):
            return
        if self._injector.active:
            self._requests += 1
            self._errors += status >= HTTPStatus.INTERNAL_SERVER_ERROR

    def hurry(self) -> None:
        """Look at once whether it is over."""
        self._look.set()

    async def start(self) -> None:
        """Leave a trace before anything is served, and begin to write down."""
        if self._injector is None:
            return
        await self._write(closed=False)
        self._task = asyncio.create_task(self._run(self._injector))

    async def stop(self, grace_seconds: float) -> None:
        """Write the last word, if it was not written yet."""
        if self._task is None or self._task.done():
            return
        self._task.cancel()
        deadline = Deadline(grace_seconds)
        with suppress(TimeoutError):
            await deadline.run(self._last_word(self._task))
        deadline.close()

    async def _last_word(self, before: asyncio.Task[None]) -> None:
        await asyncio.wait({before})
        await self._write(closed=True)

    async def _run(self, injector: FaultInjector) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_seconds):
                    await self._look.wait()
            self._look.clear()
            closed = not injector.active
            if await self._write(closed=closed) and closed:
                return

    async def _write(self, *, closed: bool) -> bool:
        try:
            await self._store.count(
                self._process_id, self._uid, requests=self._requests, errors=self._errors, closed=closed
            )
        except Exception as error:  # noqa: BLE001 - figures that are missing are told as unknown
            _log.warning("experiment_not_counted", error_class=type(error).__name__)
            return False
        return True
