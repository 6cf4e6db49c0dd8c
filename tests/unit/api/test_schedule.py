"""When a schedule is due next."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shadowfault_api.schedule import next_after

NOW = datetime(2026, 2, 28, 23, 50, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "due"),
    [
        ("*/15 * * * *", datetime(2026, 3, 1, tzinfo=UTC)),
        ("50 23 * * *", datetime(2026, 3, 1, 23, 50, tzinfo=UTC)),
        ("@hourly", datetime(2026, 3, 1, tzinfo=UTC)),
        ("@weekly", datetime(2026, 3, 1, tzinfo=UTC)),
        ("0 0 ? * 1", datetime(2026, 3, 2, tzinfo=UTC)),
        ("off", None),
    ],
)
def test_when_it_is_due(schedule: str, due: datetime | None) -> None:
    assert next_after(schedule, NOW) == due


@pytest.mark.parametrize("schedule", ["sometimes", "", "* * * * * *", "61 * * * *", "@every 1h"])
def test_what_is_no_schedule(schedule: str) -> None:
    with pytest.raises(ValueError, match="cron"):
        next_after(schedule, NOW)
