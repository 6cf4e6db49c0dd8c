"""`python -m shadowfault_cluster`: the same as `shadowfault cluster`."""

from __future__ import annotations

from shadowfault_cluster.cli import app

if __name__ == "__main__":
    app(prog_name="shadowfault cluster")
