"""One supervised process: started, watched, restarted with back-off, stopped."""

from __future__ import annotations

import asyncio
import collections
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shadowfault_cluster import processes

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path

# A process that dies this often within the window will not get better by being started again.
_MAX_EXITS, _WINDOW_SECONDS = 5, 60.0
_FIRST_DELAY_SECONDS, _MAX_DELAY_SECONDS = 0.2, 5.0


def restart_delay(recent_exits: int) -> float | None:
    """Seconds to wait before the next start after `recent_exits` within the window; None: give up."""
    if recent_exits >= _MAX_EXITS:
        return None
    return min(_FIRST_DELAY_SECONDS * 2.0 ** (recent_exits - 1), _MAX_DELAY_SECONDS)


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 64 * 1024))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


@dataclass
class ManagedProcess:
    """A process the supervisor keeps running while `wanted`."""

    name: str
    argv: list[str]
    log: Path
    environment: Mapping[str, str]
    death_signal: signal.Signals = signal.SIGKILL
    wanted: bool = False
    restarts: int = 0
    exit_status: int | None = None
    _process: subprocess.Popen[bytes] | None = None
    _gone: asyncio.Event = field(default_factory=asyncio.Event)
    _exits: collections.deque[float] = field(default_factory=lambda: collections.deque(maxlen=_MAX_EXITS))

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process else None

    @property
    def state(self) -> str:
        """running, stopped (somebody asked for it) or restarting."""
        if self._process:
            return "running"
        return "restarting" if self.wanted else "stopped"

    def start(self) -> None:
        """Start it unless it runs."""
        self.wanted = True
        if self._process:
            return
        self._gone.clear()
        self._process = processes.spawn(
            self.argv, log=self.log, environment=self.environment, death_signal=self.death_signal
        )

    def collect(self) -> bool:
        """Take note of an exit; true when it has just happened."""
        if not self._process or self._process.poll() is None:
            return False
        self.exit_status = self._process.returncode
        self._process = None
        self._gone.set()
        return True

    def next_delay(self) -> float | None:
        """Count an unexpected exit; seconds until the next start, or None to give up."""
        now = time.monotonic()
        self._exits.append(now)
        return restart_delay(sum(1 for moment in self._exits if now - moment < _WINDOW_SECONDS))

    async def stop(self, first: signal.Signals = signal.SIGTERM, grace: float = 10.0) -> None:
        """Send `first`, after `grace` seconds SIGKILL; returns when the process is gone."""
        self.wanted = False
        if not self._process:
            return
        self._process.send_signal(first)
        try:
            await asyncio.wait_for(self._gone.wait(), grace)
        except TimeoutError:
            if self.pid is not None:
                self._process.kill()
            await self._gone.wait()

    def describe_exit(self) -> str:
        """How it ended, with the end of its log."""
        how = f"exited with status {self.exit_status}"
        if self.exit_status is not None and self.exit_status < 0:
            how = f"was killed by {signal.Signals(-self.exit_status).name}"
        return f"{self.name} {how}; the end of its log:\n{tail(self.log)}"
