"""The subcommands of `shadowfault`.

Each loads its package when it runs, not before: `shadowfault plan` must not pay
for FastAPI, and must work where only the SDK and this command are installed.
"""

# Imports inside the commands are the point of this module.
# ruff: noqa: PLC0415

from __future__ import annotations

from importlib import import_module, metadata
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Chaos testing of dual writes that a team can leave alone.",
)

# A delegated command parses its own arguments, `--help` included.
_DELEGATED: dict[str, Any] = {
    "add_help_option": False,
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
}


def _delegate(module: str, ctx: typer.Context) -> None:
    subcommand: typer.Typer = import_module(module).app
    subcommand(args=ctx.args, prog_name=ctx.command_path)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"shadowfault {metadata.version('shadowfault')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Chaos testing of dual writes that a team can leave alone."""


@app.command()
def api() -> None:
    """Serve the listings API; settings come from the environment (DATABASE_URL, CHAOS_ENABLED, ...)."""
    from shadowfault_api.main import serve

    raise typer.Exit(serve())


@app.command()
def operator() -> None:
    """Run the ChaosExperiment operator against the cluster of KUBECONFIG or of the pod it runs in."""
    from shadowfault_operator.main import run

    raise typer.Exit(run())


@app.command(**_DELEGATED)
def verify(ctx: typer.Context) -> None:
    """Compare primary and shadow. Exits 0 clean, 1 discrepancies, 2 could not verify."""
    _delegate("shadowfault_api.verifier.cli", ctx)


@app.command(**_DELEGATED)
def repair(ctx: typer.Context) -> None:
    """Copy chosen discrepancies from the primary to the shadow again; a dry run without --apply."""
    _delegate("shadowfault_api.repair.cli", ctx)


@app.command(**_DELEGATED)
def evidence(ctx: typer.Context) -> None:
    """Seal, verify, export and prune the evidence."""
    _delegate("shadowfault_api.evidence.cli", ctx)


@app.command(**_DELEGATED)
def db(ctx: typer.Context) -> None:
    """Migrate both databases, wait for them, or grant rights to roles."""
    _delegate("shadowfault_api.store.cli", ctx)


@app.command(**_DELEGATED)
def halt(ctx: typer.Context) -> None:
    """End every experiment at once and refuse new ones until the halt is lifted."""
    _delegate("shadowfault_operator.halt_cli", ctx)


@app.command(**_DELEGATED)
def drain(ctx: typer.Context) -> None:
    """End every experiment of the cluster and wait until all targets are restored, before an uninstall."""
    _delegate("shadowfault_operator.drain", ctx)


@app.command(**_DELEGATED)
def plan(ctx: typer.Context) -> None:
    """Print in advance which calls or requests a seed makes fail."""
    _delegate("shadowfault_cli.plan", ctx)


@app.command(**_DELEGATED)
def cluster(ctx: typer.Context) -> None:
    """Run a local cluster: the real control plane, pods as local processes."""
    _delegate("shadowfault_cluster.cli", ctx)


@app.command(**_DELEGATED)
def demo(ctx: typer.Context) -> None:
    """Run the main job end to end on a local cluster, checking every promise."""
    _delegate("shadowfault_demo.cli", ctx)
