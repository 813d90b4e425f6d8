"""B3: what an event costs when a view has many records, and the worker's memory while it gets there.

Every event is a record of its own. The worker reads the topic once; what it had applied and how much memory it held
is noted at each commit, so both ends of the growth are in one run.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import sqlalchemy as sa

from benchmarks import data
from benchmarks.harness import Goal, Plan, Sample, require
from benchmarks.views import DATABASES, TOPIC, _dropped, _given
from benchmarks.world import World, child
from bus.infra.database import open_database

MEMORY_MIB: Final = 300
CHUNK: Final = 50_000
_SPAN: Final = 0.1  # of the first and last events, over which a cost is taken
_STEP: Final = 7_919  # new keys come in no order: their pages are all over the table
_TIMEOUT_S: Final = 3_600.0


def plan(world: World, records: int) -> Plan:
    runs: dict[str, Callable[[], Mapping[str, Sample]]] = {
        kind: lambda kind=kind: _run(world, records, kind)  # type: ignore[misc]
        for kind in DATABASES
    }
    goals = []
    for kind, title in DATABASES.items():
        goals += [
            Goal(f"{title}: events/s with all records / with the first", _late(kind), _early(kind), 1 / 1.5),
            Goal(f"{title}: {MEMORY_MIB} MiB / the worker's most", _memory(kind), "one", 1.0),
            Goal(f"{title}: memory at half of the events / at their end", _flat(kind), "one", 0.9),
        ]
    return Plan("B3", "events/s", {**runs, "one": lambda: Sample(1, 1)}, goals)


def _early(kind: str) -> str:
    return f"first records, {DATABASES[kind]}"


def _late(kind: str) -> str:
    return f"last records, {DATABASES[kind]}"


def _memory(kind: str) -> str:
    return f"memory, {DATABASES[kind]}"


def _flat(kind: str) -> str:
    return f"growth of memory, {DATABASES[kind]}"


def _run(world: World, records: int, kind: str) -> Mapping[str, Sample]:
    _publish(world, records)
    url = world.fresh(kind)
    found = child("benchmarks.run_worker", _given(world, "a", url), timeout_s=_TIMEOUT_S)
    engine = open_database(url, "views", durable=False)
    with engine.connect() as connection:
        rows = connection.scalar(sa.text("SELECT count(*) FROM v_bench_term WHERE _live")) or 0
    engine.dispose()
    _dropped(world, url)
    require(rows == records, f"the view has {rows} rows of {records}")
    return judged(kind, found["commits"], records)


def judged(kind: str, commits: list[Any], records: int) -> Mapping[str, Sample]:
    """The samples in a worker's commits: (seconds, events applied, MiB)."""
    require(len(commits) > 1, "too few events for a growth")
    end, most = commits[-1], max(mib for _, _, mib in commits)
    first = next(one for one in commits[1:] if one[1] >= records * _SPAN or one is end)
    before = [one for one in commits[:-1] if one[1] <= records * (1 - _SPAN)] or commits[:1]
    half = next(one for one in commits if one[1] >= records / 2)
    return {
        _early(kind): Sample(first[1] - commits[0][1], first[0] - commits[0][0]),
        _late(kind): Sample(end[1] - before[-1][1], end[0] - before[-1][0], {"records": records}),
        _memory(kind): Sample(MEMORY_MIB, most, {"MiB": most}),
        _flat(kind): Sample(half[2], end[2], {"half": half[2], "end": end[2]}),
    }


def _publish(world: World, records: int) -> None:
    """As many records into the empty topic, in pieces: ten million dicts would not fit."""
    there = sum(world.ends(TOPIC).values())
    if there == records:
        return
    require(there == 0, f"the topic has {there} events of another figure: run B3 by itself")
    with world.publisher() as publisher:
        for start in range(0, records, CHUNK):
            publisher.publish_many("licence", terms(start, min(start + CHUNK, records), records))


def terms(start: int, stop: int, records: int) -> Iterator[dict[str, Any]]:
    """Those numbered ``start`` to ``stop`` of so many licence terms, each with a key of its own."""
    for number in range(start, stop):
        term = number * _STEP % records if records % _STEP else number
        yield {
            "licence_term_id": term,
            "licence_number": term // 3,
            "legal_name": f"Lakeside Provisions & Catering {term % 9_973} Ltd",
            "address": f"{number % 9_000 + 100} West Madison Street, Floor {number % 30}",
            "description": "Retail food establishment",
            "zip_code": f"606{term % 60:02}",
            "ward": term % data.WARDS + 1,
            "term_start": dt.date(2014, 1, 1) + dt.timedelta(days=term % 3_000),
        }
