"""Durations as people write them: 24h, 90m, 1h30m, 45s, 7d, 0. Pure."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

_SECONDS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_MOST_SECONDS: Final = 3650 * 86_400
_WHOLE: Final = re.compile(r"(\d{1,6}[dhms])+|0")
_PIECE: Final = re.compile(r"(\d+)([dhms])")


def parse_duration(text: str) -> timedelta:
    """Read a duration.

    Raises:
        ValueError: it is none.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is no duration: write 24h, 90m, 1h30m, 7d or 0")
    seconds = sum(int(count) * _SECONDS[unit] for count, unit in _PIECE.findall(text))
    if seconds > _MOST_SECONDS:
        raise ValueError(f"{text!r} is no duration of this program: ten years at most")
    return timedelta(seconds=seconds)
