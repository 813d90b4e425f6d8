"""Market supervision: every term of every business licence."""

from __future__ import annotations

from pathlib import Path

from bus import Publisher
from producers.report import Progress, say

DATA = Path(__file__).parent / "data" / "business_licences.csv.gz"


def main() -> None:
    """Publishes every row of the file; what the contract refuses goes to quarantine and is named."""
    with Publisher.connect("market") as publisher:
        say(
            "market.business_licence",
            publisher.load("business_licence", DATA, progress=Progress("market.business_licence")),
        )


if __name__ == "__main__":
    main()
