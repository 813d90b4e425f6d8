"""ISO 8601 durations such as ``P1D``: how contracts state what they promise."""

from __future__ import annotations

import calendar
import datetime as dt
import re
from dataclasses import dataclass
from typing import Final

_FORM: Final = re.compile(r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")


@dataclass(frozen=True, slots=True)
class Period:
    """A duration: ``months`` are as long as the calendar makes them, ``rest`` is always the same."""

    months: int
    rest: dt.timedelta

    def after(self, instant: dt.datetime) -> dt.datetime:
        """The end of the period that begins at ``instant``; the 31st becomes a shorter month's last day."""
        years, month = divmod(instant.year * 12 + instant.month - 1 + self.months, 12)
        day = min(instant.day, calendar.monthrange(years, month + 1)[1])
        return instant.replace(year=years, month=month + 1, day=day) + self.rest


def parse_period(text: str) -> Period:
    """The period that a text states. Raises ValueError for any other text, and for one without a figure."""
    found = _FORM.fullmatch(text)
    if found is None or not any(found.groups()):
        raise ValueError(f"'{text}' is not an ISO 8601 duration such as P1D or PT30M")
    years, months, weeks, days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    rest = dt.timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    return Period(years * 12 + months, rest)
