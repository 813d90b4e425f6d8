"""B4b: one worker and two, on the same views of B2's data: a second one takes half of the views and should raise what
is built in a second where a second core is free.

The workers start, take their views and wait; the clock runs from the first commit anybody makes to the moment when the
last view has all events, and counts the events of every view.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa

from benchmarks import data
from benchmarks.harness import Goal, Plan, Sample, require
from benchmarks.views import DATABASES, _dropped, _kafka
from benchmarks.world import ROOT, World
from bus.infra.database import open_database
from bus.views.store import ViewStore

VIEWS: Final = 6
MORE: Final = 1.1  # beyond what two runs of the same differ by
_LOOK_S: Final = 0.01
_TIMEOUT_S: Final = 600.0


def plan(world: World, events: int) -> Plan:
    """``events`` of each of the two entities."""
    runs: dict[str, Callable[[], Sample]] = {
        _name(kind, count): lambda kind=kind, count=count: _run(world, events, kind, count)  # type: ignore[misc]
        for kind in DATABASES
        for count in (1, 2)
    }
    goals = [
        Goal(f"{title}: two workers / one", _name(kind, 2), _name(kind, 1), MORE) for kind, title in DATABASES.items()
    ]
    return Plan("B4b", "events/s", dict(runs), goals)


def _name(kind: str, count: int) -> str:
    return f"{VIEWS} views, {count} worker{'s' * (count > 1)}, {DATABASES[kind]}"


def declared() -> list[dict[str, Any]]:
    """Views of one level and of two, in turn, in an order that gives each of two workers as many of both."""
    halves: tuple[dict[str, Any], ...] = (data.ONE_LEVEL, data.TWO_LEVELS)
    return [{**halves[number // 2 % 2], "view": f"bench_share_{number}"} for number in range(VIEWS)]


@contextmanager
def running(given: Sequence[Mapping[str, Any]]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A worker process for each of ``given``, until the block ends."""
    command, environment = [sys.executable, "-m", "benchmarks.run_worker"], {**os.environ, "TZ": "UTC"}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    found = [subprocess.Popen([*command, json.dumps(one)], cwd=ROOT, env=environment, **quiet) for one in given]
    try:
        yield found
        require(all(process.poll() is None for process in found), "a worker ended")
    finally:
        for process in found:
            process.terminate()
        for process in found:
            process.wait(timeout=20)


def _run(world: World, events: int, kind: str, count: int) -> Sample:
    terms, visits = world.events(events)
    url, gate = world.fresh(kind), world.folder / uuid.uuid4().hex
    given: dict[str, Any] = {"database": url, "views": declared(), "kafka": _kafka(world)}
    given |= {"governance": f"sqlite:///{world.folder / uuid.uuid4().hex}", "for_ever": True, "gate": str(gate)}
    engine = open_database(url, "views", durable=False)
    store = ViewStore(engine)
    with running([given] * count):
        _until(lambda: _shares(store) == [VIEWS // count] * count, "the views to be shared out")
        gate.touch()
        sample = _timed(engine, world)
    check(engine, terms, visits)
    engine.dispose()
    _dropped(world, url)
    return sample


def _shares(store: ViewStore) -> list[int]:
    """How many views each worker builds, once all of them are ready to be read."""
    states = store.states(count=False).values()
    owned = Counter(state.worker for state in states if state.worker)
    return sorted(owned.values()) if sum(owned.values()) == VIEWS and all(s.fingerprint for s in states) else []


def _timed(engine: sa.Engine, world: World) -> Sample:
    """From the first commit to the last, and the events of all views between them."""
    topics = {view["view"]: _topics(view) for view in declared()}
    size = {topic: sum(world.ends(topic).values()) for topic in set().union(*topics.values())}
    wanted = sum(size[topic] for found in topics.values() for topic in found)
    first: tuple[float, int] | None = None
    deadline = time.monotonic() + _TIMEOUT_S
    statement = sa.text("SELECT sum(next_offset) FROM position")
    with engine.connect() as connection:
        while True:
            at, now = int(connection.scalar(statement) or 0), time.perf_counter()
            connection.rollback()
            first = first or ((now, at) if at else None)
            if first is not None and at == wanted:
                break
            require(time.monotonic() < deadline, f"{at} of {wanted} events were applied")
            time.sleep(_LOOK_S)
    require(wanted > first[1], "too few events for a rate: all were in the first commit")
    return Sample(wanted - first[1], now - first[0], {"s": now - first[0]})


def _topics(view: Mapping[str, Any]) -> set[str]:
    return {f"dept.{source['entity']}" for source in view["sources"].values()}


def check(engine: sa.Engine, terms: Any, visits: Any) -> None:
    """Every view is what a fold of the events is, and nothing was set aside."""
    sums = {1: "sum(ward), sum(licence_number)", 2: "sum(ward), sum(last_critical_violations)"}
    wanted = {1: data.expected_terms(terms), 2: data.expected_businesses(terms, visits)}
    with engine.connect() as connection:
        for view in declared():
            levels, name = len(view["sources"]), view["view"]
            where = "WHERE _live" if levels == 1 else ""
            row = connection.execute(sa.text(f"SELECT count(*), {sums[levels]} FROM v_{name} {where}")).one()
            found = tuple(int(value or 0) for value in row)
            require(found == wanted[levels], f"{name} is {found}, not {wanted[levels]}")
        aside = connection.scalar(sa.text("SELECT count(*) FROM quarantine"))
    require(not aside, f"{aside} events in quarantine")


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not holds():
        require(time.monotonic() < deadline, f"waited {_TIMEOUT_S:g} s for {what}")
        time.sleep(0.05)
