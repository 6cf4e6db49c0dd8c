"""`python -m shadowfault_cluster.controlplane_build`: have the control plane ready, with live progress."""

from __future__ import annotations

import sys
import time

from rich.console import Console

from shadowfault_cluster import assets, support
from shadowfault_cluster.errors import ClusterError
from shadowfault_cluster.progress import BarReporter, LineReporter


def prepare() -> None:
    """Build the control plane unless it is there, showing progress on stderr. Raises ClusterError."""
    support.require_support()
    if assets.available():
        return
    console = Console(stderr=True)
    if console.is_terminal:
        with BarReporter(console) as bar:
            assets.ensure(bar)
    else:
        assets.ensure(LineReporter(_write_line))


def _write_line(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main() -> int:
    """Entry point; the exit status."""
    began = time.monotonic()
    try:
        prepare()
    except ClusterError as error:
        _write_line(f"shadowfault: {error}")
        return 1
    except KeyboardInterrupt:
        _write_line(
            f"shadowfault: interrupted after {time.monotonic() - began:.0f} s; nothing is left half-built. "
            "The next run goes on with what Go has compiled"
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
