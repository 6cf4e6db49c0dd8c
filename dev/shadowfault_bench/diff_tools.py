"""The tools the verifier is measured against, in a virtual environment of their own, made on demand."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROOT: Final = Path(__file__).parents[2]
_REQUIREMENTS: Final = _ROOT / "requirements" / "bench.txt"
_ENVIRONMENT: Final = _ROOT / ".venv-bench"
_PROGRAM: Final = Path(__file__).with_name("diff_tool.py")


class ToolsUnavailableError(RuntimeError):
    """They could not be installed; the message holds the end of what pip said."""


@dataclass(frozen=True)
class DiffTool:
    """A tool and its best settings.

    Attributes:
        name: its distribution.
        module: what it is imported as.
        threads: connections to each database.
        factor: parts a range is cut into.
    """

    name: str
    module: str
    threads: int
    factor: int

    def compare(
        self, python: Path, urls: Sequence[str], table: str, key: str, columns: Sequence[str]
    ) -> dict[str, Any]:
        """Compare a table of two databases; `seconds`, `keys` that differ, `version`."""
        task = {
            "distribution": self.name,
            "module": self.module,
            "threads": self.threads,
            "factor": self.factor,
            "urls": list(urls),
            "table": table,
            "key": key,
            "columns": list(columns),
        }
        done = subprocess.run(
            [python, _PROGRAM], input=json.dumps(task), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{self.name} failed: {done.stderr[-2000:]}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


def tools_python() -> Path:
    """Return the Python that has them; installs them where they are not, or not of this lock.

    Raises:
        ToolsUnavailableError: that failed.
    """
    python = _ENVIRONMENT / "bin" / "python"
    stamp = _ENVIRONMENT / "lock"
    lock = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == lock:
        return python
    shutil.rmtree(_ENVIRONMENT, ignore_errors=True)
    commands: tuple[list[str | Path], ...] = (
        [sys.executable, "-m", "venv", _ENVIRONMENT],
        [python, "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", _REQUIREMENTS],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ToolsUnavailableError((done.stderr or done.stdout)[-1000:])
    stamp.write_text(lock)
    return python
