"""`shadowfault verify`: a table or JSON on stdout, logs as JSON on stderr, the verdict in the exit status."""

from __future__ import annotations

import json
import signal
import sys
from datetime import timedelta
from enum import StrEnum
from threading import Event
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from shadowfault_api.logs import log_to_stderr
from shadowfault_api.settings import SettingsError, load_settings
from shadowfault_api.verifier.durations import parse_duration
from shadowfault_api.verifier.errors import VerificationError
from shadowfault_api.verifier.options import Mode, VerifierOptions
from shadowfault_api.verifier.progress import bar_progress, log_progress
from shadowfault_api.verifier.report import ShardReport
from shadowfault_api.verifier.run import verify_stores
from shadowfault_api.verifier.shards import MOST_SHARDS, Shard, verify_shard

if TYPE_CHECKING:
    from shadowfault_api.settings import Settings
    from shadowfault_api.verifier.report import VerifierReport

_T = TypeVar("_T")

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
def verify_command(  # noqa: PLR0913, PLR0917 - typer: an option is an argument
    output: Annotated[
        Output, typer.Option("--output", "-o", help="table, or json on one line.")
    ] = Output.TABLE,
    exit_zero: Annotated[
        bool,
        typer.Option(
            "--exit-zero",
            help="Exit 0 also with discrepancies, so that a CronJob's Job does not fail. 2 stays 2.",
        ),
    ] = False,
    trigger: Annotated[
        StartedBy, typer.Option(help="Shown in the list of runs; the CronJob sets schedule.")
    ] = StartedBy.CLI,
    mode: Annotated[
        Mode,
        typer.Option(help="full: every row; incremental: what changed, and a piece of a rotating sweep."),
    ] = Mode.FULL,
    full_every: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            help="Time in which incremental passes together look at every row, such as 24h; 0: each pass is "
            "full. Default: VERIFIER_FULL_EVERY_SECONDS.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a sweep that was interrupted.")] = False,
    rows_per_second: Annotated[
        float | None,
        typer.Option(
            min=1, help="Maximum rows per second from each side. Default: VERIFIER_ROWS_PER_SECOND."
        ),
    ] = None,
    shards: Annotated[
        int,
        typer.Option(
            min=1,
            max=MOST_SHARDS,
            help="Number of processes that share a sweep, each with a part of the keys.",
        ),
    ] = 1,
    shard: Annotated[
        int | None,
        typer.Option(
            min=0,
            envvar="JOB_COMPLETION_INDEX",
            help="Number of this process, from 0; an Indexed Job sets it.",
        ),
    ] = None,
    run_id: Annotated[
        str | None,
        typer.Option(
            "--run-id",
            envvar="VERIFIER_RUN_ID",
            help="Any text that the shards of one run have in common, such as the Job's UID.",
        ),
    ] = None,
    chunk_size: Annotated[
        int, typer.Option(min=1, max=10_000, help="Rows that are read from each store at a time.")
    ] = 1000,
    statement_timeout: Annotated[
        float, typer.Option(min=0.01, max=3600, help="Maximum time of one statement, in seconds.")
    ] = 30.0,
) -> None:
    """Compare primary and shadow, and record every discrepancy as evidence.

    The databases are those of DATABASE_URL and SHADOW_DATABASE_URL.

    Exits 0 when no discrepancy is open, 1 when one is, 2 when the stores could not be compared. Of several
    shards only the last one to end exits with 1.
    """
    if resume and mode is Mode.INCREMENTAL:
        raise _not_verified("--resume is for a full pass: an incremental one goes on with its sweep anyway")
    part = None if shards == 1 else _shard(shards, shard, run_id)
    if part is not None and resume:
        raise _not_verified("shards go on by themselves: leave out --resume")
    settings = _settings()
    stopping = Event()
    # A pod that is deleted gets SIGTERM: the run ends between two statements and is entered as failed.
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    options = VerifierOptions(
        mode=mode,
        resume=resume,
        full_every=_first(full_every, timedelta(seconds=settings.verifier_full_every_seconds)),
        rows_per_second=_first(rows_per_second, settings.verifier_rows_per_second),
        chunk_size=chunk_size,
        statement_seconds=statement_timeout,
        stopping=stopping,
        progress=bar_progress if sys.stderr.isatty() else log_progress,
    )
    report = _verify(settings, trigger, options, part)
    if output is Output.JSON:
        sys.stdout.write(json.dumps(report.as_dict()) + "\n")
    elif isinstance(report, ShardReport):
        _print_shard(report)
    else:
        _print_table(report)
    clean = isinstance(report, ShardReport) or report.clean
    raise typer.Exit(EXIT_CLEAN if clean or exit_zero else EXIT_DISCREPANCIES)


def main() -> None:
    """Run the command with the arguments of the process."""
    app()


def _first(given: _T | None, default: _T) -> _T:
    return default if given is None else given


def _settings() -> Settings:
    try:
        settings = load_settings()
    except SettingsError as error:
        raise _not_verified(str(error)) from None
    log_to_stderr(settings.log_level)
    return settings


def _shard(count: int, number: int | None, run_id: str | None) -> Shard:
    if number is None:
        raise _not_verified("which shard is it? --shard, or JOB_COMPLETION_INDEX, which an Indexed Job sets")
    if run_id is None:
        raise _not_verified("which run is it? --run-id, or VERIFIER_RUN_ID, the same for all its shards")
    try:
        return Shard(number, count, run_id)
    except ValueError as error:
        raise _not_verified(str(error)) from None


def _verify(
    settings: Settings, trigger: StartedBy, options: VerifierOptions, shard: Shard | None
) -> VerifierReport | ShardReport:
    urls = (settings.database_url.get_secret_value(), settings.shadow_database_url.get_secret_value())
    try:
        if shard is not None:
            return verify_shard(*urls, shard, trigger=trigger.value, options=options)
        return verify_stores(*urls, trigger=trigger.value, options=options)
    except VerificationError as error:
        raise _not_verified(f"could not verify: {error}") from None


def _not_verified(message: str) -> typer.Exit:
    sys.stderr.write(f"{message}\n")
    return typer.Exit(EXIT_NOT_VERIFIED)


def _print_shard(report: ShardReport) -> None:
    which = f"shard {report.shard} of {report.shards}, run {report.run_id}"
    if report.tally is None:
        sys.stdout.write(f"{which}: nothing was left to do\n")
        return
    tally = report.tally
    sys.stdout.write(
        f"{which}: {tally.primary} rows in primary, {tally.shadow} in shadow, "
        f"{tally.new} new discrepancies, {tally.persisting} persisting, {tally.resolved} resolved\n"
    )


def _print_table(report: VerifierReport) -> None:
    console = Console(file=sys.stdout, highlight=False)
    table = Table(title=f"{report.entity_type}: primary and shadow", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("count", justify="right")
    full = report.mode is Mode.FULL
    for name, value in (
        *(() if report.changed_keys is None else (("changed keys", report.changed_keys),)),
        ("rows in primary" if full else "rows of the sweep in primary", report.scanned_primary),
        ("rows in shadow" if full else "rows of the sweep in shadow", report.scanned_shadow),
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
    console.print(_sweep_line(report), style="dim", soft_wrap=True)
    console.print(f"run {report.run_id}, {report.duration_seconds:.2f} s", style="dim", soft_wrap=True)


def _sweep_line(report: VerifierReport) -> str:
    sweep = report.sweep
    how = "resumed" if sweep.resumed and report.mode is Mode.FULL else "begun"
    stands = "through" if sweep.finished else f"at row {sweep.rows} of about {sweep.estimated}"
    return f"{report.mode.value} pass; sweep {how} {sweep.started_at:%Y-%m-%d %H:%M:%S} UTC, {stands}"


if __name__ == "__main__":
    main()
