"""A thin client of the Kubernetes API: JSON in, JSON out, and watches that survive.

List and watch follow "Efficient detection of changes" of the Kubernetes API
concepts: a watch goes on from the last resourceVersion seen (bookmarks keep
that fresh), and starts over with a list when the server says 410 Gone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import aiohttp

from shadowfault_cluster.agent.objects import Json, uid_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)

STRATEGIC_MERGE = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"

# A watch is asked to end after this long, so that one that stalled silently cannot stall forever.
_WATCH_SECONDS = 300
_REQUEST_SECONDS = 30
_RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# Objects may be large (a Secret holds up to 1 MiB, base64 on top); aiohttp's line limit is far lower.
_MAX_LINE = 8 * 1024 * 1024


class ApiError(Exception):
    """The API server refused a request. `code` is the HTTP status, `reason` as in metav1.Status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        """Keep the parts of a metav1.Status."""
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message


class ApiUnavailableError(Exception):
    """The API server could not be reached, or broke off."""


_TRANSPORT_ERRORS = (aiohttp.ClientError, TimeoutError, OSError)


class ApiClient:
    """Requests to one API server with one client certificate."""

    def __init__(self, server: str, context: ssl.SSLContext) -> None:
        """Talk to `server` (https://host:port). Must be made inside a running event loop."""
        self._server = server
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS),
            # Never through a proxy: the server is on this machine.
            trust_env=False,
            read_bufsize=2**20,
            headers={"User-Agent": "shadowfault-node-agent", "Accept": "application/json"},
        )

    @classmethod
    def from_pki(cls, server: str, pki: Path, user: str = "agent") -> Self:
        """A client with the certificate `user` of a cluster's pki directory."""
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / f"{user}.crt", pki / f"{user}.key")
        return cls(server, context)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        content_type: str = "application/json",
        params: Mapping[str, str] | None = None,
    ) -> Json:
        """Send one request and return the decoded answer. Raises ApiError, ApiUnavailableError."""
        data = None if body is None else json.dumps(body)
        headers = {} if body is None else {"Content-Type": content_type}
        try:
            async with self._session.request(
                method, self._server + path, data=data, headers=headers, params=params
            ) as response:
                document = await response.read()
                if response.status >= 400:
                    raise _error(response.status, document)
                answer: Json = json.loads(document)
                return answer
        except _TRANSPORT_ERRORS as error:
            raise ApiUnavailableError(f"{method} {path}: {str(error) or type(error).__name__}") from error

    async def get(self, path: str, **params: str) -> Json:
        """GET."""
        return await self.request("GET", path, params=params)

    async def post(self, path: str, body: Json) -> Json:
        """POST."""
        return await self.request("POST", path, body)

    async def patch(self, path: str, body: Json, content_type: str = STRATEGIC_MERGE) -> Json:
        """PATCH, by strategic merge unless told otherwise."""
        return await self.request("PATCH", path, body, content_type=content_type)

    async def delete(self, path: str, options: Json | None = None) -> Json:
        """DELETE with DeleteOptions."""
        return await self.request("DELETE", path, options)

    async def watch(self, path: str, resource_version: str) -> AsyncIterator[tuple[str, Json]]:
        """Yield (type, object) until the server ends the watch. Raises ApiError, ApiUnavailableError."""
        params = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_WATCH_SECONDS + 10)
        try:
            async with self._session.get(self._server + path, params=params, timeout=timeout) as response:
                if response.status >= 400:
                    raise _error(response.status, await response.read())
                async for line in _lines(response.content):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _error(int(event["object"].get("code", 500)), event["object"])
                    yield event["type"], event["object"]
        except _TRANSPORT_ERRORS as error:
            raise ApiUnavailableError(f"watch {path}: {str(error) or type(error).__name__}") from error


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    buffered = bytearray()
    async for chunk in stream.iter_any():
        buffered += chunk
        *complete, rest = buffered.split(b"\n")
        for line in complete:
            yield bytes(line)
        buffered = bytearray(rest)
        if len(buffered) > _MAX_LINE:
            raise ApiUnavailableError(f"a watch event is longer than {_MAX_LINE} bytes")


def _error(code: int, document: bytes | Json) -> ApiError:
    status: Json = {}
    if isinstance(document, bytes):
        try:
            status = json.loads(document)
        except ValueError:
            status = {"message": document[:200].decode(errors="replace")}
    else:
        status = document
    return ApiError(code, str(status.get("reason", "")), str(status.get("message", "")))


@dataclass
class Informer:
    """A local copy of every object below `path`, kept fresh by a watch.

    `on_change(old, new)` is called for each change, from the event loop: `old`
    is None for an object seen for the first time, `new` None for one gone.
    """

    client: ApiClient
    path: str
    on_change: Callable[[Json | None, Json | None], None]
    # What list items lack: the server leaves kind and apiVersion out of them.
    kind: str
    api_version: str = "v1"
    items: dict[str, Json] = field(default_factory=dict)
    synced: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """List and watch forever, over any outage of the server."""
        failures = 0
        version = ""
        while True:
            try:
                if not version:
                    version = await self._list()
                    self.synced.set()
                async for kind, item in self.client.watch(self.path, version):
                    failures = 0
                    version = item["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        self._apply(kind, item)
            except ApiError as error:
                _log.info("%s: starting over with a list: %s", self.path, error)
                version = ""
            except ApiUnavailableError as error:
                _log.info("%s: %s", self.path, error)
            await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
            failures += 1

    async def _list(self) -> str:
        answer = await self.client.get(self.path)
        present = set()
        for item in answer.get("items") or []:
            item |= {"kind": self.kind, "apiVersion": self.api_version}
            present.add(uid_of(item))
            self._apply("MODIFIED", item)
        for uid in self.items.keys() - present:
            self._apply("DELETED", self.items[uid])
        return str(answer["metadata"]["resourceVersion"])

    def _apply(self, kind: str, item: Json) -> None:
        uid = uid_of(item)
        if kind == "DELETED":
            self.on_change(self.items.pop(uid, item), None)
            return
        old = self.items.get(uid)
        if old is not None and old["metadata"]["resourceVersion"] == item["metadata"]["resourceVersion"]:
            return  # a list repeats what the watch already told
        self.items[uid] = item
        self.on_change(old, item)
