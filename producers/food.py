"""Food safety: every routine inspection with its result."""

from __future__ import annotations

from pathlib import Path

from bus import Publisher
from producers.report import Progress, say

DATA = Path(__file__).parent / "data" / "food_inspections.csv.gz"


def main() -> None:
    """Publishes every row of the file; what the contract refuses goes to quarantine and is named."""
    with Publisher.connect("food") as publisher:
        say("food.inspection", publisher.load("inspection", DATA, progress=Progress("food.inspection")))


if __name__ == "__main__":
    main()
