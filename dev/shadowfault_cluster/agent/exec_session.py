"""`kubectl exec`: the remote command protocol v5.channel.k8s.io over a WebSocket.

Each binary message begins with the number of its stream (k8s.io/apimachinery,
util/remotecommand): 0 stdin, 1 stdout, 2 stderr, 3 the final metav1.Status,
4 the terminal's size, 255 "this stream is closed". The API server must pass
the client's WebSocket through (feature gate TranslateStreamCloseWebsocketRequests
off); with it on, it speaks SPDY to the node, which is not implemented here.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from shadowfault_cluster.agent.exec_streams import Pipes, Streams, Terminal

if TYPE_CHECKING:
    from shadowfault_cluster.agent.container import Container
    from shadowfault_cluster.agent.objects import Json

_log = logging.getLogger(__name__)
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _STATUS, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_NUMBERS = {"stdout": _STDOUT, "stderr": _STDERR}
# How long a command whose client has left gets to end by itself.
_ABANDONED_SECONDS = 1.0


class ExecSession:
    """One command beside one running container."""

    def __init__(self, container: Container, request: web.Request) -> None:
        """`request` is the upgrade request, its query v1.PodExecOptions as the kubelet takes them."""
        self._container = container
        self._request = request
        self._command = request.query.getall("command", [])
        self._socket = web.WebSocketResponse(protocols=_PROTOCOLS, heartbeat=30)
        self._streams: Streams = Terminal() if _flag(request, "tty") else Pipes(stdin=_flag(request, "input"))
        # Output waits here for the socket; None is the end.
        self._output: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def serve(self) -> web.StreamResponse:
        """Run the command until it ends or the client leaves."""
        if self._request.headers.get("Upgrade", "").lower() != "websocket":
            raise web.HTTPBadRequest(
                text="this node speaks WebSockets only: use kubectl 1.31 or later, and an API server with "
                "--feature-gates=TranslateStreamCloseWebsocketRequests=false"
            )
        await self._socket.prepare(self._request)
        try:
            status = await self._run()
            await self._socket.send_bytes(bytes([_STATUS]) + json.dumps(status).encode())
            await self._socket.close()
        except ConnectionError as error:
            _log.debug("the client of an exec has left: %s", error)
        return self._socket

    async def _run(self) -> Json:
        try:
            process = self._streams.start(self._container, self._command, self._take)
        except OSError as error:
            return _failure(str(error))
        sending = asyncio.create_task(self._send_output())
        receiving = asyncio.create_task(self._receive())
        waiting = asyncio.create_task(process.wait())
        try:
            await asyncio.wait({sending, receiving, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():  # the client has left
                await process.stop(_ABANDONED_SECONDS)
            self._streams.close()
            self._output.put_nowait(None)
            await sending
            return _status(await waiting)
        finally:
            for task in (sending, receiving, waiting):
                task.cancel()
            if process.running:  # the agent ends
                await process.stop(0)
            self._streams.close()

    def _take(self, stream: str, data: bytes) -> None:
        self._output.put_nowait(bytes([_NUMBERS[stream]]) + data)

    async def _send_output(self) -> None:
        while (message := await self._output.get()) is not None:
            await self._socket.send_bytes(message)

    async def _receive(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            stream, data = message.data[0], message.data[1:]
            if stream == _STDIN:
                await self._streams.write(data)
            elif stream == _CLOSE and data[:1] == bytes([_STDIN]):
                self._streams.end_input()
            elif stream == _RESIZE:
                size = json.loads(data)
                self._streams.resize(size["Width"], size["Height"])


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name) in {"1", "true"}


def _status(code: int) -> Json:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    cause = {"reason": "ExitCode", "message": str(code)}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: {code}",
        "details": {"causes": [cause]},
    }


def _failure(message: str) -> Json:
    return {"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500}
