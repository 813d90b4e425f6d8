"""The database away for a while: the worker stays, nothing is set aside, questions are refused quickly (F07, F08)."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import httpx2
import psycopg
import pytest
from departments import WeatherStation
from figures import Figures
from homes import Home, seconds_until
from test_worker import publish_many
from views_bus import Bus

from tests.conftest import Cluster, eventually, unique

pytestmark = [pytest.mark.fault, pytest.mark.postgresql]
QUICK_S, PATIENT_S = 0.5, 3.0
"""How soon a refusal comes, on an idle machine and on one that runs other tests beside this one."""
RESUMES_S = 10.0


class Questions:
    """The same question again and again for a while: what was answered, and the slowest refusal."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.refusals: list[tuple[float, httpx2.Response]] = []
        self.answers = 0

    def ask_for(self, seconds: float) -> None:
        begun = time.monotonic()
        while time.monotonic() < begun + seconds:
            asked = time.monotonic()
            answer = self._home.ask()
            if answer.status_code == 503:
                self.refusals.append((time.monotonic() - asked, answer))
            else:
                self.answers += 1

    @property
    def codes(self) -> set[str]:
        return {answer.json()["code"] for _, answer in self.refusals}

    def check(self, codes: set[str], within_s: float) -> None:
        """Every refusal was quick, named one of ``codes``, and said when to try again."""
        assert self.refusals
        assert self.codes <= codes
        assert all(answer.headers.get("Retry-After") for _, answer in self.refusals)
        assert sorted(seconds for seconds, _ in self.refusals)[-1] <= within_s


@pytest.fixture(scope="module")
def postgresql_home(make_home: Callable[..., Home], mortal_cluster: Cluster) -> Home:
    """A running stack on PostgreSQL, without data."""
    name = unique("home")
    with psycopg.connect(mortal_cluster.url("postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    home = make_home(BUS_DATABASE_URL=mortal_cluster.url(name))
    home.up()
    home.declare()
    return home


def test_postgresql_down(postgresql_home: Home, mortal_cluster: Cluster, figures: Figures, full_length: bool) -> None:
    """PostgreSQL stopped at once and started again, while a department publishes and another asks."""
    home, outage_s = postgresql_home, 60.0 if full_length else 3.0
    eventually(lambda: home.ask().status_code == 200, what="an answer")
    worker, questions = home.pid("worker"), Questions(home)
    with WeatherStation(home) as station:
        station.publish_until(20)
        mortal_cluster.stop("immediate")
        try:
            questions.ask_for(outage_s)
        finally:
            mortal_cluster.start()
        answers_s = seconds_until(lambda: home.ask().status_code == 200, what="an answer")
        station.publish_until(len(station.acknowledged) + 20)
    resumes_s = answers_s + seconds_until(lambda: station.missing() == 0, what="every event in the view")
    assert home.pid("worker") == worker, "the worker did not stay up"
    questions.check({"database_unavailable"}, QUICK_S if full_length else PATIENT_S)
    assert questions.answers == 0, "an answer without a database"
    figures.record(
        f"F07 PostgreSQL down {outage_s:.0f} s",
        lost=station.missing(),
        wrong=station.wrong() + len(home.api.get("/v1/quarantine", limit=100)),
        recovery_s=resumes_s,
        note=f"{len(questions.refusals)} x 503, slowest {max(s for s, _ in questions.refusals) * 1000:.0f} ms",
    )
    assert resumes_s <= RESUMES_S


@contextmanager
def locked(home: Home, name: str) -> Iterator[None]:
    """Another connection holds BEGIN EXCLUSIVE on one of the SQLite databases."""
    with closing(sqlite3.connect(home.folder / "data" / f"{name}.db", isolation_level=None, timeout=10)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.parametrize("database", ["views", "governance"])
def test_sqlite_held(stack: Home, figures: Figures, full_length: bool, database: str) -> None:
    """With the views held, readers go on and the worker waits; with governance held no disclosure can be recorded, so
    every question is refused, quickly."""
    outage_s = 60.0 if full_length else 3.0
    eventually(lambda: stack.ask().status_code == 200, what="an answer")
    worker, questions = stack.pid("worker"), Questions(stack)
    with WeatherStation(stack) as station:
        station.publish_until(10)
        with locked(stack, database):
            questions.ask_for(outage_s)
        answers_s = seconds_until(lambda: stack.ask().status_code == 200, what="an answer")
        station.publish_until(len(station.acknowledged) + 10)
    resumes_s = answers_s + seconds_until(lambda: station.missing() == 0, what="every event in the view")
    lost, wrong = station.missing(), station.wrong() + len(stack.api.get("/v1/quarantine", limit=100))
    station.clear()
    assert stack.pid("worker") == worker, "the worker did not stay up"
    if database == "governance":
        questions.check({"database_unavailable", "audit_unavailable"}, QUICK_S if full_length else PATIENT_S)
        assert questions.answers == 0, "an answer without an audit entry"
    else:
        assert questions.refusals == []
    slowest = max((seconds for seconds, _ in questions.refusals), default=0.0)
    figures.record(
        f"F07 SQLite: {database} held {outage_s:.0f} s",
        lost=lost,
        wrong=wrong,
        recovery_s=resumes_s,
        note=f"{questions.answers} answers, {len(questions.refusals)} x 503, slowest {slowest * 1000:.0f} ms",
    )
    assert resumes_s <= RESUMES_S


SLOW_COMMIT = """
CREATE FUNCTION views.slow_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  PERFORM pg_sleep({sleep});
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT OR UPDATE ON views.position
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION views.slow_commit();
"""


def committing(cluster: Cluster, database: str, *, written: bool) -> int | None:
    """A backend in the middle of COMMIT: before its commit is in the log, or ``written``: when it is, and only the
    client does not know."""
    statement = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND query = 'COMMIT' AND wait_event = %s"
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
        found = connection.execute(statement, (database, "SyncRep" if written else "PgSleep")).fetchone()
    return int(found[0]) if found else None


def wait_for_nobody(cluster: Cluster, names: str) -> None:
    """``names`` = '*' makes every synchronous COMMIT wait for a replica that there is not, after it is written."""
    eventually(lambda: _configured(cluster, names), what="a server that has recovered")


def _configured(cluster: Cluster, names: str) -> bool:
    try:
        with psycopg.connect(cluster.url("postgres"), autocommit=True, connect_timeout=2) as connection:
            connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
            connection.execute("SELECT pg_reload_conf()")
    except psycopg.OperationalError:  # it has not noticed yet, or recovers
        return False
    return True


def test_killed_in_commit(
    make_bus: Callable[..., Bus], mortal_cluster: Cluster, mortal_url: str, figures: Figures, full_length: bool
) -> None:
    """kill -9 of the server's process during COMMIT, before and after it is written: the position in the same
    transaction decides, so nothing is applied twice and nothing is missing."""
    dice, times, worst_s = random.Random(11), 20 if full_length else 3, 0.0
    bus, database = make_bus(mortal_url), mortal_url.rpartition("/")[2]
    publish_many(bus, 300, dice)
    bus.worker()
    bus.wait()
    with psycopg.connect(mortal_url, autocommit=True) as connection:
        connection.execute(SLOW_COMMIT.format(sleep=0.05))
    for turn in range(times):
        written = turn % 2 == 0
        wait_for_nobody(mortal_cluster, "*" if written else "")
        publish_many(bus, 100, dice)
        found: list[int] = []
        eventually(lambda w=written, f=found: _caught(mortal_cluster, database, w, f), what="a COMMIT")  # type: ignore[misc]
        os.kill(found[0], signal.SIGKILL)
        wait_for_nobody(mortal_cluster, "")
        worst_s = max(worst_s, seconds_until(lambda: _applied(bus), what="the batch"))
    bus.wait()
    wrong = sum(bus.dump(name) != bus.expected(name) for name, shape in bus.shapes.items() if shape.contracts)
    counters = {name: (state.applied + state.stale_dropped) for name, state in bus.store.states().items()}
    events = {name: _events(bus, name) for name, shape in bus.shapes.items() if shape.contracts}
    twice = sum(counters[name] - count for name, count in events.items())
    assert all(process.poll() is None for process in bus.processes), "the worker did not stay up"
    assert bus.store.quarantined() == 0
    figures.record(
        "F08 kill -9 of the server process in COMMIT",
        times=times,
        lost=max(0, -twice),
        wrong=wrong,
        recovery_s=worst_s,
        note=f"duplicate effects {max(0, twice)}",
    )
    assert twice == 0


def _caught(cluster: Cluster, database: str, written: bool, found: list[int]) -> bool:
    pid = committing(cluster, database, written=written)
    if pid is not None:
        found.append(pid)
    return pid is not None


def _applied(bus: Bus) -> bool:
    try:
        bus.wait(timeout_s=30)
    except Exception:
        return False
    return True


def _events(bus: Bus, view: str) -> int:
    """How many events the ledger has for a view."""
    entities = {contract.id for contract in bus.shapes[view].contracts}
    return sum(event.entity in entities for event in bus.topics.events)
