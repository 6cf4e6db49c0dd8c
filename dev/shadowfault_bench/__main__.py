"""`python -m shadowfault_bench`: every module bench_NAME.py beside this one, or those named."""

from __future__ import annotations

import json
import pkgutil
from importlib import import_module
from pathlib import Path  # noqa: TC003 - typer reads the annotation
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import shadowfault_bench
from shadowfault_bench.harness import Bench, Figure

_PREFIX = "bench_"


def names() -> list[str]:
    """The benchmarks there are."""
    modules = (module.name for module in pkgutil.iter_modules(shadowfault_bench.__path__))
    return sorted(name.removeprefix(_PREFIX) for name in modules if name.startswith(_PREFIX))


def main(
    only: Annotated[
        list[str] | None, typer.Argument(help="Benchmarks to run; all when none is named.")
    ] = None,
    scale: Annotated[
        float, typer.Option(min=0.001, max=10, help="Sizes in proportion to the full ones.")
    ] = 1.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each pair.")] = 5,
    output: Annotated[Path | None, typer.Option(help="Write all figures here too, as JSON.")] = None,
) -> None:
    """Measure, and print each figure beside its bound. A bound that is missed is shown, not an error."""
    unknown = sorted(set(only or ()) - set(names()))
    if unknown:
        raise typer.BadParameter(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(names())}")
    figures: list[Figure] = []
    for name in only or names():
        bench = Bench(name, scale=scale, rounds=rounds)
        import_module(f"{shadowfault_bench.__name__}.{_PREFIX}{name}").run(bench)
        figures += bench.figures
    Console().print(_table(figures))
    if output is not None:
        output.write_text(json.dumps([_document(figure) for figure in figures], indent=2) + "\n")


def _table(figures: list[Figure]) -> Table:
    table = Table(title="bench: medians of paired rounds", title_justify="left")
    for column in ("benchmark", "what", "median", "min to max", "bound", ""):
        table.add_column(column, justify="right" if column in {"median", "min to max"} else "left")
    for figure in figures:
        spread = f"{min(figure.samples):.3g} to {max(figure.samples):.3g}" if figure.samples else ""
        met = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[figure.met]
        table.add_row(
            figure.benchmark,
            figure.name,
            f"{figure.value:.3g} {figure.unit}",
            spread,
            str(figure.bound or ""),
            met,
        )
    return table


def _document(figure: Figure) -> dict[str, object]:
    return {
        "benchmark": figure.benchmark,
        "name": figure.name,
        "median": figure.value,
        "unit": figure.unit,
        "samples": list(figure.samples),
        "bound": str(figure.bound) if figure.bound else None,
        "met": figure.met,
    }


if __name__ == "__main__":
    typer.run(main)
