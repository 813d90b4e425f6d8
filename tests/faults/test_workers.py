"""Workers that die between any two statements, join and leave in a storm, hang, or have wild clocks (F01, F02, F06,
F23)."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from figures import Figures
from homes import seconds_until
from judging import SignsOfLife, surplus, wrong
from test_worker import publish_many, stop
from views_bus import Bus

from tests.conftest import eventually

pytestmark = pytest.mark.fault
POINTS = 25
"""On each of two databases."""
NEXT_S = 15.0
WITHOUT_S = 10.0


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_killed_between_statements(
    request: pytest.FixtureRequest,
    make_bus: Callable[..., Bus],
    figures: Figures,
    full_length: bool,
    database: str,
) -> None:
    """SIGKILL after any statement of a view's transaction, before and after its commit: nothing is half applied, and
    the next worker applies the next events."""
    dice, worst_s = random.Random(20), 0.0
    bus = make_bus(request.getfixturevalue(f"{database}_url"))
    places = [f"statement {number}" for number in range(16)] + ["before commit", "after commit"]
    chosen = [dice.choice(places) for _ in range(POINTS)] if full_length else dice.sample(places, 2)
    for place in chosen:
        publish_many(bus, 120, dice)
        dying = bus.worker(kill_at=(place, dice.randint(1, 3)), batch_events=60)
        eventually(lambda w=dying: w.poll() is not None or _applied(bus), timeout_s=60, what="the crash")  # type: ignore[misc]
        if dying.poll() is None:  # no transaction has so many statements
            dying.kill()
            dying.wait(10)
        assert dying.returncode == -signal.SIGKILL
        before = {name: state.seq for name, state in bus.store.states(count=False).items()}
        successor = bus.worker()
        worst_s = max(worst_s, seconds_until(lambda b=before: _moved(bus, b), what="the next event"))
        bus.wait(timeout_s=120)
        stop(successor)  # a death more would have the next batch tried in a process of its own first
        assert wrong(bus) == 0, place
    twice = surplus(bus)
    figures.record(
        f"F01/F02 SIGKILL between statements, {database}",
        times=len(chosen),
        lost=-sum(min(0, count) for count in twice.values()),
        wrong=wrong(bus) + sum(max(0, count) for count in twice.values()),
        recovery_s=worst_s,
        note=f"at {', '.join(chosen)}" if not full_length else f"{len(set(chosen))} different places",
    )
    assert worst_s <= NEXT_S


def _applied(bus: Bus) -> bool:
    ends = bus.admin.end_offsets([contract.topic for contract in bus.registry.contracts().values()])
    names = [name for name, shape in bus.shapes.items() if shape.contracts]
    at = [{(p.topic, p.partition): p.next_offset for p in bus.store.positions(name)} for name in names]
    topics = [{contract.topic for contract in bus.shapes[name].contracts} for name in names]
    return all(
        reached.get(place, 0) >= end
        for reached, mine in zip(at, topics, strict=True)
        for place, end in ends.items()
        if place[0] in mine
    )


def _moved(bus: Bus, before: dict[str, int]) -> bool:
    states = bus.store.states(count=False)
    return _applied(bus) or any(states[name].seq > seq for name, seq in before.items())


@pytest.mark.parametrize("place", ["statement 1", "statement 6", "before commit"])
def test_stopped_in_mid_transaction(
    make_bus: Callable[..., Bus], postgresql_url: str, figures: Figures, full_length: bool, place: str
) -> None:
    """A worker that is stopped while its transaction holds the view locked is no more in the way of the next one than a
    dead one, and what it goes on with when it is woken is fenced. (On SQLite only the end of a process frees the file.)
    """
    if place != "statement 6" and not full_length:
        pytest.skip("full length only")
    dice, bus, lease_s = random.Random(31), make_bus(postgresql_url), 1.0
    publish_many(bus, 100, dice)
    first = bus.worker(lease_s=lease_s, batch_events=20, stop_at=(place, 5))
    eventually(lambda: _is_stopped(first.pid), what="the stop")
    bus.worker(lease_s=lease_s)
    took_s = seconds_until(lambda: _applied(bus), what="another builder")
    first.send_signal(signal.SIGCONT)
    publish_many(bus, 100, dice)
    bus.wait()
    figures.record(f"F03 stopped in mid-transaction at {place}, postgresql", wrong=wrong(bus), recovery_s=took_s)
    assert wrong(bus) == 0
    assert took_s <= WITHOUT_S


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_storm_of_workers(
    request: pytest.FixtureRequest,
    make_bus: Callable[..., Bus],
    figures: Figures,
    full_length: bool,
    database: str,
) -> None:
    """Three workers share the views; one after the other joins, leaves, dies or sleeps while events come. No view is
    without a builder for long, and nothing is applied twice."""
    if database == "postgresql" and not full_length:
        pytest.skip("full length only; the short form is the one on SQLite")
    dice, bus = random.Random(21), make_bus(request.getfixturevalue(f"{database}_url"))
    lease_s, every_s, length_s = (5.0, 5.0, 180.0) if full_length else (1.0, 1.0, 8.0)
    publish_many(bus, 500, dice)
    team = [bus.worker(lease_s=lease_s) for _ in range(3)]
    bus.wait()
    changes, asleep = 0, list[object]()
    with SignsOfLife(bus) as signs:
        begun = time.monotonic()
        while time.monotonic() < begun + length_s:
            turn = time.monotonic() + every_s
            changes += 1
            leaver = team.pop(dice.randrange(len(team)))
            how = dice.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
            leaver.send_signal(how)
            asleep += [leaver] if how == signal.SIGSTOP else []
            team.append(bus.worker(lease_s=lease_s))
            while time.monotonic() < turn:
                publish_many(bus, 20, dice)
                time.sleep(0.1)
    for sleeper in asleep:
        sleeper.send_signal(signal.SIGCONT)  # type: ignore[attr-defined]
    publish_many(bus, 200, dice)
    bus.wait()
    twice = surplus(bus)
    figures.record(
        f"F06 storm of 3 workers, {length_s:.0f} s, {database}",
        times=changes,
        lost=-sum(min(0, count) for count in twice.values()),
        wrong=wrong(bus) + sum(max(0, count) for count in twice.values()),
        recovery_s=signs.longest_s,
        note="recovery: longest without a builder's sign of life",
    )
    assert signs.longest_s <= WITHOUT_S


def test_a_stuck_reader(make_bus: Callable[..., Bus], sqlite_url: str, figures: Figures) -> None:
    """A worker whose reader hangs while events wait ends itself; another takes its views over."""
    dice, bus = random.Random(22), make_bus(sqlite_url)
    publish_many(bus, 200, dice)
    stuck = bus.worker(stuck=(3, 2.0))
    eventually(lambda: all(p for p in bus.signs().values()) and len(bus.signs()) >= 2, what="a builder")
    eventually(lambda: _idle(bus), what="a standstill")
    publish_many(bus, 200, dice)
    begun = time.monotonic()
    bus.worker()
    bus.wait()
    took_s = time.monotonic() - begun
    assert stuck.poll() == 1
    figures.record("Reader that hangs", wrong=wrong(bus), recovery_s=took_s, note="the watchdog's patience was 2 s")


def _idle(bus: Bus) -> bool:
    """Whether nothing is applied for a second."""
    before = bus.store.states(count=False)
    time.sleep(1)
    after = bus.store.states(count=False)
    return all(after[name].seq == state.seq for name, state in before.items())


def test_wild_clocks(make_bus: Callable[..., Bus], sqlite_url: str, figures: Figures, full_length: bool) -> None:
    """Two workers whose wall clocks jump by minutes and hours, each its own way: one is killed, the other takes over in
    time; no order and no lease depends on what they believe the time to be."""
    dice, bus, times = random.Random(23), make_bus(sqlite_url), 10 if full_length else 1
    clocks = ([600.0, -3_600.0, 0.0], [-600.0, 86_400.0 * 365, 3_600.0])
    publish_many(bus, 500, dice)
    team = [bus.worker(clock_s=clock) for clock in clocks]
    bus.wait()
    worst_s = 0.0
    for turn in range(times):
        epochs = {name: state.epoch for name, state in bus.store.states(count=False).items()}
        leaver = team.pop(0)
        owned = [name for name in bus.shapes if bus.store.states(count=False)[name].worker]
        leaver.kill()
        publish_many(bus, 200, dice)
        worst_s = max(worst_s, seconds_until(lambda: _applied(bus), what="the other worker"))
        after = {name: state.epoch for name, state in bus.store.states(count=False).items()}
        assert owned
        assert all(after[name] >= epoch for name, epoch in epochs.items())
        team.append(bus.worker(clock_s=clocks[turn % 2]))
    bus.wait()
    twice = surplus(bus)
    figures.record(
        "F23 clocks of two workers jumping by up to a year",
        times=times,
        lost=-sum(min(0, count) for count in twice.values()),
        wrong=wrong(bus) + sum(max(0, count) for count in twice.values()),
        recovery_s=worst_s,
    )
    assert worst_s <= WITHOUT_S
