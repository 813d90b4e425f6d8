"""B2: building views from topics into SQLite and PostgreSQL, by the worker as it runs.

(a) one level: the entity's key is the view's key. (b) two levels: two sources, several records to a row. Every run
reads the same topics from their beginning into an empty database; what it built is compared with a fold of the records.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

import psycopg
import sqlalchemy as sa

from benchmarks import data
from benchmarks.harness import Goal, Plan, Sample, require
from benchmarks.world import World, child
from bus.infra.database import open_database

VIEWS: Final[dict[str, dict[str, Any]]] = {"a": data.ONE_LEVEL, "b": data.TWO_LEVELS}
TOPIC: Final = "dept.bench.licence"
DATABASES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
QUIX: Final = "Quix Streams + its PostgreSQL sink"
FAUST: Final = "Faust, one event at a time, PostgreSQL"
STAGES: Final = ("read", "decode", "write")
_TABLE: Final = """CREATE TABLE term (licence_term_id bigint PRIMARY KEY, licence_number bigint, legal_name text,
address text, description text, zip_code text, ward bigint, term_start date,
event_partition int, event_offset bigint)"""


def ours(part: str, kind: str) -> str:
    return f"bus worker ({part}) {DATABASES[kind]}"


def stage(part: str, kind: str, name: str) -> str:
    return f"  stage {name} ({part}) {DATABASES[kind]}"


def plan(world: World, events: int) -> Plan:
    """``events`` of each of the two entities; Faust, which is slow, reads a tenth of them."""
    runs: dict[str, Callable[[], Sample | Mapping[str, Sample]]] = {}
    for kind in DATABASES:
        for part in VIEWS:
            runs[ours(part, kind)] = lambda kind=kind, part=part: _worker(world, events, part, kind)  # type: ignore[misc]
        runs[f"stages {kind}"] = lambda kind=kind: _stages(world, events, "a", kind)  # type: ignore[misc]
    if has_quix():
        runs[QUIX] = lambda: _quix(world, events)
    runs[FAUST] = lambda: _faust(world, max(events // 10, 100), events)
    return Plan("B2", "events/s", runs, list(_goals()), {
        "(a) / Kafka Connect with Debezium's JDBC sink (≥ 5)": "not in this first form: needs Connect and its jars",
    })  # fmt: skip


def has_quix() -> bool:
    try:
        import quixstreams  # noqa: F401
    except ImportError:
        return False
    return True


def _goals() -> list[Goal]:
    found = []
    for kind, title in DATABASES.items():
        found += [
            Goal(f"(a) {title} / Quix Streams + PostgreSQL sink", ours("a", kind), QUIX, 6.0),
            Goal(f"(a) {title} / Faust one event at a time", ours("a", kind), FAUST, 12.0),
            Goal(
                f"(a) {title} / its slowest stage alone",
                ours("a", kind),
                tuple(stage("a", kind, name) for name in STAGES),
                0.8,
            ),
            Goal(f"(b) / (a) {title}", ours("b", kind), ours("a", kind), 0.5),
        ]
    return found


def _kafka(world: World) -> dict[str, str]:
    return {name: getattr(world.kafka, name) for name in ("bootstrap", "username", "password")}


def _given(world: World, part: str, url: str) -> dict[str, Any]:
    folder = f"sqlite:///{world.folder / uuid.uuid4().hex}"
    return {"database": url, "governance": folder, "view": VIEWS[part], "kafka": _kafka(world)}


def _worker(world: World, events: int, part: str, kind: str) -> Sample:
    terms, visits = world.events(events)
    url = world.fresh(kind)
    found = child("benchmarks.run_worker", _given(world, part, url))
    check_view(url, part, terms, visits)
    _dropped(world, url)
    memory = max(mib for _, _, mib in found["commits"])
    return Sample(found["events"], found["seconds"], {"MiB": memory})


def _stages(world: World, events: int, part: str, kind: str) -> dict[str, Sample]:
    terms, visits = world.events(events)
    url = world.fresh(kind)
    found = child("benchmarks.stages", _given(world, part, url))
    wanted = len(terms) if part == "a" else len(terms) + len(visits)
    require(found["events"] == wanted, f"the stages read {found['events']} of {wanted} events")
    check_view(url, part, terms, visits)
    _dropped(world, url)
    return {stage(part, kind, name): Sample(wanted, found[name]) for name in STAGES}


def check_view(url: str, part: str, terms: Any, visits: Any) -> None:
    """The view has exactly the rows that a fold of the events has, and nothing was set aside."""
    engine = open_database(url, "views", durable=False)
    name = VIEWS[part]["view"]
    sums = "sum(ward), sum(licence_number)" if part == "a" else "sum(ward), sum(last_critical_violations)"
    where = "WHERE _live" if part == "a" else ""
    with engine.connect() as connection:
        found = connection.execute(sa.text(f"SELECT count(*), {sums} FROM v_{name} {where}")).one()
        aside = connection.execute(sa.text("SELECT count(*) FROM quarantine")).scalar()
    engine.dispose()
    expected = data.expected_terms(terms) if part == "a" else data.expected_businesses(terms, visits)
    require(tuple(int(value or 0) for value in found) == expected, f"{name} is {tuple(found)}, not {expected}")
    require(not aside, f"{aside} events in quarantine")


def _dropped(world: World, url: str) -> None:
    if url.startswith("postgresql"):
        world.pg().drop(url)


def _peer_table(world: World) -> tuple[str, dict[str, Any]]:
    url = world.fresh("postgresql")
    with psycopg.connect(url) as connection:
        connection.execute(_TABLE)
    named = {"port": world.pg().port, "dbname": url.rpartition("/")[2], "database": url}
    folder = str(world.folder / f"peer-{uuid.uuid4().hex}")
    return url, {**named, "topic": TOPIC, "kafka": _kafka(world), "folder": folder}


def _peer_rows(url: str) -> tuple[int, ...]:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*), sum(ward), sum(licence_number) FROM term").fetchone()
    return tuple(int(value or 0) for value in found or ())


def _quix(world: World, events: int) -> Sample:
    terms, _ = world.events(events)
    url, given = _peer_table(world)
    found = child("benchmarks.peers.quix_sink", {**given, "events": len(terms)})
    require(found["events"] == len(terms), f"Quix wrote {found['events']} of {len(terms)} events")
    rows = _peer_rows(url)
    require(rows == data.expected_terms(terms), f"Quix built {rows}")
    world.pg().drop(url)
    return Sample(found["timed"], found["seconds"])


def _faust(world: World, events: int, published: int) -> Sample:
    world.events(published)
    url, given = _peer_table(world)
    found = child("benchmarks.peers.faust_upserts", {**given, "events": events})
    rows = _peer_rows(url)
    require(rows[:2] == (found["rows"], found["wards"]) and found["events"] == events, f"Faust built {rows}")
    world.pg().drop(url)
    return Sample(found["timed"], found["seconds"])
