"""`shadowfault verify`: a table or JSON on stdout, logs as JSON on stderr, the verdict in the exit status."""

from __future__ import annotations

import json
import signal
import sys
from enum import StrEnum
from threading import Event
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from shadowfault_api.logs import log_to_stderr
from shadowfault_api.settings import SettingsError, load_settings
from shadowfault_api.verifier.errors import VerificationError
from shadowfault_api.verifier.run import VerifierOptions, verify_stores

if TYPE_CHECKING:
    from shadowfault_api.verifier.report import VerifierReport

EXIT_CLEAN: Final = 0
EXIT_DISCREPANCIES: Final = 1
EXIT_NOT_VERIFIED: Final = 2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Output(StrEnum):
    """How the report is printed."""

    TABLE = "table"
    JSON = "json"


class StartedBy(StrEnum):
    """What is entered in `job_runs`."""

    CLI = "cli"
    SCHEDULE = "schedule"


@app.command()
def verify_command(
    output: Annotated[
        Output, typer.Option("--output", "-o", help="table, or json on one line.")
    ] = Output.TABLE,
    exit_zero: Annotated[
        bool,
        typer.Option(
            "--exit-zero",
            help="Exit 0 with discrepancies too: for a CronJob, whose Job would count as failed. 2 stays 2.",
        ),
    ] = False,
    trigger: Annotated[
        StartedBy, typer.Option(help="What the list of runs shows; a CronJob says schedule.")
    ] = StartedBy.CLI,
    chunk_size: Annotated[
        int, typer.Option(min=1, max=10_000, help="Rows read at a time from each store.")
    ] = 1000,
    statement_timeout: Annotated[
        float, typer.Option(min=0.01, max=3600, help="Limit of one statement, in seconds.")
    ] = 30.0,
) -> None:
    """Compare primary and shadow, and record every discrepancy as evidence.

    The databases are those of DATABASE_URL and SHADOW_DATABASE_URL.

    Exits 0 when no discrepancy is open, 1 when one is, 2 when the stores could not be compared.
    """
    stopping = Event()
    # A pod that is deleted gets SIGTERM: the run ends between two statements and is entered as failed.
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    options = VerifierOptions(chunk_size=chunk_size, statement_seconds=statement_timeout, stopping=stopping)
    report = _verify(trigger, options)
    if output is Output.JSON:
        sys.stdout.write(json.dumps(report.as_dict()) + "\n")
    else:
        _print_table(report)
    raise typer.Exit(EXIT_CLEAN if report.clean or exit_zero else EXIT_DISCREPANCIES)


def main() -> None:
    """Run the command with the arguments of the process."""
    app()


def _verify(trigger: StartedBy, options: VerifierOptions) -> VerifierReport:
    try:
        settings = load_settings()
    except SettingsError as error:
        raise _not_verified(str(error)) from None
    log_to_stderr(settings.log_level)
    try:
        return verify_stores(
            settings.database_url.get_secret_value(),
            settings.shadow_database_url.get_secret_value(),
            trigger=trigger.value,
            options=options,
        )
    except VerificationError as error:
        raise _not_verified(f"could not verify: {error}") from None


def _not_verified(message: str) -> typer.Exit:
    sys.stderr.write(f"{message}\n")
    return typer.Exit(EXIT_NOT_VERIFIED)


def _print_table(report: VerifierReport) -> None:
    console = Console(file=sys.stdout, highlight=False)
    table = Table(title=f"{report.entity_type}: primary and shadow", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("count", justify="right")
    for name, value in (
        ("rows in primary", report.scanned_primary),
        ("rows in shadow", report.scanned_shadow),
        ("left out, in flight", report.in_flight),
        ("new discrepancies", report.new),
        ("persisting", report.persisting),
        ("resolved", report.resolved),
    ):
        table.add_row(name, str(value))
    table.add_section()
    table.add_row("open now", str(report.open), style="bold red" if report.open else "bold green")
    for label, counts in (("type", report.by_type), ("cause", report.by_cause)):
        for name, value in counts.items():
            table.add_row(f"  {label} {name}", str(value))
    console.print(table)
    console.print(f"run {report.run_id}, {report.duration_seconds:.2f} s", style="dim", soft_wrap=True)


if __name__ == "__main__":
    main()
