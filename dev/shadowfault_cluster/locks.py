"""Advisory locks on files that are removed when they are released."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class FileLock:
    """A held lock; it is given up when `descriptor` is closed in every process that has it."""

    path: Path
    descriptor: int

    def remove_and_release(self) -> None:
        """Remove the file while it is still ours, then let go."""
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


def acquire(path: Path, *, wait: bool = False) -> FileLock | None:
    """Lock `path`, creating it; None when another process holds it and `wait` is false."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        if _is_still(path, descriptor):
            return FileLock(path, descriptor)
        # Its last holder removed the file between our open and our lock: this is a lock on nothing.
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
