"""B9: one view streamed to fifty consumers, each with a row condition and masks of its own, into fifty topics.

The rows changed while nobody wrote streams; then the process runs until every stream is where the view is. The topics
must have grown by exactly the rows that each consumer may see, or the run does not count. The second run gives each
changed row to one consumer of the fifty: if cost grew with consumers times rows, its rate would be a fiftieth.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from benchmarks import data
from benchmarks.harness import Goal, Plan, Sample, require
from benchmarks.world import ROOT, World, child
from bus.contracts.registry import Registry
from bus.infra.database import open_database
from bus.infra.kafka import Admin
from bus.views.catalogue import Declarations
from bus.views.store import ViewStore
from bus.views.waiting import wait
from bus.wiring.viewing import CurrentShapes

CONSUMERS: Final = tuple(f"reader_{number:02}" for number in range(50))
ALL: Final = "every row to all 50 consumers"
ONE: Final = "every row to one of 50 consumers"
WANTED: Final = "20,000 rows/s"
FIELDS: Final = ("licence_term_id", "licence_number", "legal_name", "address", "zip_code", "ward", "term_start")
VIEW: Final[dict[str, Any]] = data.ONE_LEVEL
_MASKS: Final[Sequence[tuple[str, Any]]] = (
    ("legal_name", lambda number: {"keep_first": number % 20}),
    ("address", lambda number: {"keep_last": number % 15}),
    ("term_start", lambda number: {"month": True}),
    ("licence_number", lambda number: {"hash": True}),
)
_READY_S: Final = 300.0


def plan(world: World, rows: int) -> Plan:
    """``rows``: of the view; a quarter of them change in the first run, all in the second."""
    dice = random.Random(9)
    _declare(world, rows)
    runs = {
        ALL: lambda: _run(world, rows // 4, dice, lambda number: data.WARDS),
        ONE: lambda: _run(world, rows, dice, lambda number: None),
        WANTED: lambda: Sample(20_000, 1),
    }
    goals = [
        Goal("rows delivered to 50 consumers / 20,000 a second", ALL, WANTED, 1.0),
        Goal("rate where each row goes to one of 50 / where it goes to all", ONE, ALL, 0.5),
    ]
    return Plan("B9", "rows delivered/s", runs, goals)


def _declare(world: World, rows: int) -> None:
    for name in CONSUMERS:
        contact = f"data@{name}.example"
        world.api.post("/v1/departments", {"id": name, "title": {"zh": name, "en": name}, "contact": contact})
    world.api.put(f"/v1/declarations/{VIEW['view']}", VIEW)
    _publish(world, _terms(range(rows), random.Random(1)))


def _terms(numbers: Sequence[int], dice: random.Random) -> list[dict[str, Any]]:
    return [
        {
            "licence_term_id": number,
            "licence_number": number // 3,
            "legal_name": f"Lakeside Provisions & Catering {dice.randrange(10_000)} Ltd",
            "address": f"{dice.randrange(100, 9_999)} West Madison Street",
            "description": "Retail food establishment",
            "zip_code": f"{dice.randrange(10**9):09}",  # nobody has it masked: every change shows
            "ward": number % data.WARDS + 1,
            "term_start": dt.date(2014, 1, 1) + dt.timedelta(days=dice.randrange(3_000)),
        }
        for number in numbers
    ]


def _publish(world: World, rows: Sequence[Mapping[str, Any]]) -> None:
    with world.publisher() as publisher:
        publisher.publish_many("licence", rows)


def _run(world: World, changed: int, dice: random.Random, most: Any) -> Sample:
    """``most``: the highest ward that a consumer sees, by its number; None: only the one of that number."""
    with _worker(world):
        _grant(world, most)
        _wait(world)
        child(
            "benchmarks.run_streams", {"streams": len(CONSUMERS)}, environment=_environment(world), timeout_s=_READY_S
        )
        rows = _terms(dice.sample(range(changed * 4 if most(0) else changed), changed), dice)
        _publish(world, rows)
        _wait(world)
    before = _ends(world)
    given = {"streams": len(CONSUMERS)}
    found = child("benchmarks.run_streams", given, environment=_environment(world), timeout_s=_READY_S)
    grown = {topic: end - before[topic] for topic, end in _ends(world).items()}
    wanted = {f"share.{name}.{VIEW['view']}": _visible(rows, number, most) for number, name in enumerate(CONSUMERS)}
    require(grown == wanted, f"the topics grew by {sum(grown.values())} records, not {sum(wanted.values())}")
    require(found["appended"] == sum(wanted.values()), "something was sent twice")
    extra = {"cpu_s": found["cpu_s"], "rows_per_cpu_s": found["appended"] / found["cpu_s"]}
    return Sample(found["appended"], found["seconds"], extra)


def _visible(rows: Sequence[Mapping[str, Any]], number: int, most: Any) -> int:
    if most(number) is None:
        return sum(row["ward"] == number + 1 for row in rows)
    return sum(row["licence_term_id"] >= 0 and row["ward"] <= most(number) for row in rows)


def _grant(world: World, most: Any) -> None:
    today = dt.datetime.now(dt.UTC).date()
    grants = [
        {
            "id": f"bench-{name}",
            "consumer": name,
            "view": VIEW["view"],
            "purpose": data.PURPOSE,
            "channels": ["stream"],
            "fields": list(FIELDS),
            "masks": {field: mask(number) for place, (field, mask) in enumerate(_MASKS) if number >> place & 1},
            "rows": _condition(number, most(number)),
            "valid": {"from": today.isoformat(), "to": (today + dt.timedelta(days=2)).isoformat()},
            "legal_basis": "none: made-up records",
        }
        for number, name in enumerate(CONSUMERS)
    ]
    document = {"set": "streams", "author": "li.na@governance", "approver": "wang.wei@governance", "grants": grants}
    world.api.put("/v1/grants/sets/streams", {"document": document, "os_user": "bench"})


def _condition(number: int, most: int | None) -> dict[str, Any]:
    """A condition of its own for each consumer."""
    if most is None:
        return {"field": "ward", "op": "eq", "value": number + 1}
    own = {"field": "licence_term_id", "op": "gte", "value": -number}  # all have it, no two in the same words
    return {"all": [{"field": "ward", "op": "lte", "value": most}, own]}


def _environment(world: World) -> dict[str, str]:
    return {
        "BUS_HOME": str(world.home),
        "BUS_KAFKA": world.bootstrap,
        "BUS_OPA": str(world.stack.state().opa),  # type: ignore[union-attr] # it runs
        "PYTHONPATH": str(ROOT),
    }


@contextmanager
def _worker(world: World) -> Iterator[None]:
    """`bus worker`, until the block ends."""
    environment = {**os.environ, **_environment(world), "TZ": "UTC"}
    with (world.folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            (sys.executable, "-m", "bus.cli", "worker"), env=environment, stdout=log, stderr=log, cwd=ROOT
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait(world: World) -> None:
    """Returns when the view has applied all that is in its topic by now."""
    governance = open_database(world.database, "governance")
    known = CurrentShapes(Declarations(governance), Registry(governance))()
    views = ViewStore(open_database(world.database, "views", durable=False))
    with Admin(world.kafka) as admin:
        wait(views, known, admin.end_offsets, (VIEW["view"],), _READY_S)


def _ends(world: World) -> dict[str, int]:
    topics = [f"share.{name}.{VIEW['view']}" for name in CONSUMERS]
    with Admin(world.kafka) as admin:
        return {topic: offset for (topic, _), offset in admin.end_offsets(topics).items()}
