"""HTTP to the pods of a target, as every question to one of them is put.

A pod is not ours: its answer may be slow, endless or nonsense. It is asked directly, by no proxy, and is
followed nowhere.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shadowfault_operator.ports import Pod

_CHUNK: Final = 64 * 1024


class TooLargeError(Exception):
    """An answer longer than its reader takes."""


class PodHttp:
    """A session that is made when a pod is first asked; `total` and `connect` are seconds.

    `options` go to the session.
    """

    def __init__(self, *, total: float, connect: float, **options: Any) -> None:  # noqa: ANN401 - aiohttp's own
        self._options = {"timeout": aiohttp.ClientTimeout(total=total, connect=connect), **options}
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def request(
        self,
        method: str,
        pod: Pod,
        port: int,
        path: str,
        **options: Any,  # noqa: ANN401 - aiohttp's own
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask a pod; `options` go to the request.

        Raises:
            aiohttp.ClientError, TimeoutError, OSError: it does not answer, or not in time.
        """
        host = f"[{pod.address}]" if ":" in pod.address else pod.address
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=False, **self._options)
        async with self._session.request(
            method, f"http://{host}:{port}{path}", allow_redirects=False, **options
        ) as response:
            yield response

    async def close(self) -> None:
        """End the session; another is made should a pod be asked again."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def bounded(stream: aiohttp.StreamReader, largest: int) -> bytes:
    """All of an answer.

    Raises:
        TooLargeError: it is longer than `largest` bytes; the rest is not read.
    """
    body = bytearray()
    while chunk := await stream.read(_CHUNK):
        body += chunk
        if len(body) > largest:
            raise TooLargeError
    return bytes(body)
