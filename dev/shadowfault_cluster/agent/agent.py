"""The agent as a whole: watches pods and Services and gives each its task."""

from __future__ import annotations

import asyncio
import logging
import shutil
from typing import TYPE_CHECKING

from shadowfault_cluster.agent.addresses import AddressPool
from shadowfault_cluster.agent.api import ApiClient, Informer
from shadowfault_cluster.agent.binder import Binder, wants_binding
from shadowfault_cluster.agent.context import POD_MARKER, NodeContext, directory_name
from shadowfault_cluster.agent.events import EventRecorder
from shadowfault_cluster.agent.kubelet_api import KubeletApi
from shadowfault_cluster.agent.node import NodeKeeper, allocatable, node_labels
from shadowfault_cluster.agent.objects import Json, is_finished, uid_of
from shadowfault_cluster.agent.pod_worker import PodWorker
from shadowfault_cluster.agent.probes import probe_session
from shadowfault_cluster.agent.process import kill_marked
from shadowfault_cluster.agent.services import ServiceProxies

if TYPE_CHECKING:
    import aiohttp

    from shadowfault_cluster.agent.config import AgentConfig

_log = logging.getLogger(__name__)


class Agent:
    """One node. Make it inside a running event loop."""

    def __init__(self, config: AgentConfig) -> None:
        """Nothing is sent or started until run()."""
        self._config = config
        self._client = ApiClient.from_pki(config.apiserver, config.pki)
        self._http: aiohttp.ClientSession = probe_session()
        self._events = EventRecorder(self._client, config.node_name)
        self._addresses = AddressPool(config.pod_network)
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._pods = Informer(self._client, "/api/v1/pods", self._pod_changed, kind="Pod")
        self._services = ServiceProxies(config, self._events, self._pods.items.values)
        self._service_informer = Informer(
            self._client, "/api/v1/services", self._services.service_changed, kind="Service"
        )
        self._node = NodeKeeper(self._client, config)
        self._binder = Binder(
            self._client,
            self._events,
            config.node_name,
            node_labels(config),
            lambda: self._addresses.free > 0,
        )
        self._kubelet_api = KubeletApi(config, self._workers.values)
        self._context = NodeContext(
            config=config,
            client=self._client,
            events=self._events,
            http=self._http,
            services=self._services.all,
            allocatable=allocatable(config.pod_capacity),
        )
        self._ending = False

    async def run(self, stop: asyncio.Event) -> None:
        """Serve as a node until `stop` is set, then end every pod. Raises OSError when a port is taken."""
        self._config.pods.mkdir(mode=0o700, exist_ok=True)
        self._clean_up()
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._kubelet_api.start()
            # Services first: a pod that starts is told where they are.
            informers = [self._service_informer, self._pods]
            tasks = [asyncio.create_task(work) for work in (self._events.run(), self._services.run())]
            await self._node.register()
            tasks += [asyncio.create_task(informer.run()) for informer in informers]
            tasks += [asyncio.create_task(work) for work in (self._node.run(), self._follow_pods())]
            stopping = asyncio.create_task(stop.wait())
            done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # none of them ends by itself: this raises what went wrong
        finally:
            await self._end(tasks)

    async def _follow_pods(self) -> None:
        await self._service_informer.synced.wait()
        await self._pods.synced.wait()
        present = list(self._pods.items.values())
        self._remove_stale_directories(present)
        # Pods that have an address keep it, so they come before those that will get one.
        for pod in sorted(present, key=lambda pod: "podIP" not in pod.get("status", {})):
            self._take(pod)
        await self._binder.run()

    def _pod_changed(self, old: Json | None, new: Json | None) -> None:
        self._services.pod_changed(old, new)
        if new is None:
            if old is not None:
                self._gone(uid_of(old))
        elif self._pods.synced.is_set():
            self._take(new)

    def _gone(self, uid: str) -> None:
        self._binder.forget(uid)
        worker = self._workers.get(uid)
        if worker is not None:
            worker.removed()

    def _take(self, pod: Json) -> None:
        uid = uid_of(pod)
        worker = self._workers.get(uid)
        if worker is not None:
            worker.update(pod)
        elif pod["spec"].get("nodeName") == self._config.node_name:
            self._start_worker(pod)
        elif wants_binding(pod):
            self._binder.consider(pod)
        else:
            self._binder.forget(uid)

    def _start_worker(self, pod: Json) -> None:
        uid = uid_of(pod)
        self._binder.forget(uid)
        if self._ending:
            return
        address = ""
        if not is_finished(pod):
            address = self._addresses.take(pod.get("status", {}).get("podIP")) or ""
            if not address:  # bound to the node by someone else than our binder
                self._events.warning(
                    pod, "OutOfPodAddresses", "the node has no free pod address; waiting for one"
                )
                asyncio.get_running_loop().call_later(1.0, self._retry, uid)
                return
        worker = PodWorker(pod, address, self._context, self._release)
        self._workers[uid] = worker
        task = asyncio.create_task(worker.run())
        self._tasks[uid] = task
        task.add_done_callback(lambda task: self._worker_ended(uid, task))
        worker.update(pod)

    def _retry(self, uid: str) -> None:
        pod = self._pods.items.get(uid)
        if pod is not None:
            self._take(pod)

    def _release(self, address: str) -> None:
        self._addresses.give_back(address)
        self._binder.retry()

    def _worker_ended(self, uid: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(uid, None)
        self._workers.pop(uid, None)
        if not task.cancelled() and task.exception() is not None:
            _log.error("the task of a pod failed", exc_info=task.exception())

    def _clean_up(self) -> None:
        """End what a killed agent of this cluster left behind: grandchildren are not tied to it."""
        killed = kill_marked(f"{POD_MARKER}={self._config.cluster_id}/")
        if killed:
            _log.warning("killed %d processes of an agent before this one", killed)

    def _remove_stale_directories(self, pods: list[Json]) -> None:
        known = {directory_name(pod) for pod in pods}
        for directory in self._config.pods.iterdir():
            if directory.name not in known:
                shutil.rmtree(directory, ignore_errors=True)

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        self._ending = True
        for worker in self._workers.values():
            worker.shut_down()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._kubelet_api.close()
        await self._http.close()
        await self._client.close()
