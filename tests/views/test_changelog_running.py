"""Workers log what changes in views that begin to be streamed while they run, and go on where another left off."""

from __future__ import annotations

from typing import Any

from kafka import KafkaProducer
from views_bus import Bus, eventually

from bus.infra.database import open_database
from bus.views.changelog.reading import ChangeLog, Row
from bus.views.changelog.streamed import Streamed
from bus.views.oracle.verify import Event

VIEWS = ("food_business", "inspections", "by_result")


def publish(bus: Bus, numbers: range, result: str) -> None:
    for number in numbers:
        record: dict[str, Any] = {"inspection": number, "business": 1, "revision": None, "at": None}
        bus.publish(Event(bus.inspection, number % 2, 0, {**record, "result": result, "passed": None}))
        term = {"term_id": f"t{number}", "licence": 1, "starts": None, "name": result, "area": None, "fee": None}
        bus.publish(Event(bus.licence, number % 2, 0, term))


def test_a_view_is_streamed_while_its_workers_run(bus: Bus) -> None:
    """From a snapshot on, the changes lead to the rows, though the worker is killed meanwhile and another goes on; what
    is streamed no more has no log."""
    streamed, log = Streamed(open_database(bus.url, "governance")), ChangeLog(bus.engine)
    publish(bus, range(3), "Pass")
    first = bus.worker()
    bus.wait()
    assert all(log.standing(name).log_from is None for name in VIEWS)
    streamed.put(frozenset(VIEWS))
    producer = KafkaProducer(**bus.kafka.kafka_python())
    producer.send("bus.control", b"views")
    producer.close()
    eventually(lambda: all(log.standing(name).log_from is not None for name in VIEWS), what="the logs")
    begun = {name: _rows(log, bus, name) for name in VIEWS}
    publish(bus, range(2, 6), "Fail")
    first.kill()
    bus.worker()
    bus.wait()
    for name in VIEWS:
        (seq, rows), (until, now) = begun[name], _rows(log, bus, name)
        while seq < until:
            found = log.changes(bus.shapes[name], seq, 3)
            for _, key, row in found.rows:
                rows = {other: shown for other, shown in rows.items() if other != key} | ({key: row} if row else {})
            seq = found.upto
        assert rows == now, name
        assert rows != begun[name][1], name
    streamed.put(frozenset({"inspections"}))
    eventually(lambda: log.standing("by_result").log_from is None, what="the end of the logs")
    assert log.standing("inspections").log_from is not None
    bus.check()


def _rows(log: ChangeLog, bus: Bus, name: str) -> tuple[int, dict[Row, Row]]:
    width = len(bus.shapes[name].view.key)
    with log.snapshot(bus.shapes[name]) as snapshot:
        return snapshot.seq, {row[:width]: row for portion in snapshot.rows for row in portion}
