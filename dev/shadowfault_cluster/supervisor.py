"""The process that owns a cluster's control plane and node agent.

`python -m shadowfault_cluster.supervisor`, started by the keeper and never by
hand. It starts the components in order, restarts what dies by itself, answers
the control socket, and takes everything down when it is asked to, or when the
keeper is gone. Single-threaded on purpose: its children are tied to its main
thread (see processes.spawn).
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import datetime as dt
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shadowfault_cluster import bootstrap, control, kubeconfig, pki, processes, teardown
from shadowfault_cluster.components import (
    AGENT,
    APISERVER,
    APISERVER_PORT,
    AUDIT_POLICY,
    CONTROLLER_MANAGER,
    ETCD,
    ETCD_PEER_PORT,
    ETCD_PORT,
    KUBELET_PORT,
    ControlPlane,
    Ports,
)
from shadowfault_cluster.errors import ClusterError, ClusterStartError
from shadowfault_cluster.layout import Layout
from shadowfault_cluster.network import Network, can_bind, free_port
from shadowfault_cluster.record import ClusterRecord
from shadowfault_cluster.reporting import StatusWriter
from shadowfault_cluster.runner import ManagedProcess, tail

if TYPE_CHECKING:
    from collections.abc import Coroutine

    import httpx

_START_TIMEOUT_SECONDS = 120.0
_AGENT_MODULE = "shadowfault_cluster.agent"


class Supervisor:
    """A cluster's processes, in the order of their dependence."""

    def __init__(
        self, layout: Layout, network: Network, cluster_id: str, binaries: Path, status: StatusWriter
    ) -> None:
        """Prepare; nothing is started or written yet."""
        self._layout = layout
        self._status = status
        self._environment = processes.child_environment(cluster_id)
        self._plane = ControlPlane(layout, network, _choose_ports(network), binaries)
        self._record = ClusterRecord(
            name=layout.name,
            id=cluster_id,
            network=str(network.cidr),
            apiserver=self._plane.apiserver_url,
            etcd=self._plane.etcd_url,
            node_name=f"{layout.name}-node",
            kubelet=f"{network.kubelet}:{KUBELET_PORT}",
            pod_network=str(network.pods),
            service_network=str(network.services),
            binaries=str(binaries),
            started_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        )
        self._processes = {
            name: ManagedProcess(name, argv, layout.log(name), self._environment)
            for name, argv in (
                (ETCD, self._plane.etcd()),
                (APISERVER, self._plane.apiserver()),
                (CONTROLLER_MANAGER, self._plane.controller_manager()),
                (AGENT, [sys.executable, "-P", "-m", _AGENT_MODULE, "--directory", str(layout.directory)]),
            )
        }
        self._began = time.monotonic()

    async def run(self) -> int:
        """Start everything, keep it running, take it down. Returns the exit status."""
        loop = asyncio.get_running_loop()
        # None: somebody asked for the end. A text: why the cluster cannot go on.
        self._end: asyncio.Future[str | None] = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._finish, None)
        loop.add_signal_handler(signal.SIGCHLD, self._collect)
        server = await control.serve(self._record.id, self._handle)
        try:
            await self._until_end(self._start())
            if not self._end.done():
                self._status.ready()
            reason = await self._end
        except ClusterError as error:
            reason = str(error)
        finally:
            server.close()
            await self._stop_all()
        if reason is None:
            return 0
        sys.stderr.write(f"{reason}\n")
        self._status.failed(reason)
        return 1

    def _finish(self, reason: str | None) -> None:
        if not self._end.done():
            self._end.set_result(reason)

    async def _until_end(self, starting: Coroutine[Any, Any, None]) -> None:
        """Await `starting`, but give it up when the end comes first."""
        task = asyncio.create_task(starting)
        self._end.add_done_callback(lambda _: task.cancel())
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    async def _start(self) -> None:
        pki.create(self._layout.pki, pki.certificate_specs(self._plane.network, self._record.node_name))
        self._layout.audit_policy.write_text(json.dumps(AUDIT_POLICY))
        for path, user in (
            (self._layout.kubeconfig, "admin"),
            (self._layout.controller_manager_kubeconfig, "controller-manager"),
        ):
            kubeconfig.write(
                path,
                cluster=self._layout.name,
                server=self._plane.apiserver_url,
                user=user,
                pki=self._layout.pki,
            )
        self._write_record()
        waiting_for = "kube-apiserver to become ready"
        try:
            async with asyncio.timeout(_START_TIMEOUT_SECONDS), self._client() as http:
                self._progress("starting etcd and kube-apiserver")
                self._start_process(ETCD)
                self._start_process(APISERVER)
                await bootstrap.wait_until_serving(http)
                self._progress("starting kube-controller-manager and the node agent")
                self._start_process(CONTROLLER_MANAGER)
                await bootstrap.grant_agent(http)
                waiting_for = "the default service account (kube-controller-manager)"
                self._start_process(AGENT)
                await bootstrap.wait_for_default_service_account(http)
                waiting_for = f"node {self._record.node_name} to become Ready (node agent)"
                await bootstrap.wait_for_node(http, self._record.node_name)
        except TimeoutError as error:
            logs = "\n".join(
                f"--- {process.name}:\n{tail(process.log, 5)}" for process in self._processes.values()
            )
            raise ClusterStartError(
                f"waited {_START_TIMEOUT_SECONDS:.0f} s in vain for {waiting_for}. "
                f"Is the machine very busy? The ends of the logs:\n{logs}"
            ) from error
        self._record = dataclasses.replace(self._record, state="ready")
        self._write_record()
        self._progress("ready")

    def _client(self) -> httpx.AsyncClient:
        return bootstrap.client(self._plane.apiserver_url, self._layout.pki)

    def _progress(self, message: str) -> None:
        self._status.progress(f"{message} ({time.monotonic() - self._began:.1f} s)")

    def _start_process(self, name: str) -> None:
        self._processes[name].start()
        self._write_record()

    def _write_record(self) -> None:
        pids = {"keeper": os.getppid(), "supervisor": os.getpid()}
        pids |= {name: process.pid for name, process in self._processes.items() if process.pid}
        self._record = dataclasses.replace(self._record, pids=pids)
        self._record.write(self._layout.record)

    def _collect(self) -> None:
        """A child has changed its state: SIGCHLD."""
        for process in self._processes.values():
            if not process.collect():
                continue
            self._write_record()
            if not process.wanted or self._end.done():
                continue
            sys.stderr.write(f"{process.describe_exit()}\n")
            # While starting nothing has worked yet, so starting it again would only hide why.
            delay = process.next_delay() if self._record.state == "ready" else None
            if delay is None:
                self._finish(process.describe_exit())
                return
            asyncio.get_running_loop().call_later(delay, self._restart, process)

    def _restart(self, process: ManagedProcess) -> None:
        if process.wanted and not process.pid and not self._end.done():
            process.restarts += 1
            self._start_process(process.name)

    async def _stop_all(self) -> None:
        # The agent first, so that it can end its pods; the others hold nothing that outlives the cluster.
        await self._processes[AGENT].stop()
        for name in (CONTROLLER_MANAGER, APISERVER, ETCD):
            await self._processes[name].stop(signal.SIGKILL)

    async def _handle(self, message: dict[str, Any]) -> dict[str, Any]:
        match message:
            case {"do": "status"}:
                return self._describe()
            case {"do": "shutdown"}:
                self._finish(None)
                return {}
            case {"do": "stop", "component": str(name), "signal": int(number)}:
                await self._component(name).stop(signal.Signals(number))
            case {"do": "start", "component": str(name)}:
                self._component(name)
                self._start_process(name)
                await self._wait_ready(name)
            case _:
                raise ClusterError(f"not a request: {message}")
        return self._describe()

    def _component(self, name: str) -> ManagedProcess:
        try:
            return self._processes[name]
        except KeyError:
            raise ClusterError(f"no component {name!r}; there are {', '.join(self._processes)}") from None

    async def _wait_ready(self, name: str) -> None:
        try:
            async with asyncio.timeout(_START_TIMEOUT_SECONDS), self._client() as http:
                if name in {ETCD, APISERVER}:
                    await bootstrap.wait_until_serving(http)
                elif name == AGENT:
                    await bootstrap.wait_for_node(http, self._record.node_name)
        except TimeoutError as error:
            process = self._processes[name]
            raise ClusterError(
                f"{name} did not become ready; the end of its log:\n{tail(process.log)}"
            ) from error

    def _describe(self) -> dict[str, Any]:
        components = {
            name: {"state": process.state, "pid": process.pid, "restarts": process.restarts}
            for name, process in self._processes.items()
        }
        return {"state": self._record.state, "components": components}


def _choose_ports(network: Network) -> Ports:
    if not can_bind(network.kubelet, KUBELET_PORT):
        raise ClusterError(
            f"port {KUBELET_PORT} is taken on every address of this machine (a kubelet?), "
            "and the node agent needs it; stop that program or use another machine"
        )
    address = network.control_plane
    return Ports(
        etcd=free_port(address, ETCD_PORT),
        etcd_peer=free_port(address, ETCD_PEER_PORT),
        apiserver=free_port(address, APISERVER_PORT),
    )


def main() -> None:
    """Entry point; the arguments are the keeper's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--network", type=int, required=True)
    parser.add_argument("--binaries", type=Path, required=True)
    parser.add_argument("--status-fd", type=int, required=True)
    arguments = parser.parse_args()
    layout = Layout(arguments.directory)
    cluster_id = os.environ[processes.COOKIE]
    keeper = os.getppid()
    status = StatusWriter(arguments.status_fd)
    exit_status = 1
    try:
        supervisor = Supervisor(layout, Network(arguments.network), cluster_id, arguments.binaries, status)
        exit_status = asyncio.run(supervisor.run())
    except ClusterError as error:
        status.failed(str(error))
    finally:
        if os.getppid() != keeper:
            # It would have cleaned up after us; with it gone, this is on us.
            teardown.remove_everything(layout, cluster_id)
    sys.exit(exit_status)


if __name__ == "__main__":
    main()
