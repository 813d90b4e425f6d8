"""Sanitation: every complaint; a later row of a request number updates it."""

from __future__ import annotations

from pathlib import Path

from bus import Publisher
from producers.report import Progress, say

DATA = Path(__file__).parent / "data" / "sanitation_complaints.csv.gz"


def main() -> None:
    """Publishes every row of the file; what the contract refuses goes to quarantine and is named."""
    with Publisher.connect("sanitation") as publisher:
        say("sanitation.complaint", publisher.load("complaint", DATA, progress=Progress("sanitation.complaint")))


if __name__ == "__main__":
    main()
