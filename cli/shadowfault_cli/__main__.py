"""Entry point of the `shadowfault` console script.

The base install is the SDK alone, so everything else is optional: a missing
extra is answered with the command that installs it, not with a traceback.
"""

from __future__ import annotations

import sys
import traceback

_EXTRAS = {
    "typer": "cli",
    "rich": "cli",
    "fastapi": "api",
    "sqlalchemy": "api",
    "alembic": "api",
    "uvicorn": "api",
    "kopf": "operator",
    "kubernetes": "operator",
    "cryptography": "cluster",
    "platformdirs": "cluster",
}

# Not in the wheel: they need the checkout's manifests and build a control plane.
_CHECKOUT_ONLY = frozenset({"shadowfault_cluster", "shadowfault_demo"})


def main() -> None:
    """Run the command line; exits with the subcommand's status."""
    try:
        from shadowfault_cli.commands import app  # noqa: PLC0415 - typer itself is an optional extra

        app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in _CHECKOUT_ONLY:
            sys.stderr.write(
                "shadowfault: this command is for development and is not part of the installed package.\n"
                "Clone the repository and run it there: make cluster, make demo\n"
            )
            raise SystemExit(2) from None
        extra = _EXTRAS.get(missing)
        if extra is None:
            raise
        sys.stderr.write(
            f"shadowfault: this command needs the extra '{extra}' ({error.name} is not installed).\n"
            f"Install it with: pip install 'shadowfault[{extra}]'\n"
        )
        raise SystemExit(2) from None
    except Exception as error:  # noqa: BLE001 - Python's own exit status for it, 1, has a meaning here
        # Without its message: one of a database may quote a row.
        sys.stderr.write("".join(traceback.format_tb(error.__traceback__)))
        sys.stderr.write(
            f"shadowfault: a defect ({type(error).__name__}): nothing follows from this run. "
            "Please report it with the lines above.\n"
        )
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
