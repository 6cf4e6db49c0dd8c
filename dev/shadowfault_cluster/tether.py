"""Run a command that dies with its starter: `python tether.py STARTER_PID COMMAND ...`.

For starters that have threads, where a preexec_fn may deadlock. The starting
thread must wait for the command, as the kernel ties it to that thread. Run by
path with `-I -S`, so it imports nothing of ours and costs some 15 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the command."""
    starter, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(starter):  # it died before the line above
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - the point of this module


if __name__ == "__main__":
    main()
