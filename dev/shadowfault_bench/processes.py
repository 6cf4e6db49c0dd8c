"""How much processor time processes have used: says what a wall clock on a busy machine does not."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def processor_seconds(pid: int) -> float:
    """Seconds a process, its children and those it has already waited for have used (Linux, proc(5))."""
    total = 0
    for folder in _PROC.iterdir():
        if not folder.name.isdecimal():
            continue
        with suppress(OSError):
            # The name in parentheses may hold anything; what is counted from 3 on comes after it.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(folder.name) == pid:
                total += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
            elif int(fields[1]) == pid:
                total += int(fields[11]) + int(fields[12])
    return total / _TICKS
