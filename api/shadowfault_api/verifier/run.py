"""One verification, from the lock to the report."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import URL, Engine

from shadowfault_api.store.urls import create_sync_engine
from shadowfault_api.verifier import runs
from shadowfault_api.verifier.checks import check_databases
from shadowfault_api.verifier.errors import VerificationError
from shadowfault_api.verifier.lock import exclusive
from shadowfault_api.verifier.model import LISTING_ENTITY
from shadowfault_api.verifier.options import VerifierOptions
from shadowfault_api.verifier.pace import Budget
from shadowfault_api.verifier.passes import Pass
from shadowfault_api.verifier.side import Side

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shadowfault_api.verifier.lock import Held
    from shadowfault_api.verifier.report import VerifierReport

Database = Engine | URL | str


def verify_stores(
    primary: Database,
    shadow: Database,
    *,
    trigger: runs.Trigger = "cli",
    run_id: str | None = None,
    options: VerifierOptions | None = None,
) -> VerifierReport:
    """Compare the stores, record what is new and what is resolved, and report. Blocks: run it in a thread.

    Args:
        primary: URL or synchronous engine of the primary server itself, not of a replica.
        shadow: URL or synchronous engine of the shadow; likewise.
        trigger: what started it, for `job_runs`.
        run_id: the run, where the caller has entered it in `job_runs`; entered here otherwise.
        options: kind of pass, sizes and limits.

    Raises:
        VerificationError: the stores could not be compared to the end; what was recorded until then is true.
        DatabaseUrlError: a URL is not one of a database this service runs on.
    """
    chosen = options or VerifierOptions()
    with ExitStack() as stack:
        sides = stack.enter_context(sides_of(primary, shadow, chosen))
        held = stack.enter_context(exclusive(sides[0]))
        chosen = watched(chosen, held, sides)
        ours = runs.begin(sides[0], trigger, run_id)
        try:
            outcome = Pass(*sides, LISTING_ENTITY, ours, chosen).run()
            report = outcome.report
            with sides[0].writing() as connection:
                runs.succeed(connection, ours, report.entity_type, report.as_dict(), outcome.watermark)
        except BaseException as error:
            # The primary is away: the next run enters this one as abandoned.
            with suppress(VerificationError):
                runs.fail(sides[0], ours, error)
            raise
    return report


@contextmanager
def sides_of(primary: Database, shadow: Database, options: VerifierOptions) -> Iterator[tuple[Side, Side]]:
    """Connect to both databases and check them.

    Raises:
        VerificationError: they cannot be compared as they are.
    """
    with (
        engine_of(primary, options.connect_seconds) as here,
        engine_of(shadow, options.connect_seconds) as there,
    ):
        sides = (
            Side("primary", here, options.statement_seconds, Budget(options.rows_per_second)),
            Side("shadow", there, options.statement_seconds, Budget(options.rows_per_second)),
        )
        check_databases(*sides)
        yield sides


def watched(options: VerifierOptions, held: Held, sides: tuple[Side, Side]) -> VerifierOptions:
    """Have a run look between two looks whether its lock is held, and wait for what it has read."""

    def watch() -> float:
        held.check()
        return max(side.budget.wait() for side in sides)

    return replace(options, watch=watch)


@contextmanager
def engine_of(database: Database, connect_seconds: float) -> Iterator[Engine]:
    """Make the engine of a database, and let go of it; an engine that is given stays the caller's."""
    if isinstance(database, Engine):
        yield database
        return
    engine = create_sync_engine(database, timeout_seconds=connect_seconds)
    try:
        yield engine
    finally:
        engine.dispose()
