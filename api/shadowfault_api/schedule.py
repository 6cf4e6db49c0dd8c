"""Schedules in cron's notation, as a CronJob takes them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cronsim import CronSim, CronSimError

if TYPE_CHECKING:
    from datetime import datetime

# What is scheduled by nothing.
OFF: Final = "off"
_FIELDS: Final = 5
_MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


def next_after(schedule: str, now: datetime) -> datetime | None:
    """Tell when a schedule is due next, in the time zone of `now`; None where it never is.

    Raises:
        ValueError: it is not in cron's notation.
    """
    if schedule == OFF:
        return None
    expression = _MACROS.get(schedule, schedule).replace("?", "*")
    if len(expression.split()) != _FIELDS:
        raise ValueError(f"expected cron's five fields, such as */15 * * * *, or {OFF}")
    try:
        return next(CronSim(expression, now), None)
    except CronSimError as error:
        raise ValueError(f"not a schedule in cron's notation: {error}") from None
