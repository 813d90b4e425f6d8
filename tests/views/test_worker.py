"""The worker on real Kafka: builds, follows, survives being killed, hands over."""

from __future__ import annotations

import datetime as dt
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from views_bus import Bus, eventually
from views_world import Message

from bus.views.oracle.verify import Event, dump_rows, fold, fold_aggregate
from bus.views.store import QUARANTINE


def random_event(bus: Bus, dice: random.Random) -> Event:
    """An upsert, or one time in ten a delete, of one of a few hundred records."""
    gone = dice.random() < 0.1
    if dice.random() < 0.5:
        term = dice.randrange(200)
        record = {
            "term_id": f"t{term}",
            "licence": dice.choice([None, *range(60)]),
            "starts": dt.date(2010, 1, 1) + dt.timedelta(days=dice.randrange(50)),
            "name": dice.choice(["a", "b", "c", None]),
            "area": dice.random(),
            "fee": None,
        }
        return Event(bus.licence, term % 2, 0, None if gone else record, (f"t{term}",))
    inspection = dice.randrange(200)
    record = {
        "inspection": inspection,
        "business": dice.choice([None, *range(60)]),
        "revision": dice.randrange(100),
        "at": None,
        "result": dice.choice(["Pass", "Fail", None]),
        "passed": None,
    }
    return Event(bus.inspection, inspection % 2, 0, None if gone else record, (inspection,), dice.randrange(100))


def publish_many(bus: Bus, count: int, dice: random.Random) -> None:
    for _ in range(count):
        bus.publish(random_event(bus, dice))
    bus.flush()


def stop(process: Any) -> float:
    """Seconds that a worker takes to end after SIGTERM."""
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=20)
    return time.monotonic() - started


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, make_bus: Callable[[str], Bus]) -> Bus:
    """A bus on each database."""
    return make_bus(request.getfixturevalue(f"{request.param}_url"))


def test_builds_and_follows(either: Bus) -> None:
    """What was there and what comes later is in the views, aggregates included; a stop takes under 3 seconds and the
    next worker goes on at once."""
    dice = random.Random(1)
    publish_many(either, 2_000, dice)
    worker = either.worker()
    either.wait()
    either.check()
    publish_many(either, 500, dice)
    either.wait()
    either.check()
    shape = either.shapes["by_result"]
    rows = {
        name: fold(either.shapes[name].view, either.registry.contracts(), either.topics.events)
        for name in shape.view.reads
    }
    assert either.dump("by_result") == dump_rows(shape.columns, fold_aggregate(shape, either.shapes, rows))
    assert all(seconds < 10 for seconds in either.store.freshness("food_business").values())
    assert set(either.store.freshness("food_business")) == {"licence", "inspection"}
    assert stop(worker) < 3
    assert {state.worker for state in either.store.states().values()} == {None}
    publish_many(either, 200, dice)
    either.worker(lease_s=30.0)
    either.wait(timeout_s=20)
    either.check()


def test_new_views_appear_while_running(bus: Bus) -> None:
    """A view declared later is built from the beginning beside the live ones; a dropped one disappears."""
    publish_many(bus, 500, random.Random(2))
    bus.worker()
    bus.wait()
    document = {**bus.declarations.get("inspections").document, "view": "later"}  # type: ignore[dict-item]
    bus.declarations.apply(document, bus.registry.contracts())
    bus.wait("later")
    publish_many(bus, 100, random.Random(3))
    bus.wait()
    bus.check()
    bus.declarations.drop("later")
    eventually(lambda: "later" not in bus.store.states(), what="dropping the view")


@pytest.mark.fault
def test_killed_at_random_points(either: Bus, full_length: bool) -> None:
    """Workers die by SIGKILL at random points during the load (50 of them in full length, 1 in short); the last one's
    views equal the fold. At which statement: see tests/faults/test_workers.py."""
    dice = random.Random(4)
    publish_many(either, 3_000, dice)
    for seed in range(50 if full_length else 1):
        worker = either.worker(crash=0.12, seed=seed, batch_events=100)
        publish_many(either, 50, dice)
        eventually(lambda w=worker: w.poll() is not None, timeout_s=60, what="the crash")  # type: ignore[misc]
        assert worker.returncode == -signal.SIGKILL
    either.worker()
    either.wait()
    either.check()


def test_a_paused_worker_is_fenced(bus: Bus) -> None:
    """While a worker is stopped longer than its lease another takes over; woken, the first writes nothing."""
    publish_many(bus, 300, random.Random(5))
    first = bus.worker()
    bus.wait()
    first.send_signal(signal.SIGSTOP)
    epochs = {name: state.epoch for name, state in bus.store.states().items()}
    bus.worker()
    eventually(lambda: all(s.epoch > epochs[n] for n, s in bus.store.states().items()), what="the take-over")
    publish_many(bus, 300, random.Random(6))
    bus.wait()
    owners = {state.worker for state in bus.store.states().values()}
    first.send_signal(signal.SIGCONT)
    publish_many(bus, 300, random.Random(7))
    bus.wait()
    bus.check()
    assert len(owners) == 1
    assert all(state.epoch > epochs[name] for name, state in bus.store.states().items())


def test_poison_is_set_aside(bus: Bus) -> None:
    """Random bytes, an unknown schema id, a foreign sender and a wrong key are quarantined with place and reason;
    everything else is applied."""
    dice = random.Random(8)
    publish_many(bus, 300, dice)
    good = bus.topics.log(bus.licence, 0)[-1]
    foreign = [(name, b"/other" if name == "ce_source" else value) for name, value in good.headers]
    value = next(m.value for m in reversed(bus.topics.log(bus.licence, 0)) if m.value is not None)
    headers = next(m.headers for m in reversed(bus.topics.log(bus.licence, 0)) if m.value is not None)
    bus.flush()
    start = len(bus.topics.log(bus.licence, 0))
    poison = [
        Message(0, b"x", b"\x07random", headers),
        Message(0, b"x", b"\x00\x00\x00\xff\xff" + value[5:], headers),
        Message(0, b"x", value[:-3], headers),
        Message(0, b"x", value, foreign),
        Message(0, b"another", value, headers),
        Message(0, b"x", None, headers),
    ]
    for message in poison:
        bus.send_raw(bus.licence, 0, message)
    bus.flush()
    bus.worker()
    bus.wait()
    bus.check()
    with bus.engine.connect() as connection:
        kept = connection.execute(sa.select(QUARANTINE).order_by(QUARANTINE.c.offset)).mappings().all()
    assert [row["offset"] for row in kept] == list(range(start, start + len(poison)))
    assert "producer_mismatch" in kept[3]["reasons"]
    assert '"key"' in kept[4]["reasons"]


def test_a_retention_hole_stops_the_view(bus: Bus) -> None:
    """When the topic lost events that the view has not applied, the view stops and says so; nothing is skipped."""
    publish_many(bus, 200, random.Random(9))
    worker = bus.worker()
    bus.wait()
    stop(worker)
    publish_many(bus, 200, random.Random(10))
    ends = bus.admin.end_offsets([f"dept.{bus.licence}"])
    truncate(bus, ends)
    before = bus.store.positions("food_business")
    bus.worker()
    eventually(lambda: bus.store.states()["food_business"].state == "stopped", what="the stop")
    assert "events are gone" in bus.store.states()["food_business"].reason
    assert [p.next_offset for p in bus.store.positions("food_business")] == [p.next_offset for p in before]
    bus.wait("inspections")


def truncate(bus: Bus, ends: dict[tuple[str, int], int]) -> None:
    """Deletes what the topic has."""
    from kafka import KafkaAdminClient, TopicPartition

    admin = KafkaAdminClient(**bus.kafka.kafka_python())
    admin.delete_records({TopicPartition(*place): end for place, end in ends.items()})
    admin.close()
