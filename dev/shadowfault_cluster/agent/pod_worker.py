"""The life of one pod on this node, from its binding to its deletion."""

from __future__ import annotations

import asyncio
import logging
import shutil
from typing import TYPE_CHECKING

from shadowfault_cluster.agent.api import ApiError, ApiUnavailableError
from shadowfault_cluster.agent.container import Container
from shadowfault_cluster.agent.context import POD_MARKER, NodeContext, PodContext
from shadowfault_cluster.agent.credentials import TokenKeeper
from shadowfault_cluster.agent.objects import (
    Json,
    is_finished,
    is_terminating,
    parse_timestamp,
    uid_of,
    utcnow,
)
from shadowfault_cluster.agent.process import kill_marked
from shadowfault_cluster.agent.reporter import StatusReporter
from shadowfault_cluster.agent.status import Observed, Role, Verdict, initial_states, pod_status
from shadowfault_cluster.agent.unsupported import unsupported_pod_fields, wants_token

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5
# A pod that was deleted by force is gone for the API server already: just enough to close a socket.
_FORCED_GRACE_SECONDS = 1.0


class PodWorker:
    """One task per pod: start, watch, stop, report, delete.

    Everything from outside arrives by update(), removed() and shut_down(),
    which only take note; run() acts on it.
    """

    def __init__(self, pod: Json, ip: str, node: NodeContext, release: Callable[[str], None]) -> None:
        """`release(ip)` is called as soon as nothing of the pod can listen on its address any more."""
        self.context = PodContext(node, pod, ip)
        self._release = release
        self._finished = is_finished(pod)
        self._verdict: Verdict | None = None
        status = pod.get("status", {})
        self._started_at = parse_timestamp(status["startTime"]) if "startTime" in status else utcnow()
        self._reporter = StatusReporter(self.context, self._compute_status)
        spec = pod["spec"]
        specs = [*(spec.get("initContainers") or []), *spec["containers"]]
        self.containers = [
            Container(container, state, self.context, self._reporter.changed)
            for container, state in zip(specs, initial_states(pod, utcnow()), strict=True)
        ]
        self._told: set[str] = set()
        self._stop = asyncio.Event()  # end the containers
        self._deleted = asyncio.Event()  # someone asked for the pod's deletion, or it is gone
        self._shutting_down = False
        self._helpers: set[asyncio.Task[None]] = set()
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def pod(self) -> Json:
        """The latest version of the pod."""
        return self.context.pod

    # What happens outside

    def update(self, pod: Json) -> None:
        """Take a new version of the pod."""
        before = self.context.pod
        self.context.pod = pod
        self._tell_unsupported()
        self._watch_deadline()
        if before.get("status", {}).get("conditions") != pod.get("status", {}).get("conditions"):
            self._reporter.changed()  # a readiness gate may have opened
        if is_terminating(pod):
            if self._stop.is_set():
                self._hasten(before, pod)
            self._deleted.set()
            self._stop.set()

    def removed(self) -> None:
        """The pod is gone from the API server: deleted by force, or by ourselves."""
        self._reporter.gone.set()
        self._deleted.set()
        if not self._stop.is_set():
            self._stop.set()
        for container in self.containers:
            container.kill_after(_FORCED_GRACE_SECONDS)

    def shut_down(self) -> None:
        """The agent ends: end the containers, leave the pod to the next agent."""
        self._shutting_down = True
        self._stop.set()
        self._deleted.set()

    def _hasten(self, before: Json, pod: Json) -> None:
        old, new = _deletion_grace(before), _deletion_grace(pod)
        if new is not None and (old is None or new < old):
            for container in self.containers:
                container.kill_after(new)

    # The life

    async def run(self) -> None:
        """Live the pod's life; returns when it is gone from the API server, or the agent shuts down."""
        self._tell_unsupported()
        self._help(self._reporter.run())
        try:
            if not self._finished:
                await self._live_or_fail()
            await self._deleted.wait()
            if not self._shutting_down:
                await self._delete()
                shutil.rmtree(self.context.directory, ignore_errors=True)
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
            for task in self._helpers:
                task.cancel()
            if self._helpers:
                await asyncio.wait(self._helpers)
            self._give_up_address()

    async def _live_or_fail(self) -> None:
        """Live; an error of ours fails the pod, visibly, instead of leaving it in the air."""
        try:
            await self._live()
        except Exception as error:  # noqa: BLE001 - whatever it is, the pod must not be lost
            _log.exception("the task of %s failed", self.context.path)
            message = f"the node agent failed on this pod, its log says more: {error!r}"
            self._verdict = Verdict("AgentError", message)
            self.context.node.events.warning(self.pod, "AgentError", message)
            self._finished = True
            self._reporter.changed()

    async def _live(self) -> None:
        for directory in (self.context.home, self.context.temporary):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._watch_deadline()
        self._reporter.changed()
        running = asyncio.create_task(self._run_containers())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await self._stop_containers()
            await running
        finally:
            for task in (running, stopping):
                task.cancel()
            await asyncio.wait({running, stopping})
            # Also what left its process group, and whatever an error of ours left behind.
            kill_marked(f"{POD_MARKER}={self.context.marker}")
        self._finished = not self._shutting_down
        self._give_up_address()
        self._reporter.changed()
        try:
            async with asyncio.timeout(2 if self._shutting_down else None):
                await self._reporter.flush()
        except TimeoutError:
            _log.info("%s: the API server does not take the last status", self.context.path)

    async def _run_containers(self) -> None:
        """Init containers one after the other, then the others together; returns when those have ended."""
        projection = wants_token(self.pod)
        if projection is not None and not await self._prepare_token(projection):
            return
        if not await self._initialize():
            return
        mains = [item for item in self.containers if item.state.role is Role.MAIN]
        for container in mains:
            if container.state.state.get("waiting", {}).get("reason") == "PodInitializing":
                container.state.state = {"waiting": {"reason": "ContainerCreating"}}
        async with asyncio.TaskGroup() as group:
            for container in mains:
                group.create_task(container.run())

    async def _initialize(self) -> bool:
        """Run the init containers and start the sidecars; False when one failed, or when stopped before."""
        for container in self.containers:
            if self._stop.is_set():
                return False
            if container.state.role is Role.SIDECAR:
                self._help(container.run())
                await self._either(container.started)
            elif container.state.role is Role.INIT:
                await container.run()
                if container.state.exit_code != 0:
                    return False
        return not self._stop.is_set()

    async def _prepare_token(self, projection: Json) -> bool:
        """Have a token before anything starts; False when stopped before."""
        ready = asyncio.Event()
        self._help(TokenKeeper(self.context, projection).run(ready))
        await self._either(ready)
        self.context.has_token = ready.is_set()
        return self.context.has_token

    async def _either(self, event: asyncio.Event) -> None:
        """Wait for `event` or for the stop."""
        waiters = {asyncio.create_task(item.wait()) for item in (event, self._stop)}
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        for waiter in waiters:
            waiter.cancel()

    async def _stop_containers(self) -> None:
        """Main and init containers at once, then the sidecars in reverse order, all within the grace."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._grace()
        sidecars = [item for item in self.containers if item.state.role is Role.SIDECAR]
        others = [item for item in self.containers if item not in sidecars]
        await asyncio.gather(*(item.stop(self._grace()) for item in others))
        for container in reversed(sidecars):
            await container.stop(max(0.0, deadline - loop.time()))

    def _grace(self) -> float:
        if self._reporter.gone.is_set():
            return _FORCED_GRACE_SECONDS
        asked = _deletion_grace(self.pod)
        own = self.pod["spec"].get("terminationGracePeriodSeconds", 30)
        return float(own if asked is None else asked)

    async def _delete(self) -> None:
        """Confirm the deletion: with no grace left the API server removes the object."""
        while not self._reporter.gone.is_set():
            options = {
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "gracePeriodSeconds": 0,
                "preconditions": {"uid": uid_of(self.pod)},
            }
            try:
                await self.context.node.client.delete(self.context.path, options)
            except ApiError as error:
                if error.code in {404, 409}:
                    return
                _log.warning("deleting %s: %s", self.context.path, error)
                await asyncio.sleep(_RETRY_SECONDS)
            except ApiUnavailableError as error:
                _log.info("deleting %s: %s", self.context.path, error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    # Small things

    def _help(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._helpers.add(task)

    def _give_up_address(self) -> None:
        if self.context.ip and not self._shutting_down:
            self._release(self.context.ip)
        self.context.ip = ""

    def _compute_status(self, previous: Json) -> Json:
        observed = Observed(
            containers=[container.state for container in self.containers],
            # Status keeps the address of a pod that has ended, as a kubelet's does.
            pod_ip=self.context.ip or self.pod.get("status", {}).get("podIP", ""),
            host_ip=self.context.node.config.host_ip,
            started_at=self._started_at,
            terminal=self._finished,
            verdict=self._verdict,
        )
        return pod_status(self.pod, observed, previous, utcnow())

    def _tell_unsupported(self) -> None:
        fields = [field for field in unsupported_pod_fields(self.pod) if field not in self._told]
        if fields and not self._finished:
            self._told.update(fields)
            message = f"no effect on local processes: {', '.join(fields)}"
            self.context.node.events.warning(self.pod, "UnsupportedField", message)

    def _watch_deadline(self) -> None:
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None and not self._finished:
            left = seconds - (utcnow() - self._started_at).total_seconds()
            self._deadline = asyncio.get_running_loop().call_later(max(0.0, left), self._exceed_deadline)

    def _exceed_deadline(self) -> None:
        if not self._stop.is_set():
            message = "Pod was active on the node longer than the specified deadline"
            self._verdict = Verdict("DeadlineExceeded", message)
            self.context.node.events.normal(self.pod, "DeadlineExceeded", message)
            self._stop.set()


def _deletion_grace(pod: Json) -> float | None:
    seconds = pod["metadata"].get("deletionGracePeriodSeconds")
    return None if seconds is None else float(seconds)
