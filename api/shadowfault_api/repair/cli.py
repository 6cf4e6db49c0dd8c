"""`shadowfault repair`: a table or JSON on stdout, logs as JSON on stderr, the verdict in the exit status."""

from __future__ import annotations

import json
import re
import signal
import sys
from threading import Event
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from shadowfault_api.logs import log_to_stderr
from shadowfault_api.repair.run import LARGEST_LIMIT, RepairOptions, RepairReport, repair_stores
from shadowfault_api.repair.selection import Selection
from shadowfault_api.settings import SettingsError, load_settings
from shadowfault_api.verifier.cli import Output
from shadowfault_api.verifier.errors import VerificationError
from shadowfault_api.verifier.model import LISTING_ENTITY, DiscrepancyType

EXIT_SETTLED: Final = 0
EXIT_LEFT: Final = 1
EXIT_NOT_DONE: Final = 2
_KEY: Final = re.compile(r"[A-Za-z0-9._:-]{1,36}")
_LINES: Final = 50

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def repair_command(  # noqa: PLR0913, PLR0917 - an option is an argument
    discrepancy: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="A discrepancy. May be given more than once.")
    ] = None,
    evidence: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="An evidence record of a failure or a discrepancy. Likewise."),
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="ID", help="What this run of the verifier found.")
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help=f"A {LISTING_ENTITY.entity_type}. May be given more than once."),
    ] = None,
    of_type: Annotated[
        DiscrepancyType | None, typer.Option("--type", help="All open discrepancies of this type.")
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Only what comes after this id, where an earlier repair stopped."),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write; without it nothing is written.")] = False,
    delete_unexplained: Annotated[
        bool,
        typer.Option(
            "--delete-unexplained",
            help="Also make tombstones for rows that only the shadow has and whose delete is not on record. "
            "The primary may have lost them, and the shadow may hold the last copy.",
        ),
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=LARGEST_LIMIT, help="Maximum number of keys.")] = 1000,
    batch_size: Annotated[
        int, typer.Option(min=1, max=1000, help="Rows written to the shadow in one transaction.")
    ] = 100,
    rows_per_second: Annotated[
        float | None, typer.Option(min=0.01, help="Maximum keys per second, over the whole repair.")
    ] = None,
    statement_timeout: Annotated[
        float, typer.Option(min=0.01, max=3600, help="Maximum time of one statement, in seconds.")
    ] = 30.0,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="table, or json on one line.")
    ] = Output.TABLE,
) -> None:
    """Copy chosen discrepancies from the primary to the shadow again. A dry run without --apply.

    The databases are those of DATABASE_URL and SHADOW_DATABASE_URL.

    Exits 0 when nothing chosen is left to do (in a dry run: would be), 1 when something is, 2 when it could
    not be done.
    """
    selection = Selection(
        discrepancies=tuple(discrepancy or ()),
        evidence=tuple(evidence or ()),
        run=run,
        keys=tuple(key or ()),
        discrepancy_type=of_type,
        after=after or "",
    )
    if selection.empty:
        raise typer.BadParameter("choose something: --discrepancy, --evidence, --run, --key or --type")
    for one in selection.keys:
        if not _KEY.fullmatch(one):
            raise typer.BadParameter("an id has 1 to 36 letters, digits or . _ : -", param_hint="--key")
    stopping = Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    options = RepairOptions(
        apply=apply,
        delete_unexplained=delete_unexplained,
        limit=limit,
        batch_size=batch_size,
        rows_per_second=rows_per_second,
        statement_seconds=statement_timeout,
        stopping=stopping,
    )
    report = _repair(selection, options)
    if output is Output.JSON:
        sys.stdout.write(json.dumps(report.as_dict()) + "\n")
    else:
        _print(report)
    raise typer.Exit(EXIT_SETTLED if report.settled else EXIT_LEFT)


def _repair(selection: Selection, options: RepairOptions) -> RepairReport:
    try:
        settings = load_settings()
    except SettingsError as error:
        raise _not_done(str(error)) from None
    log_to_stderr(settings.log_level)
    try:
        return repair_stores(
            settings.database_url.get_secret_value(),
            settings.shadow_database_url.get_secret_value(),
            selection,
            options=options,
        )
    except VerificationError as error:
        raise _not_done(f"could not repair: {error}") from None


def _not_done(message: str) -> typer.Exit:
    sys.stderr.write(f"{message}\n")
    return typer.Exit(EXIT_NOT_DONE)


def _print(report: RepairReport) -> None:
    console = Console(file=sys.stdout, highlight=False)
    table = Table(title=f"{report.entity_type}: primary to shadow", title_justify="left")
    for name in ("id", "differs", "primary", "shadow", "outcome"):
        table.add_column(name, overflow="fold")
    for item in report.items[:_LINES]:
        seen = item.found.difference if item.found else None
        versions = (seen.primary_version, seen.shadow_version) if seen else (None, None)
        table.add_row(
            item.key,
            seen.discrepancy_type.value if seen else "-",
            *("-" if version is None else str(version) for version in versions),
            item.outcome.value,
        )
    console.print(table)
    if len(report.items) > _LINES:
        console.print(f"... and {len(report.items) - _LINES} more: --output json has them all")
    counts = ", ".join(f"{name} {count}" for name, count in report.counts.items())
    console.print(counts or "nothing was chosen: no open discrepancy is of this kind", soft_wrap=True)
    if report.more:
        console.print(
            f"the limit was reached: --after {report.last} goes on from here, --limit allows more",
            soft_wrap=True,
        )
    if not report.applied:
        console.print("dry run: nothing was written; add --apply to write", style="bold", soft_wrap=True)
    console.print(f"repair {report.repair_id}", style="dim", soft_wrap=True)
