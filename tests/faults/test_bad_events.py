"""Events that kill who decodes them, and schemas that nobody can look up (F12, F14)."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa
from figures import Figures
from homes import seconds_until
from test_registry_client import Server
from test_worker import publish_many, random_event
from views_bus import Bus
from views_world import Message

from bus.contracts import store
from bus.contracts.registry import canonical
from bus.contracts.wire import frame
from bus.core.events import headers
from bus.core.names import subject_of
from bus.infra.database import write
from bus.views.store import QUARANTINE
from tests.conftest import free_port

pytestmark = pytest.mark.fault
NESTING = 100_000
"""Levels of a value that ends the process that decodes it (E16: about 5,000 do)."""


def force_recursive_schema(bus: Bus) -> int:
    """A version of the licence's contract that refers to itself, which the registry would refuse; its id."""
    schema = json.loads(json.dumps(bus.registry.contract(bus.licence).schema))
    tree = {"type": "record", "name": "Tree", "fields": [{"name": "next", "type": ["null", "Tree"], "default": None}]}
    schema["fields"].append({"name": "tree", "type": ["null", tree], "default": None})
    document = canonical(schema)
    with write(bus.registry._engine) as connection:
        fingerprint = hashlib.sha256(document.encode()).hexdigest()
        schema_id = store.schema_id_of(connection, fingerprint, document)
        store.add_version(connection, subject_of(bus.licence), 2, schema_id)
        store.raise_revision(connection)
    return schema_id


def bomb(bus: Bus, schema_id: int) -> Message:
    """A licence ``x`` whose tree is very deep: two bytes a level would be a record, one says that there is another."""
    record = b"\x02x" + b"\x00" * 5 + b"\x02" * NESTING + b"\x00"
    department, _, entity = bus.licence.partition(".")
    envelope = headers(event_id="bomb", department=department, entity=entity, operation="upsert")
    return Message(0, b"x", frame(schema_id, record), envelope)


def test_an_event_that_kills_its_reader(
    make_bus: Callable[..., Bus], sqlite_url: str, figures: Figures, full_length: bool
) -> None:
    """Forced into a topic past the registry: the process dies at most twice, then the offset is in quarantine, and
    everything around it is applied."""
    dice = random.Random(12)
    bus = make_bus(sqlite_url)
    publish_many(bus, 30, dice)
    schema_id = force_recursive_schema(bus)
    bombs = 3 if full_length else 1
    places = []
    for _ in range(bombs):
        places.append(len(bus.topics.log(bus.licence, 0)) + len(places))
        bus.send_raw(bus.licence, 0, bomb(bus, schema_id))
    bus.flush()
    bus.worker()
    recovery_s = seconds_until(lambda: _restarted(bus, bombs), timeout_s=120, what="the quarantine")
    deaths = len(bus.processes) - 1
    bus.wait()
    wrong = sum(bus.dump(name) != bus.expected(name) for name, shape in bus.shapes.items() if shape.contracts)
    with bus.engine.connect() as connection:
        kept = connection.execute(sa.select(QUARANTINE.c.partition, QUARANTINE.c.offset)).all()
    assert sorted(tuple(row) for row in kept) == [(0, place) for place in places]
    assert bus.processes[-1].poll() is None
    figures.record(
        "F12 event that kills its decoder", times=bombs, wrong=wrong, recovery_s=recovery_s, note=f"{deaths} deaths"
    )
    assert deaths <= 2 * bombs
    assert deaths > 0, "the event was not deadly, so this shows nothing"


def _restarted(bus: Bus, bombs: int) -> bool:
    """Starts a worker again that was killed; whether all is set aside."""
    if bus.processes[-1].poll() is not None:
        assert bus.processes[-1].returncode < 0
        bus.worker()
    return bus.store.quarantined() >= bombs


def test_a_schema_that_nobody_can_look_up(
    make_bus: Callable[..., Bus], sqlite_url: str, figures: Figures, full_length: bool
) -> None:
    """The registry is away when events of a new schema come: their partition waits, known schemas go on, nothing is set
    aside, and within 5 s of its return everything is applied."""
    dice, port = random.Random(13), free_port()
    bus = make_bus(sqlite_url)
    server = Server(bus.registry, port)
    publish_many(bus, 300, dice)
    bus.worker(registry=server.url)
    bus.wait()
    server.stop()
    publish_many(bus, 100, dice)
    bus.wait("food_business", "inspections")
    new_schema(bus)
    lag = waiting_events(bus, dice)
    bus.flush()
    outage_s, begun = (300.0 if full_length else 3.0), time.monotonic()
    while time.monotonic() < begun + outage_s:
        publish_inspections(bus, dice, 5)
        bus.wait("inspections")
    assert bus.store.quarantined() == 0
    assert bus.dump("food_business") != bus.expected("food_business"), "nothing waited, so this shows nothing"
    again = Server(bus.registry, port)
    recovery_s = seconds_until(lambda: bus.dump("food_business") == bus.expected("food_business"), what="the events")
    bus.wait()
    wrong = sum(bus.dump(name) != bus.expected(name) for name, shape in bus.shapes.items() if shape.contracts)
    wrong += bus.store.quarantined()
    again.stop()
    assert all(process.poll() is None for process in bus.processes)
    figures.record(
        f"F14 registry away {outage_s:.0f} s", wrong=wrong, recovery_s=recovery_s, note=f"{lag} events of an unknown id"
    )
    assert recovery_s <= 5.0


def new_schema(bus: Bus) -> None:
    """A further version of the licence's contract; what is published from now on is written with it."""
    schema = json.loads(json.dumps(bus.registry.contract(bus.licence).schema))
    schema["fields"].append({"name": "note", "type": ["null", "string"], "default": None})
    registered = bus.registry.register(schema)
    bus.topics.registry.schemas[registered.id + 1_000] = schema
    bus.topics.ids[bus.licence] = registered.id
    bus.topics.codecs.clear()


def waiting_events(bus: Bus, dice: random.Random) -> int:
    """Licences of the new schema; how many."""
    count = 0
    while count < 50:
        event = random_event(bus, dice)
        if event.entity == bus.licence and event.record is not None:
            bus.publish(replace(event, record={**event.record, "note": None}))
            count += 1
    return count


def publish_inspections(bus: Bus, dice: random.Random, count: int) -> None:
    """Events that the registry need not be asked for."""
    while count:
        event = random_event(bus, dice)
        if event.entity == bus.inspection:
            bus.publish(event)
            count -= 1
    bus.flush()
