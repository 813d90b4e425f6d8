"""The weather office: one record a day."""

from __future__ import annotations

from pathlib import Path

from bus import Publisher
from producers.report import Progress, say

DATA = Path(__file__).parent / "data" / "weather_daily.csv.gz"


def main() -> None:
    """Publishes every row of the file; what the contract refuses goes to quarantine and is named."""
    with Publisher.connect("weather") as publisher:
        say("weather.daily", publisher.load("daily", DATA, progress=Progress("weather.daily")))


if __name__ == "__main__":
    main()
