"""The operator's own parts on a thread of the test, without kopf: made in milliseconds, and killed as fast.

Everything is as in the process but the watches. What they would say is learned from the resync, which looks
at everything at the start and then every `resync_seconds`.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

import kopf

from shadowfault_operator.client import ApiClient
from shadowfault_operator.halt import LIFTED
from shadowfault_operator.main import Assembly, assemble
from shadowfault_operator.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable


def right_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class EmbeddedOperator:
    """Serves `namespaces` through the API at `url`. A context manager that kills it at the end.

    It sees to schedules only where asked to, and to experiments unless asked not to.
    A kill is one at a request boundary if nothing passes to the API server from then on (Interposer.cut).
    """

    def __init__(  # noqa: PLR0913 - as many as a test may want otherwise
        self,
        url: str,
        *namespaces: str,
        now: Callable[[], datetime] = right_now,
        workers: int = 1,
        resync_seconds: float = 300.0,
        schedules: bool = False,
        experiments: bool = True,
    ) -> None:
        self._connection = kopf.ConnectionInfo(server=url, token="none")  # noqa: S106 - the interposer has the real one
        self._settings = Settings(
            namespaces=namespaces, workers=workers, resync_seconds=resync_seconds, port=0
        )
        self._now = now
        self._schedules = schedules
        self._experiments = experiments
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="operator", daemon=True)
        self._begun = threading.Event()
        self.parts: Assembly | None = None
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._begun.wait(30), self.error
        return self

    def __exit__(self, *_exception: object) -> None:
        assert self._loop is not None
        assert self._end is not None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the embedded operator does not end"
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            asyncio.run(self._operate())
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            self.error = error
            self._begun.set()

    async def _operate(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self.parts = parts = assemble(self._settings, ApiClient(lambda: self._connection), self._now)
        parts.halt.set(LIFTED)
        work = asyncio.create_task(self._work(parts))
        end = asyncio.create_task(self._end.wait())
        self._begun.set()
        await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
        end.cancel()
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        await parts.accounts.close()
        await parts.client.close()
        await parts.disarmer.close()

    async def _work(self, parts: Assembly) -> None:
        async with asyncio.TaskGroup() as group:
            if self._experiments:
                group.create_task(parts.controller.run())
            if self._schedules:
                group.create_task(parts.schedules.run())
