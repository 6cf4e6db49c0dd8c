"""The request id: taken from X-Request-Id or made, kept in the scope, bound to every log line, sent back.

Only an id the client sent keys the injector's decisions, so that recorded traffic replays the same faults.
"""

import re
from typing import Final
from uuid import uuid4

from starlette.types import Scope

HEADER: Final = "x-request-id"
# Enough for UUIDs, ULIDs, trace ids and numbered replays; too little for an e-mail address.
PATTERN: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
EXPECTED: Final = "X-Request-Id: expected 1 to 128 letters, digits or any of . _ : / + = -"

# Where a route leaves (entity type, operation) of the critical write it answers.
CRITICAL_WRITE: Final = "shadowfault.critical_write"
_KEY: Final = "shadowfault"


class InvalidRequestIdError(ValueError):
    """The client sent an X-Request-Id that cannot be used."""


def begin(scope: Scope) -> str:
    """Give the request an id and return it.

    Raises:
        InvalidRequestIdError: the client's cannot be used; the request then has one of ours, for the answer.
    """
    values = [value for name, value in scope["headers"] if name == HEADER.encode()]
    made = str(uuid4())
    context: dict[str, str | None] = {"request_id": made, "client_request_id": None}
    scope.setdefault("state", {})[_KEY] = context
    if not values:
        return made
    sent: str = values[0].decode("latin-1")
    if len(values) > 1 or not PATTERN.fullmatch(sent):
        raise InvalidRequestIdError(EXPECTED)
    context["request_id"] = context["client_request_id"] = sent
    return sent


def request_id_of(scope: Scope) -> str:
    """Return the id of this request."""
    return str(scope["state"][_KEY]["request_id"])


def client_request_id_of(scope: Scope) -> str | None:
    """Return the id the client sent, None where the id is our own."""
    sent: str | None = scope["state"][_KEY]["client_request_id"]
    return sent
