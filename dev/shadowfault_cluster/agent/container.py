"""One container of a pod: a sequence of runs of one local process."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from shadowfault_cluster.agent.api import ApiError, ApiUnavailableError
from shadowfault_cluster.agent.backoff import CrashBackOff
from shadowfault_cluster.agent.environment import EnvironmentResolutionError
from shadowfault_cluster.agent.launcher import CommandMissingError, plan_run, start_run
from shadowfault_cluster.agent.logs import tail_of
from shadowfault_cluster.agent.objects import Json, name_of, namespace_of, timestamp, uid_of, utcnow
from shadowfault_cluster.agent.probes import STARTUP, Prober, resolve_port, run_handler
from shadowfault_cluster.agent.process import Process, StartError
from shadowfault_cluster.agent.status import ContainerState, Role, restarts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import aiohttp

    from shadowfault_cluster.agent.context import PodContext
    from shadowfault_cluster.agent.launcher import Plan, Run

_START_ERROR_CODE = 128  # what the container runtimes report for a command that cannot be started
_CONFIG_RETRY_SECONDS = (0.25, 0.5, 1.0, 2.0, 5.0)
_OUTPUT_BYTES = 10 * 1024  # of a probe's command, as with the kubelet
# How much of the log becomes the message of a container that failed: the kubelet's figures.
_MESSAGE_LINES, _MESSAGE_BYTES = 80, 2048
_FIELD_PATHS = {Role.INIT: "initContainers", Role.SIDECAR: "initContainers", Role.MAIN: "containers"}


class Container:
    """Runs a container as often as its policy says. `changed` is called after each change of `state`."""

    def __init__(
        self, spec: Json, state: ContainerState, context: PodContext, changed: Callable[[], None]
    ) -> None:
        """`state` may tell of runs under an agent before this one."""
        self.spec = spec
        self.state = state
        self.run_now: Run | None = None
        self._context = context
        self._changed = changed
        self._policy = context.pod["spec"]["restartPolicy"]
        self._back_off = CrashBackOff()
        self._ran_for = 0.0
        self._stopping = asyncio.Event()
        self.started = asyncio.Event()

    # Target, for probes and hooks

    @property
    def pod_ip(self) -> str:
        """The address the container listens on."""
        return self._context.ip

    @property
    def http(self) -> aiohttp.ClientSession:
        """For httpGet."""
        return self._context.node.http

    def port(self, name: int | str) -> int:
        """The number of a port. Raises ValueError."""
        return resolve_port(name, self.spec.get("ports") or [])

    async def execute(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command as the container would. Raises OSError when that is impossible now."""
        output = bytearray()

        def collect(_: str, data: bytes) -> None:
            output.extend(data[: max(0, _OUTPUT_BYTES - len(output))])

        process = self.start_beside(command, collect)
        try:
            return await process.wait(), output.decode("utf-8", "replace")
        except asyncio.CancelledError:
            await process.stop(0)
            raise

    def start_beside(
        self,
        command: Sequence[str],
        output: Callable[[str, bytes], None],
        *,
        stdin: int = subprocess.DEVNULL,
        terminal: int | None = None,
    ) -> Process:
        """Start a command in the environment of the running container. Raises OSError."""
        if self.run_now is None:
            raise ProcessLookupError(f"container {self.spec['name']} is not running")
        try:
            return Process.start(
                command,
                self.run_now.surroundings,
                output,
                stdin=stdin,
                terminal=terminal,
            )
        except StartError as error:
            raise OSError(str(error)) from error

    # The life of the container

    async def run(self) -> None:
        """Run it until it has ended for good, or was stopped."""
        if self._is_over():
            return
        while not self._stopping.is_set():
            if self.state.ever_ended and not await self._wait_to_restart():
                break
            started = await self._start()
            if started is not None:
                await self._attend(started)
            if self._is_over():
                break
        if "waiting" in self.state.state and "terminated" in self.state.last_state:
            self.state.state = self.state.last_state
        self._changed()

    def _is_over(self) -> bool:
        code = self.state.exit_code
        return code is not None and not restarts(self._policy, self.state.role, code)

    async def stop(self, grace: float) -> None:
        """Do not start it again, and end what runs within `grace` seconds."""
        self._stopping.set()
        if self.run_now is not None:
            if self.run_now.ending is not None:  # a probe's kill is under way, maybe with a longer grace
                self.kill_after(grace)
            await self._end(self.run_now, grace)

    def kill_after(self, seconds: float) -> None:
        """SIGKILL what runs `seconds` from now: a deletion that became more urgent."""
        if self.run_now is not None:
            process = self.run_now.process
            asyncio.get_running_loop().call_later(seconds, process.signal, signal.SIGKILL)

    async def _wait_to_restart(self) -> bool:
        """Wait for the back-off; False when stopped meanwhile."""
        delay = self._back_off.delay(self._ran_for)
        if delay:
            where = f"{name_of(self._context.pod)}_{namespace_of(self._context.pod)}"
            what = f"container {self.spec['name']} in pod {where}({uid_of(self._context.pod)})"
            self._event("BackOff", f"Back-off restarting failed {what}", warning=True)
            if "terminated" in self.state.state:
                self.state.last_state = self.state.state
            message = f"back-off {delay:g}s restarting failed {what}"
            self._wait_because("CrashLoopBackOff", message)
            if await self._stopped_within(delay):
                return False
        if "terminated" in self.state.state:
            self.state.last_state = self.state.state
        self.state.restart_count += 1
        return True

    async def _start(self) -> Run | None:
        """Start a run; None when it was stopped before, or could not be started (then `state` says so)."""
        plan = await self._plan()
        if plan is None:
            return None
        number = self.state.restart_count
        self._forget_log(number - 2)
        try:
            return start_run(plan, self._context.log(self.spec["name"], number))
        except StartError as error:
            self._ran_for = 0.0
            self._event("Failed", f"Error: {error}", warning=True)
            self._ended(timestamp(utcnow()), _START_ERROR_CODE, "StartError", str(error))
            return None

    async def _plan(self) -> Plan | None:
        """What to run, as soon as all it refers to is there; None when stopped before."""
        failures = 0
        while True:
            try:
                return await plan_run(self.spec, self._context)
            except EnvironmentResolutionError as error:
                self._event("Failed", f"Error: {error}", warning=True)
                self._wait_because("CreateContainerConfigError", str(error))
            except CommandMissingError as error:
                self._event("CommandRequired", str(error), warning=True)
                self._wait_because("CommandRequired", str(error))
                await self._stopping.wait()  # a pod's command never changes
            except (ApiError, ApiUnavailableError) as error:
                self._wait_because("ContainerCreating", f"asking the API server: {error}")
            delay = _CONFIG_RETRY_SECONDS[min(failures, len(_CONFIG_RETRY_SECONDS) - 1)]
            if await self._stopped_within(delay):
                return None
            failures += 1

    async def _attend(self, run: Run) -> None:
        """Watch over a run until it has ended."""
        self.run_now = run
        pid = run.process.pid
        self.state.container_id = f"process://{pid}-{run.started_at}"
        name = self.spec["name"]
        self._event("Started", f"Started container {name} as local process {pid} (its image is not used)")
        self.state.state = {"running": {"startedAt": run.started_at}}
        self._changed()
        minding = asyncio.create_task(self._mind())
        if self._stopping.is_set():  # stopped while it was being started
            await self._end(run, 0)
        code = await run.process.wait()
        minding.cancel()
        await asyncio.wait({minding})
        run.log.close()
        self.run_now = None
        self._ran_for = time.monotonic() - run.began
        message = None
        if code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            message = tail_of(run.log.path, lines=_MESSAGE_LINES, size=_MESSAGE_BYTES)
        self._ended(run.started_at, code, "Error" if code else "Completed", message)

    async def _mind(self) -> None:
        """Run the postStart hook and then the probes."""
        hook = self.spec.get("lifecycle", {}).get("postStart")
        if hook:
            outcome = await run_handler(hook, self, 3600)
            if not outcome.healthy:
                message = f"PostStartHook failed: {outcome.message}"
                self._event("FailedPostStartHook", message, warning=True)
                await self._kill("FailedPostStartHook", {})
                return
        prober = Prober(
            self.spec,
            self,
            on_health=self._on_health,
            on_failure=lambda message: self._event("Unhealthy", message, warning=True),
            kill=self._kill,
        )
        await prober.run()

    def _on_health(self, kind: str, healthy: bool) -> None:
        if kind == STARTUP:
            self.state.started = healthy
            self.started.set()
        else:
            if self.state.ready == healthy:
                return
            self.state.ready = healthy
        self._changed()

    async def _kill(self, message: str, probe: Json) -> None:
        """End the run so that the policy can restart it."""
        self._event("Killing", f"{message}, will be restarted")
        own = self._context.pod["spec"].get("terminationGracePeriodSeconds", 30)
        if self.run_now is not None:
            await self._end(self.run_now, probe.get("terminationGracePeriodSeconds", own))

    async def _end(self, run: Run, grace: float) -> None:
        """The preStop hook, SIGTERM, and SIGKILL once the grace (the first caller's) is used up."""
        if run.ending is None:
            run.ending = asyncio.create_task(self._end_once(run, grace))
        await asyncio.shield(run.ending)

    async def _end_once(self, run: Run, grace: float) -> None:
        deadline = time.monotonic() + grace
        hook = self.spec.get("lifecycle", {}).get("preStop")
        if hook and grace > 0:
            gone = asyncio.create_task(run.process.wait())
            hooked = asyncio.create_task(run_handler(hook, self, grace))
            await asyncio.wait({gone, hooked}, return_when=asyncio.FIRST_COMPLETED)
            if hooked.done() and not hooked.result().healthy:
                message = f"PreStopHook failed: {hooked.result().message}"
                self._event("FailedPreStopHook", message, warning=True)
            for task in (gone, hooked):
                task.cancel()
        await run.process.stop(max(0.0, deadline - time.monotonic()))

    def _ended(self, started_at: str, code: int, reason: str, message: str | None) -> None:
        self.state.ready = self.state.role is Role.INIT and code == 0
        self.state.started = False
        self.started.clear()
        terminated = {
            "exitCode": code,
            "reason": reason,
            "startedAt": started_at,
            "finishedAt": timestamp(utcnow()),
            **({"containerID": self.state.container_id} if self.state.container_id else {}),
            **({"message": message} if message else {}),
        }
        self.state.state = {"terminated": terminated}
        self._changed()

    def _wait_because(self, reason: str, message: str) -> None:
        self.state.state = {"waiting": {"reason": reason, "message": message}}
        self._changed()

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    def _forget_log(self, run: int) -> None:
        path = self._context.log(self.spec["name"], run)
        path.unlink(missing_ok=True)
        path.with_suffix(".log.1").unlink(missing_ok=True)

    def _event(self, reason: str, message: str, *, warning: bool = False) -> None:
        events = self._context.node.events
        record = events.warning if warning else events.normal
        field_path = f"spec.{_FIELD_PATHS[self.state.role]}{{{self.spec['name']}}}"
        record(self._context.pod, reason, message, field_path=field_path)
