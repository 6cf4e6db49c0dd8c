"""The demo's account: its last line and exit status follow what was observed."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from shadowfault_demo.ledger import Ledger


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(Console(file=io.StringIO(), width=200))


def last_line(ledger: Ledger) -> str:
    assert isinstance(ledger.console.file, io.StringIO)
    return ledger.console.file.getvalue().splitlines()[-1]


@pytest.mark.parametrize(
    ("observations", "line", "status"),
    [
        ([True, True], "demo: 2 promises kept, 0 broken", 0),
        ([True, False], "demo: 1 promises kept, 1 broken", 1),
        ([], "demo: 0 promises kept, 0 broken", 1),
    ],
)
def test_the_last_line_counts_and_the_status_follows(
    ledger: Ledger, observations: list[bool], line: str, status: int
) -> None:
    for kept in observations:
        ledger.promise("something", kept, "seen")

    assert ledger.close() == status
    assert last_line(ledger) == line


def test_markup_in_what_was_observed_is_shown_as_it_is(ledger: Ledger) -> None:
    ledger.promise("brackets", kept=True, observed="[bold]not markup[/]")

    assert "[bold]not markup[/]" in last_line(ledger)


def test_long_output_says_how_much_was_left_out(ledger: Ledger) -> None:
    ledger.show("command", "\n".join(str(n) for n in range(20)), limit=5)

    assert last_line(ledger).strip() == "... 15 more lines"
