"""Kafka killed while events are published and views are built: what was acknowledged is in the views (F04)."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from departments import FIRST, reading
from figures import Figures
from homes import Home, seconds_until
from test_opa_gone import dismiss_supervisor
from views_bus import Bus

from bus.errors import BrokerUnavailable
from bus.infra.kafka import Admin
from bus.infra.stack import LocalStack
from bus.publishing.publisher import Publisher
from bus.views.waiting import wait
from bus.wiring.viewing import view_rows
from tests.conftest import eventually

pytestmark = pytest.mark.fault


class Ledger:
    """Publishes licences one by one and in bulk until told to stop; keeps what was acknowledged."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self._number = bus, 0
        self._stop, self._lock = threading.Event(), threading.Lock()
        self.acknowledged: dict[int, str] = {}
        self.acks_at: dict[str, list[float]] = {"single": [], "bulk": []}
        self._threads = [threading.Thread(target=self._one_by_one), threading.Thread(target=self._in_bulk)]

    def __enter__(self) -> Ledger:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)
        assert not any(thread.is_alive() for thread in self._threads)

    def _publisher(self) -> Publisher:
        department = self._bus.licence.partition(".")[0]
        return Publisher(
            department,
            connection=self._bus.kafka,
            registry=self._bus.registry,
            quarantine=lambda _: None,
            timeout_s=10,
        )

    def _records(self, count: int) -> list[dict[str, Any]]:
        with self._lock:
            first, self._number = self._number, self._number + count
        return [
            {"term_id": f"t{n}", "licence": n, "starts": dt.date(2020, 1, 1), "name": f"n{n}", "area": 1.0, "fee": None}
            for n in range(first, first + count)
        ]

    def _keep(self, path: str, records: list[dict[str, Any]]) -> None:
        with self._lock:
            self.acknowledged |= {record["licence"]: record["name"] for record in records}
            self.acks_at[path].append(time.monotonic())

    def _one_by_one(self) -> None:
        with self._publisher() as publisher:
            while not self._stop.is_set():
                (record,) = self._records(1)
                while not self._stop.is_set():
                    try:
                        publisher.publish("licence", record)
                    except BrokerUnavailable:
                        continue
                    self._keep("single", [record])
                    break

    def _in_bulk(self) -> None:
        with self._publisher() as publisher:
            while not self._stop.is_set():
                records = self._records(2_000)
                while not self._stop.is_set():
                    try:
                        report = publisher.publish_many("licence", records)
                    except BrokerUnavailable:
                        continue
                    assert report.acknowledged == len(records)
                    self._keep("bulk", records)
                    break

    def first_acks_after(self, moment: float) -> dict[str, float]:
        """When each path had its first acknowledgement after the moment; paths that had none are missing."""
        return {
            path: min(later) for path, all_at in self.acks_at.items() if (later := [at for at in all_at if at > moment])
        }


def kill_kafka(broker: LocalStack) -> None:
    """SIGKILL of the broker's process."""
    state = broker.state()
    assert state is not None
    old = state.processes["kafka"]
    os.kill(old, signal.SIGKILL)
    eventually(lambda: (broker.state() or state).processes.get("kafka") not in (None, old), what="another Kafka")


def probe(broker: LocalStack) -> bool:
    """Whether a client that knows nothing can reach Kafka now."""
    try:
        with Admin(broker.kafka_connection(), timeout_s=2) as admin:
            admin.end_offsets(["bus.control"])
    except BrokerUnavailable:
        return False
    return True


def test_killed_while_publishing_and_building(
    mortal_broker: LocalStack,
    make_bus: Callable[..., Bus],
    sqlite_url: str,
    figures: Figures,
    full_length: bool,
) -> None:
    """Single events, bulk and the worker go on by themselves; nothing acknowledged is missing or doubled."""
    dice, times = random.Random(), 5 if full_length else 1
    connection = mortal_broker.kafka_connection()
    worst_s, beyond_s = 0.0, 0.0
    with Admin(connection) as admin:
        bus = make_bus(sqlite_url, connection, admin)
        bus.worker(lease_s=2.0)
        # a worker that cannot start without Kafka ends, and a supervisor starts another: that is not what is tried here
        eventually(lambda: _live(bus), what="a live view")
        with Ledger(bus) as ledger:
            for _ in range(times):
                mark = len(ledger.acknowledged) + dice.randrange(4_000, 12_000)
                eventually(lambda m=mark: len(ledger.acknowledged) >= m, timeout_s=120, what="events")  # type: ignore[misc]
                killed = time.monotonic()
                kill_kafka(mortal_broker)
                eventually(lambda: probe(mortal_broker), timeout_s=90, what="Kafka")
                probed = time.monotonic()
                eventually(lambda p=killed: len(ledger.first_acks_after(p + 0.5)) == 2, timeout_s=60, what="both")  # type: ignore[misc]
                last = max(ledger.first_acks_after(killed + 0.5).values())
                worst_s, beyond_s = max(worst_s, last - killed), max(beyond_s, last - probed)
        with Admin(connection) as after:
            builds_s = seconds_until(lambda: _built(bus, after), timeout_s=60, what="the view")
        rows = _rows(bus)
    lost = len(ledger.acknowledged.keys() - rows.keys())
    wrong = sum(rows.get(number, name) != name for number, name in ledger.acknowledged.items())
    wrong += bus.store.quarantined()
    assert all(process.poll() is None for process in bus.processes), "the worker did not stay up"
    figures.record(
        "F04 kill -9 of Kafka while publishing and building",
        times=times,
        lost=lost,
        wrong=wrong,
        recovery_s=worst_s,
        note=f"{len(rows)} rows; acknowledged {beyond_s:+.1f} s from a fresh client; view +{builds_s:.1f} s",
    )
    assert beyond_s <= 3.0


def _live(bus: Bus) -> bool:
    states = bus.store.states(count=False)
    return len(states) == len(bus.shapes) and all(state.state == "live" for state in states.values())


def _built(bus: Bus, admin: Admin) -> bool:
    wait(bus.store, bus.shapes, admin.end_offsets, ["food_business"], 60.0)
    return True


def _rows(bus: Bus) -> dict[int, str]:
    import sqlalchemy as sa

    from bus.views.tables import live_rows, row_table

    table = row_table(bus.shapes["food_business"])
    with bus.engine.connect() as connection:
        rows = connection.execute(sa.select(table.c.licence, table.c.name).where(live_rows(table))).all()
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: row[1] for row in rows}


def test_publish_without_kafka(stack: Home, figures: Figures) -> None:
    """`bus publish` ends in bounded time with one clear line; with Kafka back the same command is taken and nothing is
    doubled."""
    line = json.dumps({**reading(FIRST), "date": FIRST.isoformat()})
    dismiss_supervisor(stack)
    stack.kill("kafka")
    begun = time.monotonic()
    done = stack.bus("publish", "weather.daily", "--as", "weather", stdin=line)
    took = time.monotonic() - begun
    assert (done.returncode, done.stdout) == (1, ""), done.stdout
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Kafka does not answer" in done.stderr
    back_s = seconds_until(lambda: stack.up() is None, what="the stack")
    assert stack.bus("publish", "weather.daily", "--as", "weather", stdin=line).returncode == 0
    assert stack.bus("views", "wait", "weather_daily").returncode == 0
    rows = [row for row in view_rows(stack.site, "weather_daily") if row["date"] == FIRST]
    gone = json.dumps({"op": "delete", "key": {"date": FIRST.isoformat()}})
    assert stack.bus("publish", "weather.daily", "--as", "weather", stdin=gone).returncode == 0
    assert stack.bus("views", "wait", "weather_daily").returncode == 0
    figures.record(
        "`bus publish` without Kafka",
        lost=int(len(rows) == 0),
        wrong=max(len(rows) - 1, 0),
        recovery_s=back_s,
        note=f"one line after {took:.1f} s",
    )
    assert took < 15
