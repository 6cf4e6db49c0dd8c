"""`shadowfault halt`: end everything that runs and let nothing begin, until it is lifted."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Annotated, Final

import kopf
import typer

from shadowfault_operator import halt
from shadowfault_operator.client import ApiClient
from shadowfault_operator.connection import connection
from shadowfault_operator.errors import ApiError, UnavailableError
from shadowfault_operator.handlers import kopf_settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_FAILED: Final = 1


@app.command()
def halt_command(
    reason: Annotated[str | None, typer.Option(help="Why; shown in every experiment it ends.")] = None,
    lift: Annotated[bool, typer.Option("--lift", help="Lift it; what has ended stays ended.")] = False,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Where the operator runs.")
    ] = "shadowfault-system",
) -> None:
    """End every experiment of the cluster at once and refuse new ones until the halt is lifted.

    Exits 0 when that is so, 1 when it could not be written.
    """
    if lift == (reason is not None):
        raise typer.BadParameter("give either --reason TEXT to halt, or --lift")
    try:
        typer.echo(asyncio.run(_carry_out(namespace, reason)))
    except (kopf.LoginError, ApiError, UnavailableError) as error:
        sys.stderr.write(f"halt: {error}\n")
        raise typer.Exit(_FAILED) from None


async def _carry_out(namespace: str, reason: str | None) -> str:
    client = ApiClient(partial(connection, kopf_settings()))
    try:
        if reason is not None:
            await halt.put(client, namespace, reason)
            return f"halt: in force ({namespace}/{halt.NAME}); lift it by `shadowfault halt --lift`"
        return "halt: lifted" if await halt.lift(client, namespace) else "halt: there was none"
    finally:
        await client.close()
