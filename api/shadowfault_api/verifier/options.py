"""What a verification may be told: which kind of pass, sizes and limits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from shadowfault_api.verifier.pace import Pace
from shadowfault_api.verifier.progress import Reporter, log_progress
from shadowfault_api.verifier.stopping import rest

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from threading import Event


class Mode(StrEnum):
    """Which rows a pass looks at.

    Attributes:
        FULL: all of them.
        INCREMENTAL: those that say they changed since the last pass, and the next piece of a rotating sweep.
    """

    FULL = "full"
    INCREMENTAL = "incremental"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierOptions:
    """Kind of pass, sizes and limits.

    Attributes:
        mode: which rows are looked at.
        resume: of a full pass: go on with the sweep that is not through, if there is one.
        full_every: in which time a rotating sweep of incremental passes is to be through; 0: each pass is
            full.
        overlap: how far an incremental pass goes back beyond its watermark, for transactions that committed
            late and clocks that differ.
        chunk_size: rows of each side looked at one by one where digests differ, and keys in one recheck.
        digest_rows: rows in the first digest; later ones are as large as `Pace.target_seconds` allows.
        rows_per_second: limit of rows read of a side; None for none.
        portable: use the portable digest even where the servers' own would do.
        statement_seconds: limit of a statement.
        connect_seconds: wait for a connection, or on SQLite for another writer.
        stopping: set it from another thread to have the run end, with StoppedError.
        progress: told after each chunk how far the run is.
        watch: called between two looks; gives the seconds to wait, and may raise to end the run.
    """

    mode: Mode = Mode.FULL
    resume: bool = False
    full_every: timedelta = timedelta(hours=24)
    overlap: timedelta = timedelta(minutes=5)
    chunk_size: int = 1000
    digest_rows: int = 10_000
    rows_per_second: float | None = None
    portable: bool = False
    statement_seconds: float = 30.0
    connect_seconds: float = 5.0
    stopping: Event | None = None
    progress: Reporter = log_progress
    watch: Callable[[], float] | None = None

    @property
    def pace(self) -> Pace:
        """How much to ask of the databases at a time."""
        return Pace(
            first=self.digest_rows,
            least=min(self.digest_rows, self.chunk_size),
            rows_per_second=self.rows_per_second,
        )

    @property
    def page(self) -> int:
        """Rows looked at one by one at a time: under a limit no more than fit into half a second."""
        if self.rows_per_second is None:
            return self.chunk_size
        return min(self.chunk_size, max(1, round(self.rows_per_second * self.pace.target_seconds)))

    @property
    def incremental(self) -> bool:
        """Whether an incremental pass is asked for."""
        return self.mode is Mode.INCREMENTAL and self.full_every > timedelta(0)

    def due(self, started_at: datetime) -> datetime | None:
        """Tell when a sweep that began then is to be through; None for one that is made in one go."""
        return started_at + self.full_every if self.incremental else None

    def rest(self, seconds: float) -> None:
        """Wait between two looks.

        Raises:
            StoppedError: `stopping` is set, now or meanwhile.
            VerificationError: `watch` says so.
        """
        owed = 0.0 if self.watch is None else self.watch()
        rest(max(seconds, owed), self.stopping, "the verification was stopped before its end")

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ValueError: naming the option.
        """
        # SQLite takes 32766 parameters in a statement; a recheck has one for each key.
        if not 1 <= self.chunk_size <= 10_000:
            raise ValueError("chunk size must be from 1 to 10000")
        if self.digest_rows < 1:
            raise ValueError("rows of a digest must be at least 1")
        if self.rows_per_second is not None and not self.rows_per_second >= 1:
            raise ValueError("rows per second must be at least 1")
        if not 0 < self.statement_seconds <= 3600:
            raise ValueError("statement timeout must be above 0 and at most 3600 seconds")
        if self.full_every < timedelta(0) or self.overlap < timedelta(0):
            raise ValueError("full-every and overlap must not be negative")
