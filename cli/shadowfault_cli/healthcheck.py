"""`python -m shadowfault_cli.healthcheck`: what a container's HEALTHCHECK runs.

Exits 0 when the process in this container answers, be it the service (/health) or the operator (/healthz).
Nothing but the standard library: it starts every few seconds.
"""

from __future__ import annotations

import os
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

_PORTS_AND_PATHS = ((4000, "/health"), (8080, "/healthz"))
_SECONDS = 2.0


def main() -> int:
    """Ask the service, then the operator; 0 when one answers 200, else 1."""
    host = os.environ.get("HOST", "127.0.0.1")
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    port = os.environ.get("PORT")
    for usual, path in _PORTS_AND_PATHS:
        if _answers(host, int(port) if port else usual, path):
            return 0
    return 1


def _answers(host: str, port: int, path: str) -> bool:
    connection = HTTPConnection(host, port, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
