"""Events sent again and again, in any order, and one that nobody can read among many (F09, F10, F11)."""

from __future__ import annotations

import datetime as dt
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from figures import Figures
from judging import surplus, wrong
from test_worker import publish_many
from views_bus import Bus
from views_world import INSPECTION, INSPECTIONS, LICENCE, VIEW, FixedRegistry, Message, Topics

from bus.core.declarations import parse_view
from bus.infra.database import open_database
from bus.views.builder import Builder
from bus.views.catalogue import Shape, shape_of
from bus.views.oracle.verify import Event, dump
from bus.views.rebuilding.generation import prepare
from bus.views.store import QUARANTINE, ViewState, ViewStore
from bus.views.workers.lease import Leases

pytestmark = pytest.mark.fault
REGISTRY = FixedRegistry(LICENCE, INSPECTION)
SHAPES = [shape_of(parse_view(document), REGISTRY.contracts, {}) for document in (VIEW, INSPECTIONS)]
STALL_S = 5.0


def licences(dice: random.Random, count: int) -> list[Event]:
    """Of 50 terms, without versions: the order in the topic is all there is."""
    found = []
    for number in range(count):
        term = f"t{dice.randrange(50)}"
        record = {"term_id": term, "licence": dice.randrange(20), "starts": dt.date(2020, 1, 1), "name": f"n{number}"}
        gone = dice.random() < 0.1
        found.append(Event("market.licence", 0, 0, None if gone else {**record, "area": 1.0, "fee": None}, (term,)))
    return found


def inspections(dice: random.Random, records: int, revisions: int) -> list[Event]:
    """Every revision of every record once, in order; one in ten is a delete."""
    found = []
    for number in range(records):
        for revision in range(revisions):
            gone = dice.random() < 0.1
            record: dict[str, Any] = {"inspection": number, "business": dice.randrange(20), "revision": revision}
            record |= {"at": None, "result": f"{revision}", "passed": None}
            found.append(Event("food.inspection", number % 2, 0, None if gone else record, (number,), revision))
    return found


def built(url: str, events: list[Event]) -> tuple[list[bytes], dict[str, ViewState]]:
    """The views of these events, in the order given, and how they are doing; each database is used once."""
    engine, topics = open_database(url, "views", durable=False), Topics(REGISTRY)
    for event in events:
        topics.append(event)
    store = ViewStore(engine)
    for shape in SHAPES:
        epoch = Leases(engine, "w", 5.0).acquire(shape.view.name) or 0
        prepare(engine, shape, epoch)
        builder = Builder(engine, shape, epoch)
        for (entity, partition), log in topics.logs.items():
            for start in range(0, len(log), 700):
                if entity in shape.view.entities:
                    builder.apply([topics.batch(entity, partition, start, min(len(log), start + 700))])
    with engine.connect() as connection:
        dumps = [_dump(connection, shape) for shape in SHAPES]
    states = store.states()
    engine.dispose()
    return dumps, states


def _dump(connection: sa.Connection, shape: Shape) -> bytes:
    return dump(connection, shape)


def test_sent_again(sqlite_url: str, postgresql_url: str, tmp_path: Any, figures: Figures, full_length: bool) -> None:
    """Every event twice and one in ten ten times gives what sending each once gives, byte for byte. What has versions
    may come again at any time; what has none as a sender repeats it: from some event on, all that follow."""
    dice, size = random.Random(25), 10 if full_length else 1
    once = licences(dice, 400 * size), inspections(dice, 100 * size, 4)
    wanted, _ = built(f"sqlite:///{tmp_path}/once", [*once[0], *once[1]])
    again = [event for event in once[1] for _ in range(10 if dice.random() < 0.1 else 2)]
    dice.shuffle(again)
    repeated = []
    for start in range(0, len(once[0]), 20):
        repeated += once[0][start : start + 20] * (10 if dice.random() < 0.1 else 2)
    wrong = sum(built(url, [*repeated, *again])[0] != wanted for url in (sqlite_url, postgresql_url))
    figures.record("F09 every event twice, one in ten ten times", times=len(again) + len(repeated), wrong=wrong)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_out_of_order(request: pytest.FixtureRequest, figures: Figures, full_length: bool, database: str) -> None:
    """Revisions of each record in any order: the highest wins, deletes too; what came late is counted, exactly."""
    dice = random.Random(26)
    events = inspections(dice, 2_000 if full_length else 200, 5)
    dice.shuffle(events)
    late, highest = 0, dict[tuple[Any, ...], int]()
    for partition in (0, 1):  # as `built` applies them
        for event in (e for e in events if e.partition == partition):
            late += event.stated < highest.get(event.key, -1)
            highest[event.key] = max(event.stated, highest.get(event.key, -1))
    _, states = built(request.getfixturevalue(f"{database}_url"), events)
    state = states["inspections"]
    live = sum(event.record is not None for event in events if event.stated == 4)
    figures.record(
        f"F10 revisions in any order, {database}",
        times=len(events),
        lost=max(0, live - state.rows),
        wrong=max(0, state.rows - live) + abs(state.stale_dropped - late),
        note=f"{late} came late",
    )
    assert state.applied == len(events) - late


def test_one_unreadable_among_many(make_bus: Callable[..., Bus], sqlite_url: str, figures: Figures) -> None:
    """One event of rubbish among 10,000: all others are applied, it is set aside with its place and reason, and nothing
    waits for it."""
    dice, bus = random.Random(27), make_bus(sqlite_url)
    publish_many(bus, 5_000, dice)
    place = len(bus.topics.log(bus.licence, 0))
    headers = bus.topics.log(bus.licence, 0)[-1].headers
    bus.send_raw(bus.licence, 0, Message(0, b"x", b"\x00\x00\x00\x00\x01rubbish", headers))
    publish_many(bus, 4_999, dice)
    bus.worker(batch_events=1_000)
    longest_s, moved, at, end = 0.0, time.monotonic(), 0, 0
    while at == 0 or at < end:
        end = sum(len(bus.topics.log(entity, part)) for entity in (bus.licence, bus.inspection) for part in (0, 1)) + 1
        applied = sum(p.next_offset for p in bus.store.positions("food_business"))
        if at:  # before that it is starting
            longest_s = max(longest_s, time.monotonic() - moved)
        if applied != at:
            moved, at = time.monotonic(), applied
        assert time.monotonic() < moved + 60
        time.sleep(0.02)
    bus.wait()
    with bus.engine.connect() as connection:
        (kept,) = connection.execute(sa.select(QUARANTINE)).mappings()
    assert (kept["topic"], kept["partition"], kept["offset"]) == (f"dept.{bus.licence}", 0, place)
    assert kept["reasons"]
    missing = surplus(bus)
    figures.record(
        "F11 one unreadable among 10,000",
        lost=-sum(min(0, count) for count in missing.values()),
        wrong=wrong(bus) - 1 + sum(max(0, count) for count in missing.values()),
        note=f"longest standstill {longest_s:.1f} s",
    )
    assert longest_s <= STALL_S
