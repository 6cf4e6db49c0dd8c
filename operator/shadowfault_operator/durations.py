"""Durations and instants as Kubernetes writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

# The part of Go's time.ParseDuration that whole seconds need, which is also what kubectl prints.
_DURATION: Final = re.compile(r"(?=[0-9])(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")


def parse_duration(text: object) -> timedelta:
    """`1h30m`, `15m` or `90s` as a timedelta.

    Raises:
        ValueError: the text is none of these.
    """
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"duration {text!r}: expected hours, minutes and seconds such as 1h30m, 15m or 90s")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def format_instant(instant: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as metav1.Time is written."""
    return instant.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def parse_instant(text: str) -> datetime:
    """An RFC 3339 time.

    Raises:
        ValueError: it is not one, or it has no offset.
    """
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"time {text!r} has no offset from UTC")
    return instant.astimezone(UTC)
