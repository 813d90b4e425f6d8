"""Leases renewed apart from what may be slow, and views shared by several workers: with clocks of the test's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from bus.infra.database import open_database
from bus.views.store import VIEW, ViewStore
from bus.views.workers import renewal
from bus.views.workers.lease import Leases
from bus.views.workers.renewal import STUCK_S, Pulse, Renewal
from bus.views.workers.sharing_out import Workers

LEASE_S = 5.0


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """What shares views out, without what builds them."""

    def __init__(self, engine: Engine, name: str, clock: Clock) -> None:
        self.workers = Workers(engine, name, LEASE_S, clock=clock)
        self.leases = Leases(engine, name, LEASE_S, clock=clock)
        self.held: dict[str, int] = {}
        self.workers.join()

    def tick(self, views: list[str]) -> None:
        self.workers.beat()
        self.workers.look()
        for view in views:
            if view not in self.held and self.workers.may_take(view):
                epoch = self.leases.acquire(view)
                if epoch is not None:
                    self.held[view] = epoch
                    self.workers.took(view)
        if self.workers.has_more():
            view = sorted(self.held)[-1]
            self.leases.release([(view, self.held.pop(view))])
            self.workers.gave()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = open_database(database_url, "views", durable=False)
    ViewStore(made)
    yield made
    made.dispose()


def renew(engine: Engine, worker: Worker) -> None:
    with engine.begin() as connection:
        for view, epoch in worker.held.items():
            mine = (VIEW.c.name == view) & (VIEW.c.epoch == epoch)
            connection.execute(sa.update(VIEW).where(mine).values(beat=VIEW.c.beat + 1))


def test_views_are_shared_out_and_taken_back(engine: Engine) -> None:
    """Workers come to have the same number of views within one; views are given one at a time; those of a dead worker
    are taken by the others once its lease has run out, not before."""
    clock, views = Clock(), [f"v{number}" for number in range(7)]
    first, second, third = (Worker(engine, name, clock) for name in ("a", "b", "c"))

    def rounds(count: int, *alive: Worker) -> None:
        for _ in range(count):
            for worker in alive:
                worker.tick(views)
                renew(engine, worker)
            clock.now += 1.0

    rounds(1, first)
    assert len(first.held) == 7
    rounds(1, first, second)
    assert (len(first.held), len(second.held)) == (7, 0)
    rounds(1, first, second)
    assert (len(first.held), len(second.held)) == (6, 1), "one at a time"
    rounds(8, first, second, third)
    counts = sorted(len(worker.held) for worker in (first, second, third))
    assert counts == [2, 2, 3]
    before = {view: worker for worker in (first, second, third) for view in worker.held}
    rounds(4, first, second, third)
    assert before == {view: worker for worker in (first, second, third) for view in worker.held}, "and stay there"
    rounds(4, first, second)
    assert sum(len(worker.held) for worker in (first, second)) == 7 - len(third.held)
    rounds(3, first, second)
    assert sorted(len(worker.held) for worker in (first, second)) == [3, 4]


def test_a_worker_that_does_not_take_up_its_share_keeps_no_view_waiting(engine: Engine) -> None:
    """Who has fewest may take a free view first; after a lease's time anybody may."""
    clock, views = Clock(), ["v0", "v1", "v2"]
    first, second = Worker(engine, "a", clock), Worker(engine, "b", clock)
    first.tick(views)
    for _ in range(3):
        second.workers.beat()
        first.tick(views)
    assert len(first.held) == 2
    for _ in range(6):
        clock.now += 1.0
        second.workers.beat()
        first.workers.beat()
        first.workers.look()
        taken = first.workers.may_take("v2")
    assert taken


def test_a_worker_that_is_not_ready_is_given_nothing(engine: Engine) -> None:
    """Until its agent can build, a worker takes no part: no view waits for it."""
    clock, views = Clock(), ["v0", "v1"]
    first = Worker(engine, "a", clock)
    first.tick(views)
    starting = Workers(engine, "b", LEASE_S, clock=clock)
    starting.beat()
    starting.look()
    first.tick(views)
    assert len(first.held) == 2
    assert not starting.may_take("v3")


def test_leases_are_renewed_while_the_keeper_waits(engine: Engine) -> None:
    """A tick that hangs, in Kafka or in a slow statement, loses no lease; a silent event loop is not covered up, and a
    step that never ends ends the process."""
    clock, ended = Clock(), list[int]()
    pulse = Pulse(clock=clock)
    leases = Leases(engine, "a", LEASE_S, clock=clock)
    epoch = leases.acquire("v0") or 0
    lost = set[str]()
    thread = Renewal(engine, LEASE_S, pulse, held=lambda: [("v0", epoch)], lost=lost.update)

    def beats() -> int:
        with engine.connect() as connection:
            return int(connection.scalar(sa.select(VIEW.c.beat).where(VIEW.c.name == "v0")) or 0)

    with pulse.step("keeping"):
        for _ in range(30):
            clock.now += 1.0
            pulse.beat()
            before = beats()
            thread.once()
            assert beats() == before + 1
        clock.now += STUCK_S / 3 + 1
        before = beats()
        thread.once()
        assert beats() == before, "the event loop was silent for four leases"
        pulse.beat()
        clock.now += STUCK_S / 3
        pulse.beat()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(renewal.os, "_exit", ended.append)
            thread.once()
    assert ended == [1]
    taken = Leases(engine, "b", 0.0, clock=clock)
    taken.acquire("v0")
    assert taken.acquire("v0")
    pulse.beat()
    thread.once()
    assert lost == {"v0"}


def test_the_thread_runs_and_ends(engine: Engine) -> None:
    """It renews by itself and is gone when it is told to end."""
    epoch = Leases(engine, "a", 0.05).acquire("v0") or 0
    renewed = threading.Event()
    thread = Renewal(engine, 0.05, Pulse(), held=lambda: [("v0", epoch)], lost=lambda _: None, also=renewed.set)
    thread.start()
    assert renewed.wait(10)
    thread.end()
    assert "renewal" not in {running.name for running in threading.enumerate()}
