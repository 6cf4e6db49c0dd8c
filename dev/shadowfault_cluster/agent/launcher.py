"""Starts a run of a container: gathers what its environment refers to, opens its log, starts its process."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shadowfault_cluster.agent import environment as env
from shadowfault_cluster.agent.api import ApiError
from shadowfault_cluster.agent.logs import ContainerLog
from shadowfault_cluster.agent.objects import Json, namespace_of, timestamp, utcnow
from shadowfault_cluster.agent.process import Process, StartError, Surroundings

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from shadowfault_cluster.agent.context import PodContext


class CommandMissingError(Exception):
    """The container relies on its image's command, and there are no images."""


@dataclass
class Run:
    """A running process with what it was started with. `began` is on the monotonic clock."""

    process: Process
    log: ContainerLog
    surroundings: Surroundings
    started_at: str
    began: float = field(default_factory=time.monotonic)
    ending: asyncio.Task[None] | None = None


@dataclass(frozen=True)
class Plan:
    """Everything a run needs, resolved."""

    command: list[str]
    surroundings: Surroundings


async def plan_run(spec: Json, context: PodContext) -> Plan:
    """Resolve the environment and the command line of a container.

    Raises EnvironmentResolutionError (something it refers to is missing),
    CommandMissingError, ApiError, ApiUnavailableError.
    """
    declared = env.resolve(spec, await _sources(spec, context))
    command = env.command_line(spec, declared)
    if not command:
        raise CommandMissingError(
            "there are no images here: a container needs a command to run as a local process"
        )
    # An absolute workingDir replaces the home, a relative one is below it.
    directory = context.home / spec.get("workingDir", "")
    return Plan(command, Surroundings(context.environment(declared), directory))


async def _sources(spec: Json, context: PodContext) -> env.Sources:
    node = context.node
    namespace = namespace_of(context.pod)
    objects: dict[tuple[str, str], Json | None] = {}
    for kind, name in sorted(env.referenced_objects(spec)):
        plural = "configmaps" if kind == env.CONFIG_MAP else "secrets"
        try:
            objects[kind, name] = await node.client.get(f"/api/v1/namespaces/{namespace}/{plural}/{name}")
        except ApiError as error:
            if error.code != 404:
                raise
            objects[kind, name] = None
    return env.Sources(
        pod=context.pod,
        pod_ip=context.ip,
        host_ip=node.config.host_ip,
        allocatable=node.allocatable,
        services=node.services(),
        objects=objects,
    )


def start_run(plan: Plan, log_path: Path) -> Run:
    """Start the process, its output going to `log_path`. Raises StartError."""
    log = ContainerLog(log_path)
    started_at = timestamp(utcnow())
    try:
        process = Process.start(plan.command, plan.surroundings, log.feed)
    except StartError:
        log.close()
        raise
    return Run(process, log, plan.surroundings, started_at)
