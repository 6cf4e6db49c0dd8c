"""`shadowfault cluster`: start, stop and look at local clusters."""

from __future__ import annotations

import json
import shlex
import time
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from shadowfault_cluster import controlplane_build
from shadowfault_cluster.cluster import Cluster, running_clusters
from shadowfault_cluster.errors import ClusterError, ClusterNotFoundError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A real Kubernetes control plane on this machine, with pods as local processes.",
)

Name = Annotated[str, typer.Option("--name", "-n", help="Which cluster; several run side by side.")]


class Output(StrEnum):
    """How `status` prints."""

    TABLE = "table"
    JSON = "json"


@app.command()
def up(name: Name = "dev") -> None:
    """Start a cluster that runs until `down`; the first time, building its control plane takes minutes."""
    began = time.monotonic()
    try:
        controlplane_build.prepare()
        cluster = Cluster.start(name, on_progress=_say, detach=True)
    except ClusterError as error:
        _fail(error)
    except KeyboardInterrupt:
        _say("interrupted; nothing is left running")
        raise typer.Exit(130) from None
    took = time.monotonic() - began
    _say(f"cluster {name} is ready after {took:.1f} s; your own kubeconfig is untouched. To use this one:")
    # The only line on stdout: `eval "$(shadowfault cluster up)"` works.
    typer.echo(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")


@app.command()
def down(name: Name = "dev") -> None:
    """End a cluster: every process of it, and its files. It is no error when there is none."""
    try:
        Cluster.attach(name).stop()
    except ClusterNotFoundError:
        _say(f"no local cluster named {name} is running")
    except ClusterError as error:
        _fail(error)
    else:
        _say(f"cluster {name} has ended")


@app.command()
def status(
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="Only this one; fails if it does not run.")
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o")] = Output.TABLE,
) -> None:
    """List the running clusters, or tell about one."""
    try:
        clusters = [Cluster.attach(name)] if name else running_clusters()
        described = [found for found in map(_describe, clusters) if found is not None]
    except ClusterError as error:
        _fail(error)
    if output is Output.JSON:
        typer.echo(json.dumps(described, indent=2))
        return
    if not described:
        _say("no local cluster is running; `shadowfault cluster up` starts one")
        return
    table = Table("NAME", "STATE", "COMPONENTS", "NETWORK", "KUBECONFIG", box=None, pad_edge=False)
    for entry in described:
        components = ", ".join(
            f"{component} {details['state']}"
            + (f" ({details['restarts']} restarts)" if details["restarts"] else "")
            for component, details in entry["components"].items()
        )
        table.add_row(entry["name"], entry["state"], components, entry["network"], entry["kubeconfig"])
    # A path that is cut or wrapped cannot be copied.
    Console(soft_wrap=True, width=400).print(table)


def _describe(cluster: Cluster) -> dict[str, Any] | None:
    try:
        record, live = cluster.record, cluster.status()
    except (ClusterNotFoundError, OSError, ValueError):
        return None  # it has just ended
    return {
        "name": cluster.name,
        "state": live["state"],
        "network": record.network,
        "apiserver": record.apiserver,
        "kubeconfig": str(cluster.kubeconfig),
        "directory": str(cluster.directory),
        "startedAt": record.started_at,
        "components": live["components"],
    }


def _say(message: str) -> None:
    typer.echo(message, err=True)


def _fail(error: ClusterError) -> NoReturn:
    _say(f"shadowfault: {error}")
    raise typer.Exit(1)
