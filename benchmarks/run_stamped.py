"""The bus's own worker as a process that runs until a signal, and says then when each round passed through it."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.legs import Passed
from benchmarks.run_worker import TimedWorker, made
from bus.views.workers.reader import Round


class StampedWorker(TimedWorker):
    """The worker as it is, which notes when each round passes. Its views all read the same topic."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named, crash_point=self._point)
        self._passed: list[Passed] = []
        self._by_round: dict[int, Passed] = {}
        self._ahead_s = time.time() - time.perf_counter()  # of the wall clock, in which batches say when they were read

    async def _deliver(self, following: Round) -> None:
        if following.batches:
            places = [(batch.partition, batch.base, batch.next_offset) for batch in following.batches]
            read = min(batch.read_ms for batch in following.batches) / 1_000 - self._ahead_s
            self._by_round[id(following)] = Passed(places, read, time.perf_counter())
        await super()._deliver(following)

    async def _build(self, following: Round) -> None:
        passed = self._by_round.pop(id(following), None)
        if passed is not None:
            passed.taken = time.perf_counter()
            self._passed.append(passed)
        await super()._build(following)

    def _point(self, name: str) -> None:
        if self._passed and name == "begun":
            self._passed[-1].begun.append(time.perf_counter())
        elif self._passed and name == "after commit":
            self._passed[-1].committed.append(time.perf_counter())

    def write(self, path: Path) -> None:
        """What was noted, as JSON."""
        path.write_text(json.dumps([asdict(passed) for passed in self._passed]))


def main() -> None:
    given = json.loads(sys.argv[1])
    worker = made(given, StampedWorker)
    worker.run()
    worker.write(Path(given["stamps"]))


if __name__ == "__main__":
    main()
