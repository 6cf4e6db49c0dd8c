"""`shadowfault evidence`: seal, verify, export, prune."""

from __future__ import annotations

import json
import logging
import signal
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotation
from typing import TYPE_CHECKING, Annotated, Final

import typer
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from shadowfault_api.evidence.audit import Selection, export_lines, verify_database
from shadowfault_api.evidence.document import NotAnExportError, verify_lines
from shadowfault_api.evidence.record import EventType  # noqa: TC001 - typer reads the annotation
from shadowfault_api.evidence.retention import RetentionError, prune
from shadowfault_api.evidence.sealer import ChainError, Sealer
from shadowfault_api.evidence.sealing import Sealing, signer_of
from shadowfault_api.evidence.signing import KeyFileError, load_verifier
from shadowfault_api.evidence.verification import Expectations
from shadowfault_api.logs import configure_logging
from shadowfault_api.settings import Settings, SettingsError, evidence_url, load_settings
from shadowfault_api.store.urls import create_sync_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import Engine

    from shadowfault_api.evidence.report import Report
    from shadowfault_api.evidence.retention import Month

EXIT_INTACT: Final = 0
EXIT_BROKEN: Final = 1
EXIT_NOT_DONE: Final = 2
_HEAD_LENGTH: Final = 64

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


class Output(StrEnum):
    """How a report is printed."""

    TEXT = "text"
    JSON = "json"


@app.callback()
def evidence() -> None:
    """The evidence in the primary database: EVIDENCE_DATABASE_URL, or else DATABASE_URL."""


@app.command("seal")
def seal_command(
    watch: Annotated[bool, typer.Option("--watch", help="Go on until SIGTERM.")] = False,
) -> None:
    """Seal what no transaction can add to any more. The service does it too, unless EVIDENCE_SEAL_SECONDS=0.

    Exits 0 when done, 2 when it could not be done.
    """
    with _opened() as (settings, engine):
        signer = signer_of(settings)
        if watch:
            sealing = Sealing(engine, signer, settings.evidence_seal_seconds or 0.2)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: sealing.request_stop())
            sealing.run()
            return
        sealer = Sealer(engine, signer)
        sealer.prepare_months()
        try:
            seals = sealer.seal_all()
        except ChainError as error:
            raise _not_done(f"could not seal: {error}") from None
    records = sum(seal.size for seal in seals)
    signed = "signed" if signer else "not signed: EVIDENCE_SIGNING_KEY_FILE is not set"
    typer.echo(f"sealed {records} records in {len(seals)} seals ({signed})")


@app.command("verify")
def verify_command(  # noqa: PLR0913, PLR0917 - an option is an argument
    file: Annotated[
        Path | None, typer.Option(help="An export, '-' for stdin. Default: the database.", allow_dash=True)
    ] = None,
    public_key: Annotated[
        list[Path] | None,
        typer.Option(
            help="PEM; every seal must be signed by one of these keys. May be given more than once."
        ),
    ] = None,
    signed_from: Annotated[
        int, typer.Option(min=1, help="With --public-key: the first seal that must be signed.")
    ] = 1,
    expect_head: Annotated[
        list[str] | None,
        typer.Option(
            help="A head noted down earlier, which must be in the chain. May be given more than once."
        ),
    ] = None,
    at_least: Annotated[int, typer.Option(min=0, help="The newest seal must have this number or more.")] = 0,
    whole: Annotated[
        bool, typer.Option("--whole", help="With --file: it must cover all evidence, from the first seal on.")
    ] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json.")] = Output.TEXT,
) -> None:
    """Find every record or seal that was changed, removed, inserted or moved, and name it.

    Only --expect-head or --at-least can tell that the newest seals were cut off, only --expect-head or
    --public-key that the whole chain was made anew, and only --whole that an export was narrowed down.

    Exits 0 intact, 1 broken, 2 could not verify.
    """
    for head in expect_head or ():
        if len(head) != _HEAD_LENGTH:
            raise typer.BadParameter("a head has 64 hex digits", param_hint="--expect-head")
    try:
        keys = tuple(load_verifier(path) for path in public_key or ())
    except KeyFileError as error:
        raise _not_done(f"could not verify: {error}") from None
    expectations = Expectations(
        frozenset(head.lower() for head in expect_head or ()), at_least, keys, signed_from, whole
    )
    report = _verified_file(file, expectations) if file else _verified_database(expectations)
    if output is Output.JSON:
        typer.echo(json.dumps(report.as_dict()))
    else:
        _print(report)
    raise typer.Exit(EXIT_INTACT if report.intact else EXIT_BROKEN)


@app.command("export")
def export_command(
    output: Annotated[str, typer.Option("--output", "-o", help="The file; '-' is stdout.")] = "-",
    since: Annotated[
        str | None,
        typer.Option(help="Seals with a record at or after this time: 2026-01-31[T12:00:00], UTC."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Seals with a record before this time.")] = None,
    event_type: Annotated[
        list[EventType] | None, typer.Option(help="Export only these records; of the others only the hash.")
    ] = None,
) -> None:
    """Write evidence and its seals as JSON Lines, to be verified without a database: see docs/evidence.md.

    Exits 0 when done, 2 when it could not be done.
    """
    types = frozenset(item.value for item in event_type) if event_type else None
    selection = Selection(_moment(since, "--since"), _moment(until, "--until"), types)
    with _opened() as (_settings, engine), _target(output) as write:
        for line in export_lines(engine, selection):
            write(line)


@app.command("prune")
def prune_command(
    before: Annotated[str, typer.Option(help="Remove whole months that end by then: 2026-01-31.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove the records of whole, sealed months. Seals and leaves stay, and evidence says what was removed.

    Takes the role that owns the tables. Exits 0 when done, 2 when it could not be done.
    """
    moment = _moment(before, "--before")
    if moment is None:  # pragma: no cover - it is required
        raise typer.BadParameter("must be a time", param_hint="--before")
    with _opened() as (_settings, engine):
        try:
            months = prune(engine, moment, dry_run=dry_run)
        except RetentionError as error:
            _print_removed(error.removed, dry_run=dry_run)
            raise _not_done(str(error)) from None
    _print_removed(months, dry_run=dry_run)
    if not months:
        typer.echo("nothing to remove")


def _print_removed(months: Iterable[Month], *, dry_run: bool) -> None:
    for month in months:
        typer.echo(f"{month.name}: {month.records} records {'would be ' if dry_run else ''}removed")


def _verified_file(file: Path, expectations: Expectations) -> Report:
    try:
        if str(file) == "-":
            return verify_lines(sys.stdin, expectations)
        with file.open(encoding="utf-8") as lines:
            return verify_lines(lines, expectations)
    except OSError as error:
        raise _not_done(f"could not verify: cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _not_done(f"could not verify: {file} is not UTF-8") from None
    except NotAnExportError as error:
        raise _not_done(f"could not verify: {error}") from None


def _verified_database(expectations: Expectations) -> Report:
    with _opened() as (_settings, engine):
        return verify_database(engine, expectations)


@contextmanager
def _opened() -> Iterator[tuple[Settings, Engine]]:
    try:
        settings = load_settings()
    except SettingsError as error:
        raise _not_done(str(error)) from None
    configure_logging(settings.log_level)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    engine = create_sync_engine(evidence_url(settings), timeout_seconds=settings.database_timeout_seconds)
    try:
        yield settings, engine
    except KeyFileError as error:
        raise _not_done(str(error)) from None
    except SQLAlchemyError as error:
        raise _not_done(_reason(error)) from None
    finally:
        engine.dispose()


def _reason(error: SQLAlchemyError) -> str:
    """Say what failed without the message, which may quote a row."""
    original = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorname", None)
    advice = {
        "42501": "this role may not do that, see `shadowfault db grant --help`",
        "42P01": "its schema is older than this program, run `shadowfault db migrate`",
    }.get(str(state), "is it there, and at the schema of this version (`shadowfault db migrate`)?")
    return f"the evidence database failed: {type(original).__name__}, {state or 'no code'}: {advice}"


def _not_done(message: str) -> typer.Exit:
    sys.stderr.write(f"{message}\n")
    return typer.Exit(EXIT_NOT_DONE)


@contextmanager
def _target(output: str) -> Iterator[Callable[[str], object]]:
    if output == "-":
        yield sys.stdout.write
        return
    try:
        with open(output, "w", encoding="utf-8") as file:  # noqa: PTH123 - '-' was taken care of
            yield file.write
    except OSError as error:
        raise _not_done(f"cannot write {output}: {error.strerror}") from None


def _moment(written: str | None, option: str) -> datetime | None:
    if written is None:
        return None
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        raise typer.BadParameter(
            "not a time: write 2026-01-31 or 2026-01-31T12:00:00Z", param_hint=option
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _print(report: Report) -> None:
    write = typer.echo
    write(f"{report.seals} seals, {report.records} records sealed, {report.unsealed} not sealed yet")
    if not report.complete:
        write(f"a part of the evidence, by the export's own word: from seal {report.first} on")
    for count, what in (
        (report.pruned, "records pruned, as recorded"),
        (report.unaccounted, "records gone: what would say that they were pruned is not in this part"),
        (report.left_out, "records left out by the export's own choice of types, by its word"),
        (report.signed, "signatures valid"),
        (report.unchecked_signatures, "signatures not checked: give --public-key"),
        (report.unsigned, "seals are not signed"),
    ):
        if count:
            write(f"{count} {what}")
    for finding in report.findings:
        write(f"{finding.kind}: {finding.message}")
    if report.broken > len(report.findings):
        write(f"... and {report.broken - len(report.findings)} more")
    if report.head is not None:
        write(f"newest seal {report.number}, head {report.head}")
    write("intact" if report.intact else f"BROKEN: {report.broken} findings")
