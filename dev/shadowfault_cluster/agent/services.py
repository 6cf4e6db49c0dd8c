"""Keeps a proxy per Service port, as kube-proxy does."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shadowfault_cluster.agent.endpoints import Front, fronts
from shadowfault_cluster.agent.objects import Json, name_of, namespace_of, uid_of
from shadowfault_cluster.agent.proxy import Proxy
from shadowfault_cluster.agent.unsupported import unsupported_service_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shadowfault_cluster.agent.config import AgentConfig
    from shadowfault_cluster.agent.endpoints import Address
    from shadowfault_cluster.agent.events import EventRecorder

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0


class ServiceProxies:
    """The listeners of all Services, kept to what Services and pods say."""

    def __init__(
        self, config: AgentConfig, events: EventRecorder, pods: Callable[[], Iterable[Json]]
    ) -> None:
        """`pods()` gives all pods known at the moment."""
        self._config = config
        self._events = events
        self._pods = pods
        self._services: dict[str, Json] = {}
        self._proxies: dict[str, dict[Address, Proxy]] = {}
        self._told: dict[str, list[str]] = {}
        self._dirty: set[str] = set()  # namespaces
        self._wake = asyncio.Event()

    def service_changed(self, old: Json | None, new: Json | None) -> None:
        """A Service was created, changed or deleted."""
        if new is not None:
            self._services[uid_of(new)] = new
            self._tell_unsupported(new)
        elif old is not None:
            self._services.pop(uid_of(old), None)
            self._told.pop(uid_of(old), None)
        self._touch(new or old)

    def pod_changed(self, old: Json | None, new: Json | None) -> None:
        """A pod was created, changed or deleted."""
        self._touch(new or old)

    def _touch(self, item: Json | None) -> None:
        if item is not None:
            self._dirty.add(namespace_of(item))
            self._wake.set()

    def all(self) -> list[Json]:
        """The Services known at the moment."""
        return list(self._services.values())

    async def run(self) -> None:
        """Follow the changes until cancelled, then close every listener."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                namespaces, self._dirty = self._dirty, set()
                for namespace in namespaces:
                    await self._refresh(namespace)
        finally:
            for proxies in self._proxies.values():
                for proxy in proxies.values():
                    proxy.close()

    async def _refresh(self, namespace: str) -> None:
        pods = [pod for pod in self._pods() if namespace_of(pod) == namespace]
        for uid in [uid for uid in self._proxies if uid not in self._services]:
            for proxy in self._proxies.pop(uid).values():
                proxy.close()
        for uid, service in list(self._services.items()):
            if namespace_of(service) == namespace:
                await self._apply(service, self._proxies.setdefault(uid, {}), self._fronts(service, pods))

    def _fronts(self, service: Json, pods: list[Json]) -> list[Front]:
        if namespace_of(service) == "default" and name_of(service) == "kubernetes":
            # Its endpoints cannot be written down (loopback); there is one, and it is known.
            server = urlsplit(self._config.apiserver)
            backend = (server.hostname or "", server.port or 443)
            spec = service["spec"]
            return [Front((spec["clusterIP"], port["port"]), (backend,)) for port in spec["ports"]]
        return fronts(service, pods, self._config.host_ip)

    async def _apply(self, service: Json, proxies: dict[Address, Proxy], wanted: list[Front]) -> None:
        addresses = {front.listen for front in wanted}
        for address in proxies.keys() - addresses:
            proxies.pop(address).close()
        for front in wanted:
            proxy = proxies.setdefault(front.listen, Proxy(front.listen))
            try:
                await proxy.set_backends(front.backends)
            except OSError as error:
                message = f"cannot listen on {front.listen[0]}:{front.listen[1]}: {error.strerror or error}"
                self._events.warning(service, "FailedToListen", message)
                asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._touch, service)

    def _tell_unsupported(self, service: Json) -> None:
        if namespace_of(service) == "default" and name_of(service) == "kubernetes":
            return
        found = unsupported_service_fields(service)
        if found and self._told.get(uid_of(service)) != found:
            self._told[uid_of(service)] = found
            self._events.warning(service, "UnsupportedField", f"no effect here: {', '.join(found)}")
