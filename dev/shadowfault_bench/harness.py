"""What a benchmark is written with: paired rounds, ratios against a bound, figures without one."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Relation = Literal["at most", "at least"]


@dataclass(frozen=True)
class Bound:
    """What a ratio is to keep to."""

    relation: Relation
    value: float

    def __str__(self) -> str:
        return f"{self.relation} {self.value:g}"

    def met(self, value: float) -> bool:
        return value <= self.value if self.relation == "at most" else value >= self.value


@dataclass(frozen=True)
class Figure:
    """One line of the report. `samples` are the values it is the median of, in `unit`."""

    benchmark: str
    name: str
    value: float
    unit: str
    samples: tuple[float, ...] = ()
    bound: Bound | None = None

    @property
    def met(self) -> bool | None:
        return None if self.bound is None else self.bound.met(self.value)


@dataclass
class Bench:
    """Given to each benchmark. `scale` shrinks sizes for a quick look (1.0 is the size that figures name)."""

    name: str
    scale: float = 1.0
    rounds: int = 5
    figures: list[Figure] = field(default_factory=list)

    def say(self, message: str) -> None:
        """Show that something goes on."""
        sys.stderr.write(f"{self.name}: {message}\n")
        sys.stderr.flush()

    def size(self, full: int, *, least: int = 1) -> int:
        """A size in proportion to `scale`."""
        return max(least, round(full * self.scale))

    def ratio(
        self, name: str, first: Callable[[], float], second: Callable[[], float], bound: Bound | None = None
    ) -> Figure:
        """Measure both in turn, `rounds` times, and report the median of first / second.

        Each callable does its work once and returns what it measured: seconds, or a rate.
        """
        pairs: list[tuple[float, float]] = []
        for number in range(self.rounds):
            # Whoever comes second finds warmer caches: the order alternates.
            if number % 2:
                b = second()
                a = first()
            else:
                a = first()
                b = second()
            pairs.append((a, b))
            self.say(f"{name}: round {number + 1} of {self.rounds}: {a:.4g} / {b:.4g} = {a / b:.3f}")
        ratios = tuple(a / b for a, b in pairs)
        return self._add(Figure(self.name, name, statistics.median(ratios), "x", ratios, bound))

    def paired(
        self, name: str, both: Callable[[], tuple[float, float]], bound: Bound | None = None
    ) -> Figure:
        """Report the median of first / second, where one callable measures both, by turns of its own."""
        ratios: list[float] = []
        for number in range(self.rounds):
            a, b = both()
            ratios.append(a / b)
            self.say(f"{name}: round {number + 1} of {self.rounds}: {a:.4g} / {b:.4g} = {a / b:.3f}")
        return self._add(Figure(self.name, name, statistics.median(ratios), "x", tuple(ratios), bound))

    def figure(self, name: str, samples: list[float], unit: str, bound: Bound | None = None) -> Figure:
        """Report the median of values measured by the benchmark itself."""
        return self._add(Figure(self.name, name, statistics.median(samples), unit, tuple(samples), bound))

    def _add(self, figure: Figure) -> Figure:
        self.figures.append(figure)
        return figure


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
