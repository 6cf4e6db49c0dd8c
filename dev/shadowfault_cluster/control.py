"""The line between a cluster's supervisor and its users: one JSON request, one JSON answer.

An abstract UNIX socket, so that no path is too long for it and nothing is left
behind. Such names have no file permissions, so the server asks the kernel who
connects and answers only to its own user (and to root).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from shadowfault_cluster.errors import ClusterError, ClusterNotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def _address(cluster_id: str) -> str:
    return f"\0shadowfault-cluster-{cluster_id}"


async def serve(cluster_id: str, handler: Handler) -> asyncio.Server:
    """Answer requests with `handler`; a ClusterError it raises becomes the answer's `error`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if _peer_uid(writer) not in {0, os.getuid()}:
                return
            request = json.loads(await reader.readline())
            try:
                response = await handler(request)
            except ClusterError as error:
                response = {"error": str(error)}
            writer.write(json.dumps(response).encode() + b"\n")
            await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the client went away or does not speak our language: its loss
        finally:
            writer.close()

    return await asyncio.start_unix_server(answer, _address(cluster_id))


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    connection: socket.socket = writer.get_extra_info("socket")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


def request(cluster_id: str, message: dict[str, Any], *, timeout: float = 60.0) -> dict[str, Any]:
    """Send `message` to the supervisor and return its answer.

    Raises ClusterNotFoundError when nobody listens, ClusterError with the
    supervisor's words when it refuses, and when it takes over `timeout` seconds.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(_address(cluster_id))
            connection.sendall(json.dumps(message).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline()
        except TimeoutError as error:
            raise ClusterError(f"the cluster's supervisor did not answer within {timeout:.0f} s") from error
        except OSError as error:
            raise ClusterNotFoundError(
                f"the cluster's supervisor is not running ({error.strerror})"
            ) from error
    if not line:
        raise ClusterNotFoundError("the cluster's supervisor ended before it answered")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise ClusterError(answer["error"])
    return answer
