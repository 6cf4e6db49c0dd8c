"""`shadowfault db`: the schema of both databases, from a Job or by hand."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer
from sqlalchemy import NullPool, exc

from shadowfault_api.settings import SettingsError, load_settings
from shadowfault_api.store.grants import Duty, GrantError, apply, grants
from shadowfault_api.store.migrate import Database, NewerDatabaseError, is_current, migrate
from shadowfault_api.store.urls import create_sync_engine, database_url

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_FAILED: Final = 1
EXIT_MALFORMED: Final = 2
_PAUSE_SECONDS: Final = 1.0

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

_Which = Annotated[
    list[Database] | None, typer.Option("--database", help="Only this one; may be given twice.")
]
_Wait = Annotated[
    float, typer.Option("--wait", min=0, max=3600, help="How many seconds to try while it does not answer.")
]


@app.callback()
def database() -> None:
    """The schema of the databases of DATABASE_URL and SHADOW_DATABASE_URL."""


@app.command("migrate")
def migrate_command(which: _Which = None, wait: _Wait = 0.0) -> None:
    """Bring the databases to the newest schema; nothing happens to one that is there already.

    Exits 0 when they are, 1 when one could not be brought there, 2 for settings that cannot be used.
    """
    urls = _urls()
    for name in which or list(Database):
        _until_done(name, wait, lambda name=name: migrate(urls[name], name))  # type: ignore[misc]
        typer.echo(f"{name.value}: at the newest schema")


@app.command("wait")
def wait_command(which: _Which = None, wait: _Wait = 60.0) -> None:
    """Wait until somebody has brought the databases to the newest schema. Needs no right but to read.

    Exits 0 when they are, 1 when they are not in time, 2 for settings that cannot be used.
    """
    urls = _urls()
    for name in which or list(Database):
        _until_done(name, wait, lambda name=name: _require_current(urls[name], name))  # type: ignore[misc]
        typer.echo(f"{name.value}: at the newest schema")


@app.command("grant")
def grant_command(
    role: Annotated[str, typer.Argument(help="The role, which must exist.")],
    duty: Annotated[Duty, typer.Option("--for", help="What the role is for.")] = Duty.SERVICE,
    which: _Which = None,
    print_only: Annotated[
        bool, typer.Option("--print", help="Print the statements for schema public, and run nothing.")
    ] = False,
) -> None:
    """Give a role what it needs and no more; evidence it may add to, never change or remove (PostgreSQL).

    Run it as the owner of the tables after `migrate`, and again after each: a new table has no grants yet.

    Exits 0 when done, 1 when a database could not do it, 2 for settings that cannot be used.
    """
    if print_only:
        for name in which or list(Database):
            statements = grants(name, duty, role, "public")
            typer.echo("\n".join([f"-- {name.value} database", *(f"{line};" for line in statements)]))
        return
    urls = _urls()
    for name in which or list(Database):
        if database_url(urls[name]).get_backend_name() != "postgresql":
            sys.stderr.write(
                f"{name.value} database: SQLite has no roles; who may write the file may change it\n"
            )
            raise typer.Exit(EXIT_FAILED)
        done = _granted(urls[name], name, duty, role)
        typer.echo(f"{name.value}: {done} statements run for {role}")


def _granted(url: str, which: Database, duty: Duty, role: str) -> int:
    engine = create_sync_engine(url, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            return len(apply(connection, which, duty, role))
    except (GrantError, exc.SQLAlchemyError) as error:
        raise _failed(which, error) from None
    finally:
        engine.dispose()


class _NotCurrentError(Exception):
    """The schema is not the newest one yet."""


def _require_current(url: str, which: Database) -> None:
    if not is_current(url, which):
        raise _NotCurrentError


def _urls() -> dict[Database, str]:
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(EXIT_MALFORMED) from None
    return {
        Database.PRIMARY: settings.database_url.get_secret_value(),
        Database.SHADOW: settings.shadow_database_url.get_secret_value(),
    }


def _until_done(which: Database, seconds: float, attempt: Callable[[], None]) -> None:
    """Try until it works; a database that is away, or not migrated yet, may come in time."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            attempt()
        except (exc.OperationalError, _NotCurrentError) as error:
            if time.monotonic() >= give_up:
                raise _failed(which, error) from None
            time.sleep(min(_PAUSE_SECONDS, max(0.0, give_up - time.monotonic())))
        except NewerDatabaseError as error:
            sys.stderr.write(f"{error}\n")
            raise typer.Exit(EXIT_FAILED) from None
        except exc.SQLAlchemyError as error:
            raise _failed(which, error) from None
        else:
            return


def _failed(which: Database, error: Exception) -> typer.Exit:
    if isinstance(error, _NotCurrentError):
        why = "is not at the newest schema; run `shadowfault db migrate` as the owner of its tables"
    elif isinstance(error, GrantError):
        why = str(error)
    elif isinstance(error, exc.DBAPIError):
        # The driver's own first line: it names host, role and database, never a password.
        why = f"{type(error.orig).__name__}: {str(error.orig).strip().partition(chr(10))[0]}"
    else:
        why = f"{type(error).__name__}: {error}"
    sys.stderr.write(f"{which.value} database: {why}\n")
    return typer.Exit(EXIT_FAILED)
