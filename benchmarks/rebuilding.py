"""B4: what rebuilding a view beside itself costs by its size, and what it does to the freshness of live views.

Two views of one level: one over a quarter of the events, one over all of them. Each is rebuilt while nothing comes,
from the request to the swap; then, while 500 events a second come for the smaller one, the larger one is rebuilt (the
rebuild of another view) and the smaller one itself. A rate of freshness is 1 / p50: how often in a second a view that
fresh could be asked and show something newer.
"""

from __future__ import annotations

import asyncio
import bisect
import statistics
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from aiokafka import AIOKafkaProducer

from benchmarks import data
from benchmarks.freshness import Seen
from benchmarks.growth import CHUNK, terms
from benchmarks.harness import Goal, Plan, Sample, require
from benchmarks.views import DATABASES, _dropped, _kafka
from benchmarks.workers import running
from benchmarks.world import World
from bus.contracts.codec import Codec
from bus.contracts.wire import frame
from bus.core.events import headers, record_key
from bus.infra.database import open_database
from bus.views.rebuilding.requests import Requests
from bus.views.rebuilding.swap import NEXT, OLD
from bus.views.store import ViewStore

RATE: Final = 500
QUARTER: Final = "bench_quarter"
WHOLE: Final = "bench_whole"
ENTITIES: Final = {QUARTER: "notice", WHOLE: "licence"}
DECLARED: Final = [
    {**data.ONE_LEVEL, "view": view, "sources": {"licence": {"entity": f"{data.DEPARTMENT}.{entity}"}}}
    for view, entity in ENTITIES.items()
]
ALONE: Final = "alone"
OTHER: Final = "another is rebuilt"
SAME: Final = "it is rebuilt"
GROWTH: Final = 1 / 1.5
WORSE: Final = 1 / 2
_STEADY: Final = 100_000_000  # keys of what comes meanwhile, beyond those of the records
_ALONE_S: Final = 6.0
_TICK_S: Final = 0.01
_LOOK_S: Final = 0.002
_LEAST: Final = 50  # events that came during a rebuild: of fewer there is no median
_TIMEOUT_S: Final = 1_800.0


def plan(world: World, events: int) -> Plan:
    runs: dict[str, Callable[[], Mapping[str, Sample]]] = {
        kind: lambda kind=kind: _run(world, events, kind)  # type: ignore[misc]
        for kind in DATABASES
    }
    goals = []
    for kind, title in DATABASES.items():
        alone, other, same = (_fresh(kind, when) for when in (ALONE, OTHER, SAME))
        whole, quarter = ((_rebuilt(kind, view), _read(kind, view)) for view in (WHOLE, QUARTER))
        goals += [
            Goal(f"{title}: a rebuild's events/s, all / a quarter", whole[0], quarter[0], GROWTH),
            Goal(f"{title}: the same, while it reads", whole[1], quarter[1], GROWTH),
            Goal(f"{title}: p50 alone / while another is rebuilt", other, alone, WORSE),
            Goal(f"{title}: p50 alone / while it is rebuilt", same, alone, WORSE),
        ]
    return Plan("B4", "/s", dict(runs), goals)


def _rebuilt(kind: str, view: str) -> str:
    return f"rebuild, {view.removeprefix('bench_')}, {DATABASES[kind]}"


def _read(kind: str, view: str) -> str:
    return f"  while it reads, {view.removeprefix('bench_')}, {DATABASES[kind]}"


def _fresh(kind: str, when: str) -> str:
    return f"freshness, {when}, {DATABASES[kind]}"


@dataclass(slots=True)
class Rebuild:
    """One rebuild: when it was asked for, when its reading began and ended, when the new tables were in place."""

    asked: float
    began: float = 0.0
    read: float = 0.0
    done: float = 0.0


def _run(world: World, events: int, kind: str) -> dict[str, Sample]:
    published(world, {QUARTER: events // 4, WHOLE: events})
    url, governance = world.fresh(kind), f"sqlite:///{world.folder / uuid.uuid4().hex}"
    given = {"database": url, "governance": governance, "views": DECLARED, "kafka": _kafka(world), "for_ever": True}
    found: dict[str, Sample] = {}
    with running([given]):
        bench = Bench(world, url, governance)
        bench.built()
        for view in ENTITIES:
            one, work = bench.rebuild(view), sum(bench.ends(view).values())
            found[_rebuilt(kind, view)] = Sample(work, one.done - one.asked, {"s": one.done - one.asked})
            found[_read(kind, view)] = Sample(work, one.read - one.began, {"s": one.read - one.began})
        found |= {_fresh(kind, when): sample for when, sample in bench.freshness().items()}
        bench.built()
        for view, size in {QUARTER: events // 4, WHOLE: events}.items():
            bench.check(view, size)
        bench.close()
    _dropped(world, url)
    return found


def published(world: World, sizes: Mapping[str, int]) -> None:
    """So many records for each view, in pieces; what steady traffic added in an earlier run stays."""
    with world.publisher() as publisher:
        for view, size in sizes.items():
            there = sum(world.ends(f"dept.{data.DEPARTMENT}.{ENTITIES[view]}").values())
            require(there in (0, size) or (there > size and view == QUARTER), f"{view}'s topic has {there} events")
            for start in range(0, 0 if there else size, CHUNK):
                publisher.publish_many(ENTITIES[view], terms(start, min(start + CHUNK, size), size))


class Bench:
    """The two views as one who reads the database sees them."""

    def __init__(self, world: World, url: str, governance: str) -> None:
        self._world = world
        self._engine = open_database(url, "views", durable=False)
        self._store, self._requests = ViewStore(self._engine), Requests(open_database(governance, "governance"))

    def close(self) -> None:
        self._engine.dispose()

    def ends(self, view: str) -> dict[int, int]:
        """Where the partitions of the view's topic end now."""
        ends = self._world.ends(f"dept.{data.DEPARTMENT}.{ENTITIES[view]}")
        return {partition: end for (_, partition), end in ends.items()}

    def built(self) -> None:
        """Waits until both views have everything and say so."""
        for view in ENTITIES:
            ends = self.ends(view)
            _until(lambda v=view, e=ends: self._at(v) == e and self._state(v) == "live", f"{view} to be built")  # type: ignore[misc]

    def rebuild(self, view: str) -> Rebuild:
        """Asks for one and waits for its end; raises `WorkMissing` unless the new tables equal the old ones."""
        wanted, found = sum(self.ends(view).values()), Rebuild(time.perf_counter())
        request = self._requests.ask(view, "rebuild").id
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            state = self._store.state(view)
            doc = dict(state.rebuild or {}) if state else {}
            if doc.get("request") == request and doc["state"] != "building":
                break
            require(time.monotonic() < deadline, f"the rebuild of {view} did not end: {doc}")
            at = sum(self._at(view + NEXT).values())
            now = time.perf_counter()
            found.began = found.began or (now if at else 0.0)
            found.read = found.read or (now if at >= wanted else 0.0)
            time.sleep(_LOOK_S)
        found.done = time.perf_counter()
        found.began, found.read = found.began or found.asked, found.read or found.done
        require((doc["state"], doc.get("differing"), doc.get("hidden")) == ("done", 0, 0), f"{view}: {doc}")
        require(doc["rows"] >= wanted, f"{view} was rebuilt with {doc['rows']} rows of {wanted}")
        require(self._store.state(view + OLD) is not None, f"{view} was not swapped")
        return found

    def freshness(self) -> dict[str, Sample]:
        """From an event's acknowledgement to the smaller view's position beyond it: alone, and during two rebuilds."""
        seen: Seen = defaultdict(lambda: ([], []))
        stop = threading.Event()
        looking = threading.Thread(target=self._look, args=(seen, stop))
        looking.start()
        with Steady(self._world, sum(self.ends(QUARTER).values())) as steady:
            time.sleep(_ALONE_S / 3)  # the first events find connections to be made
            begun = time.perf_counter()
            time.sleep(_ALONE_S)
            spans = {ALONE: (begun, time.perf_counter())}
            for when, view in ((OTHER, WHOLE), (SAME, QUARTER)):
                one = self.rebuild(view)
                spans[when] = (one.began, one.done)
        self.built()
        stop.set()
        looking.join()
        return judged(seen, steady.acknowledged, spans)

    def check(self, view: str, size: int) -> None:
        """The view has exactly what was published: the records, and what came meanwhile."""
        more = sum(self.ends(view).values()) - size
        statement = sa.text(f"SELECT count(*), sum(ward), sum(licence_number) FROM v_{view} WHERE _live")
        with self._engine.connect() as connection:
            found = tuple(int(value or 0) for value in connection.execute(statement).one())
            aside = connection.scalar(sa.text("SELECT count(*) FROM quarantine"))
        wanted = (size + more, sum(n % data.WARDS + 1 for n in range(size)) + more, sum(n // 3 for n in range(size)))
        require(found == wanted and not aside, f"{view} is {found}, not {wanted}; {aside} events in quarantine")

    def _state(self, view: str) -> str:
        state = self._store.state(view)
        return state.state if state else ""

    def _at(self, view: str) -> dict[int, int]:
        return {position.partition: position.next_offset for position in self._store.positions(view)}

    def _look(self, seen: Seen, stop: threading.Event) -> None:
        """Notes when the smaller view's positions move."""
        statement = sa.text("SELECT partition, next_offset FROM position WHERE view = :view")
        with self._engine.connect() as connection:
            while not stop.wait(_LOOK_S):
                rows = connection.execute(statement, {"view": QUARTER}).all()
                connection.rollback()
                now = time.perf_counter()
                for partition, offset in rows:
                    offsets, times = seen[QUARTER, partition]
                    if not offsets or offset > offsets[-1]:
                        offsets.append(offset)
                        times.append(now)


def judged(
    seen: Seen, acknowledged: list[tuple[int, int, float]], spans: Mapping[str, tuple[float, float]]
) -> dict[str, Sample]:
    """1 / p50 of the events acknowledged in each span."""
    found = {}
    for when, (begun, ended) in spans.items():
        delays = []
        for partition, offset, at in acknowledged:
            if begun <= at <= ended:
                offsets, times = seen[QUARTER, partition]
                first = bisect.bisect_right(offsets, offset)
                require(first < len(offsets), f"offset {offset} was never seen")
                delays.append(max(0.0, times[first] - at))
        require(len(delays) >= _LEAST, f"only {len(delays)} events came while {when}: take more records")
        p50, p99 = statistics.median(delays), sorted(delays)[int(len(delays) * 0.99)]
        extra = {"p50 ms": p50 * 1_000, "p99 ms": p99 * 1_000, "events": len(delays), "s": ended - begun}
        found[when] = Sample(1, max(p50, 1e-6), extra)
    return found


@dataclass(slots=True)
class Steady:
    """Publishes events for the smaller view, `RATE` a second, until the block ends, each of a key of its own from
    ``first`` on. ``acknowledged``: partition, offset and time of each."""

    world: World
    first: int
    acknowledged: list[tuple[int, int, float]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _trouble: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Steady:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        require(not self._trouble, f"steady traffic ended: {self._trouble}")

    def _run(self) -> None:
        try:
            asyncio.run(self._publish())
        except BaseException as error:  # told by whoever waits for the thread
            self._trouble.append(error)

    async def _publish(self) -> None:
        codec, number = Codec(data.NOTICE), self.world.schema_id("bench.notice")
        (record,) = terms(0, 1, 1)
        producer = AIOKafkaProducer(**self.world.kafka.aiokafka(), acks="all", enable_idempotence=True)
        await producer.start()

        async def one(key: int) -> None:
            value = frame(number, codec.encode({**record, "licence_term_id": _STEADY + key}))
            event = str(uuid.uuid4())
            stated = headers(event_id=event, department=data.DEPARTMENT, entity="notice", operation="upsert")
            topic, named = f"dept.{data.DEPARTMENT}.notice", record_key([_STEADY + key]).encode()
            done = await producer.send_and_wait(topic, value, key=named, headers=stated)
            self.acknowledged.append((done.partition, done.offset, time.perf_counter()))

        each, sending, sent, begun = round(RATE * _TICK_S), set[asyncio.Task[Any]](), 0, time.perf_counter()
        while not self._stop.is_set():
            for _ in range(each):
                task = asyncio.create_task(one(self.first + sent))
                sending.add(task)
                task.add_done_callback(sending.discard)
                sent += 1
            await asyncio.sleep(max(0.0, begun + sent / RATE - time.perf_counter()))
        await asyncio.gather(*sending)
        await producer.stop()
        require(len(self.acknowledged) == sent, f"{len(self.acknowledged)} of {sent} events were acknowledged")
        require(time.perf_counter() - begun < 1.5 * sent / RATE, "this machine cannot publish at the rate")


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not _there(holds):
        require(time.monotonic() < deadline, f"waited {_TIMEOUT_S:g} s for {what}")
        time.sleep(0.1)


def _there(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except sa.exc.DatabaseError:  # no worker has made the tables yet
        return False
