"""Rebuilds beside a running worker on real Kafka: readers see the old view or the new one, whatever dies meanwhile."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from test_worker import publish_many, random_event, truncate
from views_bus import Bus, eventually

from bus.infra.database import open_database
from bus.views.catalogue import Shape
from bus.views.oracle.verify import Event
from bus.views.rebuilding.requests import Kind, Requests
from bus.views.rebuilding.swap import NEXT, OLD
from bus.views.tables import row_table

NAME = "food_business"
QUIET = 9_999


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, make_bus: Callable[[str], Bus]) -> Bus:
    """A bus on each database."""
    return make_bus(request.getfixturevalue(f"{request.param}_url"))


def ask(bus: Bus, kind: Kind, name: str = NAME) -> str:
    return Requests(open_database(bus.url, "governance")).ask(name, kind).id


def outcome(bus: Bus, name: str = NAME) -> dict[str, Any]:
    state = bus.store.state(name)
    return dict(state.rebuild or {}) if state else {}


def ended(bus: Bus, request: str, *, name: str = NAME, timeout_s: float = 40.0) -> dict[str, Any]:
    """What became of the request."""

    def over() -> bool:
        found = outcome(bus, name)
        return found.get("request") == request and found.get("state") != "building"

    eventually(over, timeout_s=timeout_s, what=f"the end of {request}")
    return outcome(bus, name)


def publish_quiet(bus: Bus) -> None:
    """One row that no other event touches."""
    record = {"term_id": "quiet", "licence": QUIET, "starts": None, "name": "quiet", "area": 1.0, "fee": None}
    bus.publish(Event(bus.licence, 0, 0, record))


def damage(bus: Bus, name: str = NAME) -> None:
    """Changes the quiet row behind the worker's back."""
    table = row_table(bus.shapes[name])
    with bus.engine.begin() as connection:
        connection.execute(sa.update(table).where(table.c.licence == QUIET).values(area=-77.0))


class Polling:
    """Reads the whole view again and again: whether the damage shows, and how many rows there are."""

    def __init__(self, bus: Bus, shape: Shape) -> None:
        self._engine, self._table = open_database(bus.url, "views", read_only=True), row_table(shape)
        self.seen: list[tuple[bool, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Polling:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        area = self._table.c.area
        whole = sa.select(sa.func.count(), sa.func.count().filter(area == -77.0)).select_from(self._table)
        while not self._ended.is_set():
            with self._engine.connect() as connection:
                rows, damaged = connection.execute(whole).one()
            self.seen.append((bool(damaged), rows))
            time.sleep(0.002)


def test_rebuilt_while_events_flow_and_readers_read(either: Bus) -> None:
    """Damage is repaired and counted; readers see the damaged view and then the right one, never a mix or an error; the
    live view stays fresh; an undo brings the damaged one back, which goes on from where it was."""
    bus, dice = either, random.Random(20)
    publish_quiet(bus)
    publish_many(bus, 3_000, dice)
    bus.worker()
    bus.wait(NAME)
    damage(bus)
    rows = bus.store.states()[NAME].rows
    with Polling(bus, bus.shapes[NAME]) as polling:
        request = ask(bus, "rebuild")
        while outcome(bus).get("request") != request or outcome(bus)["state"] == "building":
            publish_many(bus, 20, dice)
            time.sleep(0.05)
        found = outcome(bus)
        eventually(lambda: polling.seen and not polling.seen[-1][0], what="a read of the new view")
    assert (found["state"], found["repaired"]) == ("done", 1)
    damaged = [seen for seen, _ in polling.seen]
    assert damaged == sorted(damaged, reverse=True), "first the old view, then the new one"
    assert all(abs(count - rows) < 20 for _, count in polling.seen)
    bus.wait(NAME, "inspections")
    bus.check()
    undone = ended(bus, ask(bus, "undo"))
    assert undone["state"] == "done"
    publish_many(bus, 50, dice)
    bus.wait(NAME)
    with bus.engine.connect() as connection:
        table = row_table(bus.shapes[NAME])
        assert connection.scalar(sa.select(sa.func.count()).where(table.c.area == -77.0)) == 1
    assert ended(bus, ask(bus, "rebuild"))["repaired"] == 1
    bus.wait(NAME, "inspections")
    bus.check()


@pytest.mark.parametrize("point", ["swap begun", "before swap", "after swap"])
def test_killed_in_the_swap(bus: Bus, point: str) -> None:
    """A worker that dies before the swap's commit leaves the old view and its successor finishes; after it, the new."""
    dice = random.Random(21)
    publish_many(bus, 500, dice)
    first = bus.worker(kill_at=(point, 1))
    bus.wait(NAME)
    request = ask(bus, "rebuild")
    eventually(lambda: first.poll() is not None, what="the crash")
    assert first.returncode == -signal.SIGKILL
    assert bus.dump(NAME) == bus.expected(NAME)
    assert (NAME + NEXT in bus.store.states()) == (point != "after swap")
    publish_many(bus, 100, dice)
    bus.worker()
    assert ended(bus, request)["state"] == "done"
    bus.wait(NAME, "inspections")
    bus.check()
    assert NAME + OLD in bus.store.states()


def test_a_changed_declaration_is_built_beside(bus: Bus) -> None:
    """Until the new tables are there the view answers under the old declaration and follows its topics; fields that
    can be changed in place need no rebuild; a dropped view leaves nothing behind."""
    from bus.views.applied import applied_shape

    dice = random.Random(22)
    publish_many(bus, 500, dice)
    bus.worker()
    bus.wait(NAME, "inspections")
    document = json.loads(json.dumps(bus.declarations.get(NAME).document))
    document["sources"]["licence"]["rank"] = ["area"]
    bus.declarations.apply(document, bus.registry.contracts())
    declared = bus.shapes[NAME]

    def rank() -> tuple[str, ...]:
        state = bus.store.states()[NAME]
        return applied_shape(declared, state.fingerprint, state.shape).view.sources[0].rank

    assert rank() == ("starts", "name")
    publish_many(bus, 200, dice)
    eventually(lambda: rank() == ("area",), what="the swap")
    bus.wait(NAME, "inspections")
    bus.check()
    assert "ranks are others" in outcome(bus)["why"]
    epoch = bus.store.states()[NAME].epoch
    document["fields"] = {("title" if n == "name" else n): f for n, f in document["fields"].items() if n != "fee"}
    other = json.loads(json.dumps(bus.declarations.get("by_result").document))
    bus.declarations.drop("by_result")
    bus.declarations.apply(document, bus.registry.contracts())
    publish_many(bus, 200, dice)
    bus.wait(NAME)
    assert bus.dump(NAME) == bus.expected(NAME)
    assert bus.store.states()[NAME].epoch == epoch
    assert other["over"]
    bus.declarations.drop(NAME)
    eventually(lambda: {NAME, NAME + OLD} & set(bus.store.states()) == set(), what="dropping all generations")


def test_a_rebuild_that_would_lose_events_is_refused(bus: Bus) -> None:
    """Where the topic has lost what the view has, the view stays as it is and says why; nothing is skipped."""
    publish_many(bus, 300, random.Random(23))
    bus.worker()
    bus.wait(NAME, "inspections")
    before = bus.dump(NAME)
    truncate(bus, {place: end // 2 for place, end in bus.admin.end_offsets([f"dept.{bus.licence}"]).items()})
    found = ended(bus, ask(bus, "rebuild"))
    assert found["state"] == "refused"
    assert "would lose them" in found["reason"]
    assert (bus.dump(NAME), bus.store.states()[NAME].state) == (before, "live")
    assert NAME + NEXT not in bus.store.states()
    assert ended(bus, ask(bus, "undo"))["state"] == "refused"
    publish_many(bus, 20, random.Random(24))
    bus.wait(NAME, "inspections")
    bus.check()


def test_two_workers_share_views(bus: Bus) -> None:
    """A second worker is given views while events flow; when it is killed the first takes them back."""
    dice = random.Random(25)
    publish_many(bus, 300, dice)
    bus.worker()
    bus.wait(NAME, "inspections")
    second = bus.worker()

    def counts() -> list[int]:
        owners = [state.worker for name, state in bus.store.states().items() if state.worker]
        return sorted(owners.count(owner) for owner in set(owners))

    eventually(lambda: counts() == [1, 2], what="a fair share")
    publish_many(bus, 200, dice)
    bus.wait(NAME, "inspections")
    bus.check()
    second.kill()
    publish_many(bus, 200, dice)
    eventually(lambda: counts() == [3], what="the take-over")
    bus.wait(NAME, "inspections")
    bus.check()
    assert random_event(bus, dice)


def test_a_topic_made_anew_stops_its_views(bus: Bus) -> None:
    """A topic of the same name with more events than before is another topic: its views stop; a rebuild that is asked
    for builds them from the new one."""
    publish_many(bus, 200, random.Random(26))
    bus.worker()
    bus.wait(NAME, "inspections")
    made_anew(bus, f"dept.{bus.licence}")
    eventually(lambda: bus.store.states()[NAME].state == "stopped", what="the stop")
    assert "made anew" in bus.store.states()[NAME].reason
    gone = [event for event in bus.topics.events if event.entity == bus.licence]
    bus.topics.events[:] = [event for event in bus.topics.events if event.entity != bus.licence]
    for place in [place for place in bus.topics.logs if place[0] == bus.licence]:
        bus.topics.logs[place].clear()
    for event in [*gone, *gone]:
        bus.publish(event)
    bus.flush()
    assert ended(bus, ask(bus, "rebuild"))["state"] == "done"
    bus.wait(NAME)
    assert bus.dump(NAME) == bus.expected(NAME)


def made_anew(bus: Bus, topic: str) -> None:
    """Deletes the topic and makes another of its name."""
    from kafka import KafkaAdminClient

    admin = KafkaAdminClient(**bus.kafka.kafka_python())
    admin.delete_topics([topic])
    eventually(lambda: topic not in bus.admin.topics(), what="the deletion")
    admin.close()
    bus.admin.ensure_topic(topic, partitions=2)
