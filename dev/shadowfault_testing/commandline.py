"""`shadowfault` as a person or a CronJob runs it, with nobody's databases but those of the test."""

from __future__ import annotations

import os
import subprocess
import sys

_SECONDS = 120


def shadowfault(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, over the environment of this process without any database's URL."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("DATABASE_URL")}
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "shadowfault_cli", *arguments],
        env={**kept, "COLUMNS": "100", "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
