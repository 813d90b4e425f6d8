"""What a producer says while it publishes: a line that counts on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol

PLAIN_STEP = 50_000
SHOWN = 2  # reasons of a refused row; quarantine has all of them


class Outcome(Protocol):
    """What `Publisher.load` and `Publisher.publish_many` report."""

    @property
    def acknowledged(self) -> int: ...
    @property
    def refused(self) -> Sequence[Any]: ...


class Progress:
    """Counts the records that are done: on one line on a terminal, else a line for each 50,000."""

    def __init__(self, entity: str) -> None:
        self._entity = entity
        self._said = 0

    def __call__(self, done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{self._entity}: {done:,}", end="", file=sys.stderr, flush=True)
        elif done - self._said >= PLAIN_STEP:
            self._said = done
            print(f"{self._entity}: {done:,}", file=sys.stderr, flush=True)


def say(entity: str, report: Outcome) -> None:
    """Prints how many events were acknowledged, and each refused row with its line and reasons."""
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(f"{entity}: {report.acknowledged:,} acknowledged, {len(report.refused):,} refused")
    for refused in report.refused:
        shown = [f"{why.field}: expected {why.expected}, received {why.received}" for why in refused.reasons[:SHOWN]]
        more = len(refused.reasons) - len(shown)
        print(f"  line {refused.line}: {'; '.join(shown)}{f'; and {more} more' if more else ''}")
