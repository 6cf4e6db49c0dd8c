"""What a service calls first: refuse production, read the contract, install an injector or nothing."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from shadowfault.config import ENABLED, ChaosConfig, ConfigError, parse_switch
from shadowfault.injector import FaultInjector

if TYPE_CHECKING:
    from collections.abc import Mapping

FATAL: Final = """\
FATAL: CHAOS_ENABLED=true is forbidden in production.
Chaos engineering must NEVER run in NODE_ENV=production.
This is a safety violation. Aborting boot.
"""

EXIT_PRODUCTION: Final = 1
EXIT_MALFORMED: Final = 2


def is_forbidden(environ: Mapping[str, str]) -> bool:
    """Whether this environment would run chaos in production; case and surrounding blanks do not matter."""
    if environ.get("NODE_ENV", "").strip().lower() != "production":
        return False
    try:
        return parse_switch(environ.get(ENABLED, "") or "false")
    except ValueError:
        return False  # malformed: reading the contract stops the boot


def boot(environ: Mapping[str, str] | None = None) -> FaultInjector | None:
    """Read the contract once, before any port is opened; None when disabled: nothing is installed.

    `environ` defaults to this process's environment.

    Raises:
        SystemExit: 1 with three lines on stderr where chaos is enabled in production; 2 with every
            malformed variable on stderr.
    """
    environ = os.environ if environ is None else environ
    if is_forbidden(environ):
        sys.stderr.write(FATAL)
        sys.stderr.flush()
        raise SystemExit(EXIT_PRODUCTION)
    try:
        config = ChaosConfig.from_env(environ)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        raise SystemExit(EXIT_MALFORMED) from None
    return FaultInjector(config) if config.enabled else None
