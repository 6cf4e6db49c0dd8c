"""Running a tool whose output is progress, and ending it with its whole process group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import BinaryIO

OnLine: TypeAlias = "Callable[[str], None]"

_TETHER = Path(__file__).with_name("tether.py")


def run(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    log: BinaryIO,
    on_line: OnLine,
) -> int:
    """Run `argv`; each line it prints goes to `log` and to `on_line`. Returns its exit status.

    When this is interrupted by an exception (Ctrl-C above all), the command and
    its children are killed before it goes on its way; they also die with us.
    """
    with subprocess.Popen(  # noqa: S603 - our own argument lists, no shell
        [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *argv],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - by stdout=PIPE above
            for line in process.stdout:
                log.write(line)
                on_line(line.decode(errors="replace").rstrip())
            return process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
