"""The part of the kubelet's HTTPS API that the API server uses: logs and exec.

Clients must show a certificate of the cluster's CA with the common name the
API server has; RBAC on pods/log and pods/exec was checked by the API server.
"""

from __future__ import annotations

import datetime as dt
import logging
import ssl
from typing import TYPE_CHECKING

from aiohttp import web

from shadowfault_cluster.agent.exec_session import ExecSession
from shadowfault_cluster.agent.logs import LogOptions, read_log
from shadowfault_cluster.agent.objects import name_of, namespace_of, parse_timestamp, utcnow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aiohttp.typedefs import Handler

    from shadowfault_cluster.agent.config import AgentConfig
    from shadowfault_cluster.agent.container import Container
    from shadowfault_cluster.agent.pod_worker import PodWorker

_log = logging.getLogger(__name__)
_CLIENT_NAME = "kube-apiserver-kubelet-client"


class KubeletApi:
    """The server. `workers()` gives the pods on this node, the newest last."""

    def __init__(self, config: AgentConfig, workers: Callable[[], Iterable[PodWorker]]) -> None:
        """Nothing listens until start()."""
        self._config = config
        self._workers = workers
        app = web.Application(middlewares=[_api_server_only])
        app.router.add_get("/healthz", _healthz)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        # The API server passes the client's method on: kubectl sends GET for WebSockets, POST for SPDY.
        app.router.add_route("*", "/exec/{namespace}/{pod}/{container}", self._exec)
        for path in ("attach", "portForward"):
            app.router.add_route("*", f"/{path}/{{rest:.*}}", _unsupported)
        # A follower of a log must not hold up the agent's end.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)

    async def start(self) -> None:
        """Listen on the node's address. Raises OSError."""
        pki = self._config.pki
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "kubelet-server.crt", pki / "kubelet-server.key")
        context.verify_mode = ssl.CERT_REQUIRED
        await self._runner.setup()
        address, port = self._config.host_ip, self._config.kubelet_port
        site = web.TCPSite(self._runner, address, port, ssl_context=context, reuse_address=True)
        await site.start()

    async def close(self) -> None:
        """Stop listening and cut what is open."""
        await self._runner.cleanup()

    def _find(self, request: web.Request) -> tuple[PodWorker, Container]:
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        wanted = (namespace, name)
        found = [item for item in self._workers() if (namespace_of(item.pod), name_of(item.pod)) == wanted]
        if not found:
            raise web.HTTPNotFound(text=f"pod {namespace}/{name} is not on this node")
        title = request.match_info["container"]
        for container in found[-1].containers:
            if container.spec["name"] == title:
                return found[-1], container
        raise web.HTTPNotFound(text=f"pod {namespace}/{name} has no container {title}")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        worker, container = self._find(request)
        options = _log_options(request.query)
        previous = request.query.get("previous") == "true"
        if not previous and "waiting" in container.state.state and not container.state.ever_ended:
            waiting = container.state.state["waiting"]
            why = waiting.get("message") or waiting.get("reason", "")
            title = f'container "{container.spec["name"]}" in pod "{name_of(worker.pod)}"'
            raise web.HTTPBadRequest(text=f"{title} is waiting to start: {why}")
        path = worker.context.log(container.spec["name"], container.state.restart_count - int(previous))
        if not path.exists():
            which = "previous terminated container" if previous else "log of container"
            raise web.HTTPBadRequest(
                text=f'{which} "{container.spec["name"]}" in pod "{name_of(worker.pod)}" not found'
            )
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        live = container.run_now.log if container.run_now is not None and not previous else None
        async for text in read_log(path, options, live):
            if text:
                await response.write(text)
        return response

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        _, container = self._find(request)
        return await ExecSession(container, request).serve()


def _log_options(query: Mapping[str, str]) -> LogOptions:
    since = None
    if "sinceSeconds" in query:
        since = utcnow() - dt.timedelta(seconds=int(query["sinceSeconds"]))
    elif "sinceTime" in query:
        since = parse_timestamp(query["sinceTime"])
    return LogOptions(
        follow=query.get("follow") == "true",
        tail=int(query["tailLines"]) if "tailLines" in query else None,
        since=since,
        timestamps=query.get("timestamps") == "true",
        limit_bytes=int(query["limitBytes"]) if "limitBytes" in query else None,
        stream=query.get("stream", "All"),
    )


@web.middleware
async def _api_server_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    certificate = request.get_extra_info("peercert") or {}
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    if names != [_CLIENT_NAME]:
        raise web.HTTPForbidden(text="only the API server may ask the node agent")
    return await handler(request)


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _unsupported(request: web.Request) -> web.Response:
    what = request.path.split("/")[1]
    raise web.HTTPNotImplemented(text=f"the local cluster does not support {what}: pods are local processes")
