"""`shadowfault plan`: the failure pattern of a seed, before anything runs."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

import shadowfault

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Output(StrEnum):
    """How the plan is printed."""

    TEXT = "text"
    JSON = "json"


@app.command()
def plan(
    seed: Annotated[str, typer.Option(help="CHAOS_SEED of the run.")],
    rate: Annotated[float, typer.Option(min=0.0, max=1.0, help="CHAOS_FAIL_RATE of the run, 0.0 to 1.0.")],
    count: Annotated[int, typer.Option(min=1, help="How many calls to look ahead.")] = 20,
    operation: Annotated[str, typer.Option(help="create, update or delete.")] = "create",
    entity_type: Annotated[str, typer.Option(help="Entity type of the calls.")] = "Listing",
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json.")] = Output.TEXT,
) -> None:
    """Print which of the first COUNT calls fail in one process that counts its calls.

    Calls that carry an X-Request-Id are decided by that id instead of by their number.
    """
    if rate != rate:  # noqa: PLR0124 - NaN passes min and max
        raise typer.BadParameter("must be a number from 0.0 to 1.0", param_hint="--rate")
    pattern = list(shadowfault.plan(seed, rate, operation, count, entity_type=entity_type))
    failing = [n for n, fails in enumerate(pattern) if fails]
    if output is Output.JSON:
        typer.echo(
            json.dumps(
                {
                    "seed": seed,
                    "rate": rate,
                    "entityType": entity_type,
                    "operation": operation,
                    "count": count,
                    "failing": failing,
                }
            )
        )
        return
    for start in range(0, count, 50):
        row = "".join("x" if fails else "." for fails in pattern[start : start + 50])
        typer.echo(f"{start:>7}  {row}")
    typer.echo(f"{len(failing)} of {count} {entity_type} {operation} calls fail (x); numbers start at 0")
