"""ISO 8601 durations: the calendar's months, and nothing that is no duration."""

from __future__ import annotations

import datetime as dt

import pytest

from bus.core.periods import parse_period


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("P1D", "2024-02-28T12:00", "2024-02-29T12:00"),
        ("P1M", "2024-01-31T00:00", "2024-02-29T00:00"),
        ("P1M", "2023-12-31T00:00", "2024-01-31T00:00"),
        ("P1Y", "2024-02-29T00:00", "2025-02-28T00:00"),
        ("P1Y2M10DT2H30M", "2023-01-01T00:00", "2024-03-11T02:30"),
        ("P2W", "2024-01-01T00:00", "2024-01-15T00:00"),
        ("PT90S", "2024-01-01T00:00", "2024-01-01T00:01:30"),
    ],
)
def test_a_period_ends_where_the_calendar_says(text: str, start: str, end: str) -> None:
    """Months and years by the calendar, the rest by the clock."""
    assert parse_period(text).after(dt.datetime.fromisoformat(start)) == dt.datetime.fromisoformat(end)


@pytest.mark.parametrize("text", ["", "P", "PT", "1D", "P1", "P-1D", "P1.5D", "P1D ", "daily"])
def test_what_is_no_period_is_refused(text: str) -> None:
    """ValueError, also for a duration without a figure."""
    with pytest.raises(ValueError, match="duration"):
        parse_period(text)
