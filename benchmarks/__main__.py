"""``python -m benchmarks [B1 B2 ...] [--repeats N] [--scale small|moderate|full]``: takes and writes figures."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from benchmarks import (
    freshness,
    growth,
    harness,
    policies,
    publish,
    query,
    rebuilding,
    revocation,
    streams,
    views,
    workers,
)
from benchmarks.harness import Plan
from benchmarks.world import ROOT, World

FIGURES: Final[dict[str, Callable[[World, int], Plan]]] = {
    "B1": publish.plan,
    "B2": views.plan,
    "B3": growth.plan,
    "B4": rebuilding.plan,
    "B4b": workers.plan,
    "B5": freshness.plan,
    "B6": query.plan,
    "B7": policies.plan,
    "B8": revocation.plan,
    "B9": streams.plan,
}
ONCE: Final = {"B3", "B4", "B8"}  # long, and both ends of a ratio are in one run
SCALES: Final = {
    "moderate": {
        "B1": 40_000,
        "B2": 100_000,
        "B3": 1_000_000,
        "B4": 400_000,
        "B4b": 100_000,
        "B5": 10_000,
        "B6": 300,
        "B7": 20_000,
        "B8": 20,
        "B9": 20_000,
    },
    "small": {
        "B1": 5_000,
        "B2": 5_000,
        "B3": 100_000,
        "B4": 40_000,
        "B4b": 20_000,
        "B5": 3_000,
        "B6": 200,
        "B7": 1_000,
        "B8": 5,
        "B9": 2_000,
    },
    "full": {
        "B1": 100_000,
        "B2": 300_000,
        "B3": 10_000_000,
        "B4": 2_000_000,
        "B4b": 300_000,
        "B5": 30_000,
        "B6": 600,
        "B7": 100_000,
        "B8": 100,
        "B9": 20_000,
    },
}


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every figure could be taken, whether or not it meets its goal."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("figures", nargs="*", choices=[*FIGURES, []], default=[], help="none: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scale", choices=[*SCALES], default="full")
    parser.add_argument("--results", type=Path, help="default: benchmarks/results.json; nowhere at small scale")
    given = parser.parse_args(arguments)
    names = given.figures or list(FIGURES)
    target = given.results or (ROOT / "benchmarks" / "results.json" if given.scale != "small" else None)
    for number in (signal.SIGTERM, signal.SIGINT):  # so that the stack is stopped however this ends
        signal.signal(number, _leave)
    results = []
    for name in names:
        with World(ROOT / ".bus", _say) as world:  # of its own: what another figure published stays out of it
            begun = time.monotonic()
            repeats = 1 if name in ONCE else given.repeats
            results.append(harness.measure(FIGURES[name](world, SCALES[given.scale][name]), repeats, _say))
            _say(f"{name} took {time.monotonic() - begun:.0f} s")
            if target is not None:
                harness.write(target, results[-1:], repeats=repeats, scale=SCALES[given.scale][name])
    _say(harness.table(results))
    return 0


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
