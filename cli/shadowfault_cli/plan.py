"""`shadowfault plan`: the failure pattern of a seed, before anything runs."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

import shadowfault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

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
    request_id: Annotated[
        list[str] | None,
        typer.Option(
            help="X-Request-Id of a request; may be given again. - reads one from each line of stdin."
        ),
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json.")] = Output.TEXT,
) -> None:
    """Print which of the first COUNT calls fail in one process that counts its calls.

    Calls that carry an X-Request-Id are decided by that id instead of by their number: with --request-id
    print which of these fail, in whatever process and order.
    """
    if rate != rate:  # noqa: PLR0124 - NaN passes min and max
        raise typer.BadParameter("must be a number from 0.0 to 1.0", param_hint="--rate")
    asked = {"seed": seed, "rate": rate, "entityType": entity_type, "operation": operation}
    if request_id:
        ids = list(_ids(request_id))
        failing = [one for one in ids if shadowfault.draw(seed, entity_type, operation, one) < rate]
        fail = frozenset(failing)
        lines = [f"{'x' if one in fail else '.'}  {one}" for one in ids]
        lines.append(f"{len(failing)} of {len(ids)} {entity_type} {operation} requests fail (x)")
        _print(asked | {"count": len(ids), "failing": failing}, lines, output)
        return
    pattern = list(shadowfault.plan(seed, rate, operation, count, entity_type=entity_type))
    rows = [
        f"{start:>7}  {''.join('x' if fails else '.' for fails in pattern[start : start + 50])}"
        for start in range(0, count, 50)
    ]
    numbers = [n for n, fails in enumerate(pattern) if fails]
    rows.append(f"{len(numbers)} of {count} {entity_type} {operation} calls fail (x); numbers start at 0")
    _print(asked | {"count": count, "failing": numbers}, rows, output)


def _ids(given: Iterable[str]) -> Iterator[str]:
    for one in given:
        if one == "-":
            yield from filter(None, (line.strip() for line in sys.stdin))
        else:
            yield one


def _print(document: Mapping[str, object], lines: Iterable[str], output: Output) -> None:
    if output is Output.JSON:
        typer.echo(json.dumps(document))
        return
    for line in lines:
        typer.echo(line)
