"""The account of promises: each is printed as it is checked, and the last line counts them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.markup import escape

if TYPE_CHECKING:
    from rich.console import Console


@dataclass
class Ledger:
    """Prints scenes and promises; knows in the end how many were kept and how many were broken."""

    console: Console
    kept: int = 0
    broken: int = 0
    _started: float = field(default_factory=time.monotonic)

    def scene(self, title: str) -> None:
        """Open a new part of the story."""
        elapsed = time.monotonic() - self._started
        self.console.print(f"\n[bold cyan]{escape(title)}[/]  [dim]{elapsed:5.1f} s[/]", soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a plain line, indented under the scene."""
        self.console.print(f"  {escape(text)}", highlight=False, soft_wrap=True)

    def show(self, command: str, output: str, *, limit: int = 12) -> None:
        """Print a command as a person would type it, and what it answered (at most `limit` lines)."""
        self.console.print(f"  [bold]$ {escape(command)}[/]", highlight=False, soft_wrap=True)
        lines = output.rstrip().splitlines()
        for line in lines[:limit]:
            self.console.print(f"    {escape(line)}", highlight=False, style="dim", soft_wrap=True)
        if len(lines) > limit:
            self.console.print(f"    ... {len(lines) - limit} more lines", style="dim")

    def promise(self, text: str, kept: bool, observed: str) -> bool:
        """Record one promise with what was observed; returns `kept`."""
        if kept:
            self.kept += 1
            mark = "[bold green]kept  [/]"
        else:
            self.broken += 1
            mark = "[bold red]BROKEN[/]"
        self.console.print(
            f"  {mark} {escape(text)}  [dim]({escape(observed)})[/]", highlight=False, soft_wrap=True
        )
        return kept

    def close(self) -> int:
        """Print the last line; returns the exit status (0 when nothing was broken)."""
        self.console.print(
            f"demo: {self.kept} promises kept, {self.broken} broken", highlight=False, soft_wrap=True
        )
        return 1 if self.broken or not self.kept else 0
