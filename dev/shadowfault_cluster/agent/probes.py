"""Probes: what they ask, how often, and what follows from the answers."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

    from shadowfault_cluster.agent.objects import Json

STARTUP, READINESS, LIVENESS = "startupProbe", "readinessProbe", "livenessProbe"
_TITLES = {STARTUP: "Startup", READINESS: "Readiness", LIVENESS: "Liveness"}
# Pauses between the extra attempts of the first period, see Schedule.
_EARLY_SECONDS = (0.05, 0.1, 0.2, 0.4)
_USER_AGENT = "kube-probe/1.34"


@dataclass(frozen=True)
class Outcome:
    """What one attempt found. `message` says why it failed."""

    healthy: bool
    message: str = ""


class Target(Protocol):
    """What a handler is run against: one running container."""

    @property
    def pod_ip(self) -> str:
        """The address to ask when the handler names none."""

    @property
    def http(self) -> aiohttp.ClientSession:
        """A session that keeps no connections and verifies no certificates (probes never do)."""

    def port(self, name: int | str) -> int:
        """The number of a port given by number or by name. Raises ValueError."""

    async def execute(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command in the container; returns its exit code and the beginning of its output."""


def probe_session() -> aiohttp.ClientSession:
    """A session as Target.http wants it."""
    connector = aiohttp.TCPConnector(ssl=False, force_close=True, limit=0)
    return aiohttp.ClientSession(connector=connector, trust_env=False)


async def run_handler(handler: Json, target: Target, timeout_seconds: float) -> Outcome:
    """Run the httpGet, tcpSocket, exec or sleep of a probe or a lifecycle hook, once."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _run_once(handler, target)
    except TimeoutError:
        return Outcome(healthy=False, message=f"no answer within {timeout_seconds:g} s")
    except aiohttp.ClientConnectorError as error:
        where = f"{error.host}:{error.port}"
        return Outcome(healthy=False, message=f"connect to {where}: {os.strerror(error.errno or 0)}")
    except (OSError, ValueError, aiohttp.ClientError) as error:
        return Outcome(healthy=False, message=str(error) or type(error).__name__)


async def _run_once(handler: Json, target: Target) -> Outcome:
    if "httpGet" in handler:
        return await _http_get(handler["httpGet"], target)
    if "tcpSocket" in handler:
        return await _tcp_socket(handler["tcpSocket"], target)
    if "exec" in handler:
        code, output = await target.execute(handler["exec"].get("command") or [])
        return Outcome(code == 0, f"command exited with {code}: {output.strip()}")
    if "sleep" in handler:
        await asyncio.sleep(handler["sleep"]["seconds"])
    return Outcome(healthy=True)


async def _http_get(action: Json, target: Target) -> Outcome:
    host = action.get("host") or target.pod_ip
    path = action.get("path") or "/"
    scheme = action.get("scheme", "HTTP").lower()
    url = f"{scheme}://{host}:{target.port(action['port'])}{path if path.startswith('/') else f'/{path}'}"
    headers = {"User-Agent": _USER_AGENT, "Accept": "*/*"}
    headers |= {entry["name"]: entry["value"] for entry in action.get("httpHeaders") or []}
    async with target.http.get(url, headers=headers, allow_redirects=False) as response:
        healthy = 200 <= response.status < 400
        return Outcome(healthy, "" if healthy else f"HTTP probe failed with statuscode: {response.status}")


async def _tcp_socket(action: Json, target: Target) -> Outcome:
    host = action.get("host") or target.pod_ip
    _, writer = await asyncio.open_connection(host, target.port(action["port"]))
    writer.close()
    return Outcome(healthy=True)


def resolve_port(name: int | str, ports: Sequence[Mapping[str, object]]) -> int:
    """The number of a container port given by number or by name. Raises ValueError."""
    if isinstance(name, int) or name.isdecimal():
        return int(name)
    for port in ports:
        if port.get("name") == name:
            return int(str(port["containerPort"]))
    raise ValueError(f"the container has no port named {name!r}")


@dataclass
class Threshold:
    """Turns outcomes into a verdict, after successThreshold or failureThreshold of the same in a row."""

    successes: int
    failures: int
    verdict: bool | None
    _last: bool | None = None
    _run: int = 0

    def feed(self, *, healthy: bool) -> bool | None:
        """Take one outcome and return the verdict that now holds."""
        self._run = self._run + 1 if healthy == self._last else 1
        self._last = healthy
        if self._run >= (self.successes if healthy else self.failures):
            self.verdict = healthy
        return self.verdict


class Schedule:
    """When to probe: the kubelet's timing, with one difference.

    The first attempt comes one period after the start, or after
    initialDelaySeconds if that is longer (with a kubelet, somewhere within the
    first period). An `eager` probe (startup and readiness) is tried in between
    too until it succeeds, so that a container that is up after 0.2 s need not
    wait for the end of the period. A failure of such an extra attempt does not
    count towards failureThreshold.
    """

    def __init__(self, probe: Json, *, eager: bool) -> None:
        """Start the clock: the container has just been started."""
        self._time = asyncio.get_running_loop().time
        self._period = float(probe.get("periodSeconds", 10))
        delay = float(probe.get("initialDelaySeconds", 0))
        begin = self._time()
        self._due = begin + max(delay, self._period)
        self._extra = iter(_extra_attempts(begin + delay, self._due)) if eager else iter(())

    async def next(self, *, healthy: bool) -> bool:
        """Wait for the next attempt, given what the last found; returns whether a failure of it counts."""
        now = self._time()
        moment = None if healthy else next((moment for moment in self._extra if moment >= now), None)
        if moment is not None:
            await asyncio.sleep(moment - now)
            return False
        self._extra = iter(())
        await asyncio.sleep(max(0.0, self._due - now))
        # A slow answer delays the next attempt, it does not pile them up.
        self._due = max(self._due + self._period, self._time())
        return True


def _extra_attempts(begin: float, end: float) -> Iterator[float]:
    """The moments from `begin` on and before `end`, ever further apart."""
    moment, tried = begin + _EARLY_SECONDS[0], 0
    while moment < end:
        yield moment
        tried = min(tried + 1, len(_EARLY_SECONDS) - 1)
        moment += _EARLY_SECONDS[tried]


class Prober:
    """Runs the probes of one run of one container, from its start until cancelled."""

    def __init__(
        self,
        container: Json,
        target: Target,
        *,
        on_health: Callable[[str, bool], None],
        on_failure: Callable[[str], None],
        kill: Callable[[str, Json], Awaitable[None]],
    ) -> None:
        """`on_health(STARTUP | READINESS, verdict)`, `on_failure(message)` for each failure that counts.

        `kill(message, probe)` is awaited when the container has to be restarted.
        """
        self._container = container
        self._target = target
        self._on_health = on_health
        self._on_failure = on_failure
        self._kill = kill

    async def run(self) -> None:
        """Startup first, then readiness and liveness side by side."""
        if not await self._startup():
            return
        self._on_health(STARTUP, True)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._readiness())
            group.create_task(self._liveness())

    async def _startup(self) -> bool:
        async for verdict in self._verdicts(STARTUP, initial=None):
            if verdict is not None:
                return verdict
        return True

    async def _readiness(self) -> None:
        if self._probe(READINESS) is None:
            self._on_health(READINESS, True)
        async for verdict in self._verdicts(READINESS, initial=False):
            self._on_health(READINESS, bool(verdict))

    async def _liveness(self) -> None:
        async for verdict in self._verdicts(LIVENESS, initial=True):
            if verdict is False:
                return

    def _probe(self, kind: str) -> Json | None:
        probe: Json | None = self._container.get(kind)
        return None if probe is None or "grpc" in probe else probe

    async def _verdicts(self, kind: str, *, initial: bool | None) -> AsyncIterator[bool | None]:
        probe = self._probe(kind)
        if probe is None:
            return
        threshold = Threshold(probe.get("successThreshold", 1), probe.get("failureThreshold", 3), initial)
        schedule = Schedule(probe, eager=kind != LIVENESS)
        healthy = False
        while True:
            counts = await schedule.next(healthy=healthy)
            outcome = await run_handler(probe, self._target, probe.get("timeoutSeconds", 1))
            healthy = outcome.healthy
            if not healthy and not counts:
                continue
            verdict = threshold.feed(healthy=outcome.healthy)
            if not outcome.healthy:
                self._on_failure(f"{_TITLES[kind]} probe failed: {outcome.message}")
            if verdict is False and kind != READINESS:
                message = f"Container {self._container['name']} failed {_TITLES[kind].lower()} probe"
                await self._kill(message, probe)
            yield verdict
