"""The bus's own worker as a process, from position 0 to where the topics end; says how long that took.

The clock runs from the first commit to the last and counts the events between them: connecting, the first fetch and
the first transaction are nobody's speed, neither ours nor a peer's. Where one commit was all there was, it runs from
when the view got its reader.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, TypeVar

from benchmarks import data
from bus.contracts.registry import Registry
from bus.infra.database import open_database
from bus.infra.kafka import KafkaConnection
from bus.views.catalogue import Declarations
from bus.views.rebuilding.requests import Requests
from bus.views.worker import Worker
from bus.views.workers.held import Held
from bus.views.workers.reader import Round

_PROBE_S: Final = 2.0  # Faust empties its channels when it rebalances: a lost round is sent again
_LOOK_S: Final = 0.05


class TimedWorker(Worker):
    """The worker as it is, with a clock. ``until_live``: ends when all views are live, not when all is applied;
    ``for_ever``: does not end by itself. ``gate``: views are read once there is such a file."""

    begun = 0.0
    until_live = for_ever = False
    gate: Path | None = None
    _probe: Round | None = None
    _asked = 0.0

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self._commits: list[tuple[float, int, float]] = []  # when, events applied, MiB
        self._building.applied = self._committed

    def _assign(self) -> None:
        """Views get their readers once the building agent has taken a first, empty round."""
        if self._probe is not None and self._probe.settled.is_set():
            if self.gate is None or self.gate.exists():
                super()._assign()
            else:
                asyncio.get_running_loop().call_later(_LOOK_S, self._nudge.set)
        elif self._rounds.subscriber_count and time.perf_counter() - self._asked > _PROBE_S:
            self._asked = time.perf_counter()
            nobody: Any = SimpleNamespace(views={}, changed=lambda: None)
            self._probe = Round(nobody, ())
            self._sending = asyncio.create_task(self._deliver(self._probe))
            self._sending.add_done_callback(lambda _: self._nudge.set())
        else:
            asyncio.get_running_loop().call_later(_LOOK_S, self._nudge.set)

    def _feed(self, held: Held) -> None:
        self.begun = self.begun or time.perf_counter()
        super()._feed(held)

    def _committed(self, held: Held) -> None:
        self._commits.append((time.perf_counter(), sum(held.positions.values()), resident_mib()))
        if held.caught_up and not self.until_live and not self.for_ever:
            self.leave()

    def _watch(self) -> None:
        super()._watch()
        views = self._roster.held.values()
        if self.until_live and views and all(held.live for held in views):
            self.leave()

    def leave(self) -> None:
        """Says how long it took and ends at once: all is committed, and nobody waits for the lease."""
        first = self._commits[0] if len(self._commits) > 1 else (self.begun, 0, 0.0)
        last = self._commits[-1] if self._commits else first
        found = {"seconds": last[0] - first[0], "events": last[1] - first[1], "commits": self._commits}
        print(json.dumps(found), flush=True)
        os._exit(0)


W = TypeVar("W", bound=TimedWorker)


def resident_mib() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def governance(folder: str, *views: dict[str, Any]) -> tuple[Registry, Declarations]:
    """A governance database with the contracts of the figures and some views."""
    engine = open_database(folder, "governance")
    registry, declarations = Registry(engine), Declarations(engine)
    for schema in data.SCHEMAS:
        registry.register(schema)
    for view in views:
        declarations.apply(view, registry.contracts())
    return registry, declarations


def made(given: dict[str, Any], kind: type[W]) -> W:
    """A worker of that kind over databases and views of its own."""
    registry, declarations = governance(given["governance"], *given.get("views", [given.get("view")]))
    worker = kind(
        views=open_database(given["database"], "views", durable=False),
        declarations=declarations,
        registry=registry,
        kafka=KafkaConnection(**given["kafka"]),
        lease_s=given.get("lease_s", 5.0),
        requests=Requests(open_database(given["governance"], "governance")),
    )
    worker.gate = Path(given["gate"]) if "gate" in given else None
    worker.until_live, worker.for_ever = given.get("until_live", False), given.get("for_ever", False)
    return worker


def main() -> None:
    made(json.loads(sys.argv[1]), TimedWorker).run()


if __name__ == "__main__":
    main()
