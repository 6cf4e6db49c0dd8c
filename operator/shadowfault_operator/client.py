"""Plain JSON requests to the Kubernetes API."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from shadowfault_operator.errors import UnavailableError, from_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import kopf

    from shadowfault_operator.model import Json

MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
# JSON is YAML; the API server has no JSON name for this one that older versions take.
APPLY: Final = "application/apply-patch+yaml"

_LONGEST_RETRY_AFTER: Final = 60.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=15, connect=5)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    document: Json
    retry_after: float | None


class ApiClient:
    """One session to the API server. Credentials are read anew when they are refused."""

    def __init__(self, connect: Callable[[], kopf.ConnectionInfo]) -> None:
        self._connect = connect
        # Called at each 403.
        self.forbidden: Callable[[], None] = lambda: None
        self._session: aiohttp.ClientSession | None = None
        self._server = ""
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> Json:
        """Send one request and return the JSON answer.

        Raises:
            ApiError: the API server refused; its subclasses say how.
            UnavailableError: there was no answer that means anything.
        """
        answer = await self._send(method, path, params, body, content_type)
        if answer.status == 401:
            await self.close()
            answer = await self._send(method, path, params, body, content_type)
        document = answer.document
        if answer.status < 300:
            return document
        if answer.status == 403:
            self.forbidden()
        raise from_answer(
            answer.status,
            str(document.get("reason", "")),
            str(document.get("message", "")),
            f"{method} {path}",
            answer.retry_after,
        )

    async def watch(self, path: str, params: dict[str, str], *, seconds: float) -> AsyncIterator[Json]:
        """Give the events of a watch as they come, until the API server ends it.

        Args:
            seconds: how long it may last, as `timeoutSeconds` asks for.

        Raises:
            ApiError: the API server refused; its subclasses say how.
            UnavailableError: the connection did not come about, or broke.
        """
        session = await self._opened()
        timeout = aiohttp.ClientTimeout(total=seconds + 10, sock_connect=10)
        try:
            async with session.get(self._server + path, params=params, timeout=timeout) as response:
                if response.status == 403:
                    self.forbidden()
                if response.status >= 300:
                    document = _document(await response.read())
                    raise from_answer(
                        response.status,
                        str(document.get("reason", "")),
                        str(document.get("message", "")),
                        f"WATCH {path}",
                        _seconds(response.headers.get("Retry-After")),
                    )
                async for line in response.content:
                    if line.strip():
                        yield _document(line)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnavailableError(f"WATCH {path}: {type(error).__name__}: {error}") from error

    async def _send(
        self, method: str, path: str, params: dict[str, str] | None, body: Json | None, content_type: str
    ) -> _Answer:
        session = await self._opened()
        data = None if body is None else json.dumps(body)
        headers = {} if body is None else {"Content-Type": content_type}
        try:
            async with session.request(
                method, self._server + path, params=params, data=data, headers=headers
            ) as response:
                document = _document(await response.read())
                return _Answer(response.status, document, _seconds(response.headers.get("Retry-After")))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(f"{method} {path}: {type(error).__name__}: {error}") from error

    async def _opened(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None or self._session.closed:
                info = self._connect()
                self._server = info.server.rstrip("/")
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=info.as_ssl_context(), limit=64),
                    headers={"User-Agent": "shadowfault-operator", "Accept": "application/json"}
                    | info.as_http_headers(),
                    timeout=_TIMEOUT,
                    proxy=info.proxy_url,
                    trust_env=info.trust_env,
                )
            return self._session


def _document(raw: bytes) -> dict[str, Any]:
    """A JSON object; any other answer (of a proxy, of a server that is starting) as one with a message."""
    try:
        answer = json.loads(raw)
    except ValueError:
        return {"message": raw[:200].decode(errors="replace")}
    return answer if isinstance(answer, dict) else {"message": str(answer)[:200]}


def _seconds(retry_after: str | None) -> float | None:
    """The header in seconds; the API server sends no dates. Never longer than a minute."""
    if retry_after is None or not retry_after.isdigit():
        return None
    return min(float(retry_after), _LONGEST_RETRY_AFTER)
