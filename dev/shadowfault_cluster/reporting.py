"""How a starting cluster tells its starter what happens: JSON lines over a pipe.

Anything that is not JSON on the pipe is a traceback of a process that could not
start at all, and is shown as it is.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass


@dataclass(frozen=True)
class StatusWriter:
    """The writing end. A starter that has stopped listening is no error."""

    descriptor: int

    def progress(self, message: str) -> None:
        """Something for a person to read."""
        self._write({"progress": message})

    def ready(self) -> None:
        """The cluster is usable."""
        self._write({"ready": True})

    def failed(self, message: str) -> None:
        """The cluster ends, and why."""
        self._write({"failed": message})

    def _write(self, message: dict[str, object]) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self.descriptor, json.dumps(message).encode() + b"\n")
