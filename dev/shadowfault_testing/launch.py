"""Become another program that ends with its parent, as another user where asked.

Run by path, as `python -I -S launch.py PARENT_PID UID GID PROGRAM ARGUMENT...` (UID -1: stay who you are).
It exists because `subprocess(preexec_fn=...)` is unsafe, and warns, in a process with threads.
Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def main(arguments: list[str]) -> None:
    """Drop privileges, ask the kernel for a signal on the parent's death, exec."""
    parent, uid, gid = (int(value) for value in arguments[:3])
    program = arguments[3:]
    if uid != -1:
        os.setgroups([gid])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After setuid, which clears the setting. SIGQUIT is PostgreSQL's immediate shutdown.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
        if os.getppid() != parent:  # it died before the setting was made
            sys.exit(1)
    os.execv(program[0], program)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(sys.argv[1:])
