"""B5: from an event's acknowledgement to its being visible in a view, at 1,000 events a second with 20 views.

One worker builds ten views of one level and ten of two levels over the same topic. Visible is an event when another
connection sees a position beyond it: rows and positions are committed together, and the rows are counted at the end.
Beside p50 and p99 stand those of the legs of that way (see `benchmarks.legs`).
"""

from __future__ import annotations

import asyncio
import bisect
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

import sqlalchemy as sa
from aiokafka import AIOKafkaProducer

from benchmarks import data
from benchmarks.harness import Goal, Plan, Sample, require
from benchmarks.legs import LEGS, Passed, Sent, legs, read, share
from benchmarks.views import DATABASES, TOPIC, _dropped, _kafka
from benchmarks.world import ROOT, World
from bus.contracts.codec import Codec
from bus.contracts.wire import frame
from bus.core.events import headers, record_key
from bus.infra.database import open_database

RATE: Final = 1_000
VIEWS: Final = 20
_TICK_S: Final = 0.01
_LOOK_S: Final = 0.002
_READY_S: Final = 90.0
P50_MS: Final = 50.0
P99_MS: Final = 250.0
Seen = dict[tuple[str, int], tuple[list[int], list[float]]]


def plan(world: World, events: int) -> Plan:
    runs: dict[str, Callable[[], Mapping[str, Sample]]] = {
        kind: lambda kind=kind: _run(world, events, kind)  # type: ignore[misc]
        for kind in DATABASES
    }
    goals = []
    for kind, title in DATABASES.items():
        goals += [
            Goal(f"{title}: {P50_MS:g} ms / p50", _name(kind, "p50"), "one", 1.0),
            Goal(f"{title}: {P99_MS:g} ms / p99", _name(kind, "p99"), "one", 1.0),
        ]
    return Plan("B5", "x the goal", {**runs, "one": lambda: Sample(1, 1)}, goals)


def _name(kind: str, figure: str) -> str:
    return f"freshness {figure}, {VIEWS} views, {RATE:,}/s, {DATABASES[kind]}"


def twenty_views() -> list[dict[str, Any]]:
    halves = (data.ONE_LEVEL, data.TWO_LEVELS)
    return [{**halves[number % 2], "view": f"bench_view_{number:02}"} for number in range(VIEWS)]


def _run(world: World, events: int, kind: str) -> Mapping[str, Sample]:
    url = world.fresh(kind)
    stamps = world.folder / f"{uuid.uuid4().hex}.json"
    given = {
        "stamps": str(stamps),
        "database": url,
        "governance": f"sqlite:///{world.folder / uuid.uuid4().hex}",
        "views": twenty_views(),
    }
    command = [sys.executable, "-m", "benchmarks.run_stamped"]
    command.append(json.dumps({**given, "kafka": _kafka(world), "for_ever": True}))
    worker = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TZ": "UTC"}, stderr=subprocess.DEVNULL)
    try:
        sent, seen = _measured(world, events, url)
    finally:
        worker.terminate()
        worker.wait(timeout=20)
    _dropped(world, url)
    delays = [delay for one in sent for delay in _delays(seen, one.partition, one.offset, one.acknowledged)]
    p50, p99 = share(delays, 0.5), share(delays, 0.99)
    ways = _legs(sent, read(stamps), seen)
    return {
        _name(kind, "p50"): Sample(P50_MS, p50, {"ms": p50, "worst": max(delays) * 1_000, **_of(ways, 0.5)}),
        _name(kind, "p99"): Sample(P99_MS, p99, {"ms": p99, **_of(ways, 0.99)}),
    }


def _legs(sent: list[Sent], rounds: list[Passed], seen: Seen) -> dict[str, list[float]]:
    """The legs of every event in every view."""
    found: dict[str, list[float]] = {leg: [] for leg in LEGS}
    for number, view in enumerate(sorted({view for view, _ in seen})):
        own = {partition: looked for (name, partition), looked in seen.items() if name == view}
        for leg, seconds in legs(sent, rounds, own, number).items():
            found[leg] += seconds
    return found


def _of(ways: Mapping[str, list[float]], part: float) -> dict[str, float]:
    return {leg: share(seconds, part) for leg, seconds in ways.items()}


def _measured(world: World, events: int, url: str) -> tuple[list[Sent], Seen]:
    """Every event, and which positions were seen when."""
    engine = open_database(url, "views", durable=False)
    stop, seen = threading.Event(), defaultdict[tuple[str, int], Any](lambda: ([], []))
    ends = {place[1]: end for place, end in world.ends(TOPIC).items()}
    _until(lambda: _caught_up(engine, ends), "the views to be there")
    looking = threading.Thread(target=_look, args=(engine, seen, stop))
    looking.start()
    acknowledged = asyncio.run(_publish(world, events))
    after = {place[1]: end for place, end in world.ends(TOPIC).items()}
    _until(lambda: _caught_up(engine, after), "the views to catch up")
    stop.set()
    looking.join()
    with engine.connect() as connection:
        for name in (f"bench_view_{number:02}" for number in range(0, VIEWS, 2)):
            found = connection.scalar(sa.text(f"SELECT count(*) FROM v_{name} WHERE _v3 >= 0 AND _live")) or 0
            require(found >= events, f"{name} has {found} rows")
    engine.dispose()
    return acknowledged, dict(seen)


def _delays(seen: Seen, partition: int, offset: int, at: float) -> list[float]:
    found = []
    for (_, place), (offsets, times) in seen.items():
        if place == partition:
            first = bisect.bisect_right(offsets, offset)
            require(first < len(offsets), f"offset {offset} was never seen")
            found.append(max(0.0, times[first] - at))
    require(len(found) == VIEWS, f"{len(found)} views have partition {partition}")
    return found


def _look(engine: sa.Engine, seen: Seen, stop: threading.Event) -> None:
    """Notes when positions move. What looks all the time must not take the core from what it looks at: positions are
    read only where a view's number says that it changed."""
    numbers = sa.text("SELECT sum(seq) FROM view")
    statement = sa.text("SELECT view, partition, next_offset FROM position WHERE topic = :topic")
    last = None
    with engine.connect() as connection:
        while not stop.wait(_LOOK_S):
            number = connection.scalar(numbers)
            rows = [] if number == last else connection.execute(statement, {"topic": TOPIC}).all()
            connection.rollback()
            now, last = time.perf_counter(), number
            for view, partition, offset in rows:
                offsets, times = seen[view, partition]
                if not offsets or offset > offsets[-1]:
                    offsets.append(offset)
                    times.append(now)


def _caught_up(engine: sa.Engine, ends: Mapping[int, int]) -> bool:
    statement = sa.text("SELECT view, partition, next_offset FROM position WHERE topic = :topic")
    try:
        with engine.connect() as connection:
            rows = connection.execute(statement, {"topic": TOPIC}).all()
    except sa.exc.DatabaseError:  # no worker has made the tables yet
        return False
    return len(rows) == VIEWS * len(ends) and all(offset >= ends[partition] for _, partition, offset in rows)


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _READY_S
    while not holds():
        require(time.monotonic() < deadline, f"waited {_READY_S:g} s for {what}")
        time.sleep(0.1)


async def _publish(world: World, events: int) -> list[Sent]:
    """Events at the rate."""
    codec, number = Codec(data.LICENCE), world.schema_id("bench.licence")
    producer = AIOKafkaProducer(**world.kafka.aiokafka(), acks="all", enable_idempotence=True)
    await producer.start()
    found: list[Sent] = []

    async def one(record: dict[str, Any]) -> None:
        key, value = record_key([record["licence_term_id"]]).encode(), frame(number, codec.encode(record))
        event = str(uuid.uuid4())
        stated = headers(event_id=event, department=data.DEPARTMENT, entity="licence", operation="upsert")
        at = time.perf_counter()
        done = await producer.send_and_wait(TOPIC, value, key=key, headers=stated)
        found.append(Sent(done.partition, done.offset, at, time.perf_counter()))

    records = [{**record, "licence_term_id": 9_000_000 + n} for n, record in enumerate(data.licences(events))]
    each, sending, begun = round(RATE * _TICK_S), list[asyncio.Task[None]](), time.perf_counter()
    for start in range(0, events, each):
        sending += [asyncio.create_task(one(record)) for record in records[start : start + each]]
        await asyncio.sleep(max(0.0, begun + (start + each) / RATE - time.perf_counter()))
    await asyncio.gather(*sending)
    await producer.stop()
    require(time.perf_counter() - begun < 1.5 * events / RATE, "this machine cannot publish at the rate")
    return found
