"""A department that publishes all the time, with a ledger of what was acknowledged."""

from __future__ import annotations

import datetime as dt
import threading
from types import TracebackType
from typing import Any, Self

from homes import Home

from bus.contracts.quarantine import Quarantined
from bus.contracts.registry_client import RegistryClient
from bus.errors import Unavailable
from bus.publishing.publisher import Publisher
from bus.wiring.viewing import view_rows
from tests.conftest import eventually

FIRST = dt.date(2031, 1, 1)
"""Later than any date of the real data."""


class WeatherStation:
    """Publishes a reading for one day after the other until it is left; what Kafka does not take is sent again."""

    def __init__(self, home: Home, *, timeout_s: float = 5.0) -> None:
        self._home = home
        self.acknowledged: dict[dt.date, dict[str, Any]] = {}
        self.refused: list[Quarantined] = []
        self.failures = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._publish, daemon=True)
        site = home.site
        self._publisher = Publisher(
            "weather",
            connection=site.connection("weather"),
            registry=RegistryClient(f"{site.web}/registry", lambda: site.token("weather")),
            quarantine=self.refused.extend,
            timeout_s=timeout_s,
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(30)

    def _publish(self) -> None:
        day = FIRST
        while not self._stop.wait(0.01):
            record = reading(day)
            try:
                self._publisher.publish("daily", record)
            except Unavailable:
                self.failures += 1
            else:
                self.acknowledged[day] = record
                day += dt.timedelta(days=1)

    def publish_until(self, count: int) -> None:
        """Returns when so many are acknowledged in all."""
        eventually(lambda: len(self.acknowledged) >= count, timeout_s=120, what=f"{count} acknowledgements")

    def _rows(self) -> dict[dt.date, dict[str, Any]]:
        rows = view_rows(self._home.site, "weather_daily")
        return {row["date"]: row for row in rows if row["date"] >= FIRST}

    def missing(self) -> int:
        """How many acknowledged readings the view does not have."""
        return len(self.acknowledged.keys() - self._rows().keys())

    def wrong(self) -> int:
        """How many rows of the view are not what was published."""
        return sum(row != self.acknowledged[day] for day, row in self._rows().items() if day in self.acknowledged)

    def clear(self) -> None:
        """Takes all readings back, and closes."""
        for day in self._rows():
            self._publisher.delete("daily", {"date": day})
        eventually(lambda: not self._rows(), what="the end of the readings")
        self._publisher.close()


def reading(day: dt.date) -> dict[str, Any]:
    """A record of `weather.daily`, different each day."""
    return {
        "date": day,
        "precipitation_intensity": 0.25,
        "temperature_max_f": float(day.toordinal() % 100),
        "wind_speed": 1.5,
        "humidity": 0.5,
    }
