"""Whoever replays the log of a view from any moment has exactly its rows at every later one, on both databases."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from dependents_world import World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from statements_cut import Cut, cut_after
from test_builder import REGISTRY, events
from test_dependents import around, inspection, licence, random_topics
from views_world import INSPECTIONS, Topics

from bus.core.declarations import parse_view
from bus.errors import ChangesGone, Fenced
from bus.infra.database import open_database
from bus.views.catalogue import Shape, shape_of
from bus.views.changelog.keeping import Logs, prune, switch
from bus.views.changelog.reading import ChangeLog, Row
from bus.views.changelog.streamed import Streamed
from bus.views.changelog.tables import log_name
from bus.views.oracle.verify import Event
from bus.views.rebuilding.changes import InPlace, plan
from bus.views.rebuilding.generation import remove
from bus.views.rebuilding.reshaping import reshape
from bus.views.rebuilding.swap import swap, undo
from bus.views.store import VIEW as VIEWS

CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
Rows = dict[Row, Row]
HISTORY = {**INSPECTIONS, "view": "history", "kind": "history"}


class LoggedWorld(World):
    """A world that notes the rows of every streamed view after each commit, beside what its log says."""

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__(engine)
        self.shapes["history"] = shape_of(parse_view(HISTORY), REGISTRY.contracts, self.shapes)
        self.log = ChangeLog(engine)
        self.seen: dict[str, dict[int, Rows]] = {}

    def switch(self, streamed: bool, *names: str) -> None:
        for name in names or tuple(self.shapes):
            switch(self.engine, self.shapes[name], self.epochs[name], streamed=streamed)
            self.seen[name] = {}

    def rows(self, name: str) -> tuple[int, Rows]:
        """The view's ``seq`` and its rows, by key, from a snapshot."""
        width = len(self.shapes[name].view.key)
        with self.log.snapshot(self.shapes[name], portion=2) as snapshot:
            rows = [row for portion in snapshot.rows for row in portion]
        return snapshot.seq, {row[:width]: row for row in rows}

    def look(self) -> None:
        """Notes the rows of every view that has moved on, as they are now."""
        for name, standing in self.log.standings().items():
            if name in self.shapes and standing.seq not in self.seen.setdefault(name, {}):
                seq, rows = self.rows(name)
                self.seen[name][seq] = rows

    def totals(self) -> list[Any]:
        """The ``seq`` of every view, and how many rows its tables and its log have."""
        tables = [table for name in self.shapes for table in (f"v_{name}", log_name(name))]
        counted = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM {table}" for table in tables)
        with self.engine.connect() as connection:
            return [sorted(self.log.standings().items()), connection.exec_driver_sql(counted).all()]

    def feed_noting(self, topics: Topics, choose: random.Random) -> None:
        """Applies all logs in a random interleaving; sometimes a view begins to be streamed, or ends."""
        at = {(name, place): 0 for name in self.builders for place in topics.logs}
        mine = {key for key in at if key[1][0] in self.builders[key[0]].shape.view.entities}
        while open_ := sorted(key for key in mine if at[key] < len(topics.logs[key[1]])):
            if choose.random() < 0.15:
                self.switch(choose.random() < 0.8, choose.choice(sorted(self.shapes)))
            name, place = choose.choice(open_)
            end = min(len(topics.logs[place]), at[name, place] + choose.randint(1, 4))
            self.builders[name].apply([topics.batch(*place, at[name, place], end)])
            at[name, place] = end
            self.look()

    def check_replays(self, choose: random.Random) -> int:
        """From each moment noted since the log began: how many steps of replays were compared."""
        compared = 0
        for name, seen in self.seen.items():
            standing = self.log.standing(name)
            for begun in seen:
                if standing.log_from is not None and begun >= standing.log_from:
                    compared += self._replay(name, begun, standing.seq, choose.randint(1, 4))
        return compared

    def _replay(self, name: str, begun: int, until: int, limit: int) -> int:
        at, rows, steps = begun, dict(self.seen[name][begun]), 0
        while at < until:
            found = self.log.changes(self.shapes[name], at, limit)
            assert found.upto > at
            assert all(at < seq <= found.upto for seq, _, _ in found.rows)
            assert len({(seq, key) for seq, key, _ in found.rows}) == len(found.rows), "a key twice in a transaction"
            for seq, key, row in found.rows:
                if seq > at and seq - 1 in self.seen[name] and seq - 1 > begun:
                    assert rows == self.seen[name][seq - 1], (name, begun, seq)
                at = seq
                rows = {other: shown for other, shown in rows.items() if other != key} | ({key: row} if row else {})
            at = found.upto
            if at in self.seen[name]:
                assert rows == self.seen[name][at], (name, begun, at)
                steps += 1
        return steps


@pytest.fixture
def world(database_url: str) -> Iterator[LoggedWorld]:
    engine = open_database(database_url, "views", durable=False)
    yield LoggedWorld(engine)
    engine.dispose()


@settings(max_examples=4, deadline=None, suppress_health_check=CHECKS)
@given(drawn=st.lists(events(), min_size=1, max_size=10), seed=st.integers(0, 2**32))
def test_a_replay_from_any_moment_gives_the_rows_of_every_later_one(
    world: LoggedWorld, drawn: list[Event], seed: int
) -> None:
    """Views of one and two levels, a history, look-ups and aggregates, streamed from some moment on or not at all."""
    topics, choose = Topics(REGISTRY), random.Random(seed)
    for event in drawn:
        topics.append(event)
    if world.builders:
        world.switch(False)
        world.empty()
    else:
        world.start()
    world.switch(True, *(name for name in world.shapes if choose.random() < 0.7))
    world.look()
    world.feed_noting(topics, choose)
    world.check_replays(choose)


def test_much_is_compared(world: LoggedWorld) -> None:
    """With many events of few records every kind of view is replayed at many of its moments."""
    world.start()
    world.switch(True)
    world.look()
    world.feed_noting(random_topics(5, 16), random.Random(4))
    assert world.check_replays(random.Random(1)) > 30


def test_a_reader_beside_two_writers_misses_nothing(world: LoggedWorld) -> None:
    """Two threads write what an aggregate and a look-up are computed from, a third follows two logs."""
    world.start()
    world.switch(True)
    begun = {name: world.rows(name) for name in ("inspections", "by_name")}
    topics, done, trouble = random_topics(7, 60), threading.Event(), list[BaseException]()

    def write(*names: str) -> None:
        try:
            for place in sorted(topics.logs):
                for name in names:
                    for at in range(0, len(topics.logs[place]), 3):
                        if place[0] in world.shapes[name].view.entities:
                            world.builders[name].apply([topics.batch(*place, at, min(at + 3, len(topics.logs[place])))])
        except BaseException as error:
            trouble.append(error)

    def follow(name: str) -> None:
        seq, rows = begun[name]
        found = world.log.changes(world.shapes[name], seq, 5)
        for _, key, row in found.rows:
            rows = {other: shown for other, shown in rows.items() if other != key} | ({key: row} if row else {})
        begun[name] = (found.upto, rows)

    def read() -> None:
        try:
            while not done.wait(0.005) or any(begun[name][0] < world.log.standing(name).seq for name in begun):
                for name in begun:
                    follow(name)
        except BaseException as error:
            trouble.append(error)

    writers = [threading.Thread(target=write, args=names) for names in (("food_business",), ("inspections", "checked"))]
    reader = threading.Thread(target=read)
    for thread in (*writers, reader):
        thread.start()
    for thread in writers:
        thread.join(60)
    done.set()
    reader.join(60)
    assert not trouble
    assert {name: rows for name, (_, rows) in begun.items()} == {name: world.rows(name)[1] for name in begun}


def test_what_is_not_streamed_is_not_logged(world: LoggedWorld) -> None:
    """No table, no log, and who asks for changes is told; streamed again, it begins where that was said."""
    world.start()
    builder = world.builders["inspections"]
    topics = random_topics(2, 20)
    place = ("food.inspection", 0)
    builder.apply([topics.batch(*place, 0, 2)])
    assert not sa.inspect(world.engine).has_table(log_name("inspections"))
    assert world.log.standing("inspections").log_from is None
    with pytest.raises(ChangesGone):
        world.log.changes(world.shapes["inspections"], 0, 10)
    world.switch(True, "inspections")
    begun = world.log.standing("inspections")
    assert begun.log_from == begun.seq
    with pytest.raises(ChangesGone):
        world.log.changes(world.shapes["inspections"], begun.seq - 1, 10)
    builder.apply([topics.batch(*place, 2, 4)])
    assert world.log.changes(world.shapes["inspections"], begun.seq, 10).upto == begun.seq + 1
    world.switch(False, "inspections")
    assert not sa.inspect(world.engine).has_table(log_name("inspections"))
    assert world.log.standings()["inspections"].log_from is None
    assert world.log.standing("nowhere").state == ""
    with pytest.raises(Fenced):
        switch(world.engine, world.shapes["inspections"], world.epochs["inspections"] + 1, streamed=True)


def test_death_between_any_two_statements(world: LoggedWorld) -> None:
    """A transaction that ends early leaves neither rows nor log; one that is committed leaves both."""
    world.start()
    world.switch(True)
    topics = Topics(REGISTRY)
    topics.append(inspection(2, 1, result="Pass"))
    topics.append(licence("b", 1, area=0.5))
    for name in ("inspections", "checked"):
        world.builders[name].apply([topics.batch("food.inspection", 0, 0, 1)])
    before, nothing = {name: (world.log.standing(name), world.rows(name)) for name in world.shapes}, world.totals()
    place = ("market.licence", sum(b"b") % 2)
    for last in range(0, 300, 3):
        try:
            with cut_after(world.engine, last):
                world.builders["food_business"].apply([topics.batch(*place, 0, 1)])
        except Cut:
            assert world.totals() == nothing
        else:
            break
    assert 20 < last < 297
    for name in ("food_business", "inspections", "checked", "by_name", "joined"):
        (standing, (seq, rows)), width = before[name], len(world.shapes[name].view.key)
        found = world.log.changes(world.shapes[name], seq, 100)
        assert found.upto == standing.seq + 1 == world.log.standing(name).seq
        for _, key, row in found.rows:
            rows = {other: shown for other, shown in rows.items() if other != key} | ({key: row} if row else {})
        assert rows == world.rows(name)[1], name
        assert found.rows, name
        assert all(row is None or row[:width] == key for _, key, row in found.rows)


def test_new_tables_begin_the_log_anew(world: LoggedWorld) -> None:
    """Swapped, undone, filled again or changed in place: what was read before is not continued but begun again, and
    what is computed from the view is logged on."""
    world.start()
    topics = random_topics(3)
    world.feed(topics, random.Random(3), check=False)
    world.switch(True)
    before = {name: world.log.standing(name) for name in world.shapes}
    swap_in(world, topics, "food_business")
    assert begun_anew(world, "food_business", before)
    assert not begun_anew(world, "by_name", before)
    before = {name: world.log.standing(name) for name in world.shapes}
    assert undo(world.engine, "food_business", world.epochs["food_business"], **around(world, "food_business"))
    assert begun_anew(world, "food_business", before)
    with world.engine.begin() as connection:
        connection.execute(sa.update(VIEWS).where(VIEWS.c.name == "joined").values(bases="{}"))
    assert world.enrolment("joined").refresh()
    assert begun_anew(world, "joined", before)
    changed = in_place(world, "history")
    assert begun_anew(world, "history", before)
    assert world.log.changes(changed, world.log.standing("history").seq, 10).rows == []
    with pytest.raises(ChangesGone), world.log.snapshot(world.shapes["history"]):
        pass
    remove(world.engine, "history", world.epochs["history"])
    assert not sa.inspect(world.engine).has_table(log_name("history"))


def begun_anew(world: LoggedWorld, name: str, before: dict[str, Any]) -> bool:
    """Whether nobody who read the log until then can go on with it; without a gap if so."""
    standing = world.log.standing(name)
    assert standing.log_from is not None
    if standing.log_from <= before[name].seq:
        return False
    with pytest.raises(ChangesGone):
        world.log.changes(world.shapes[name], before[name].seq, 10)
    return True


def swap_in(world: LoggedWorld, topics: Topics, name: str) -> None:
    """Builds the view beside itself and puts it in its place."""
    shape = replace(world.shapes[name], view=replace(world.shapes[name].view, name=f"{name}+next"))
    world.shapes[shape.view.name] = shape
    world.start(shape.view.name)
    builder = world.builders.pop(shape.view.name)
    del world.shapes[shape.view.name]
    for place in sorted(topics.logs):
        if place[0] in shape.view.entities:
            builder.apply([topics.batch(*place, 0, len(topics.logs[place]))])
    assert swap(world.engine, name, world.epochs[name], world.epochs[shape.view.name], **around(world, name))


def in_place(world: LoggedWorld, name: str) -> Shape:
    """A column of the view goes."""
    old = world.shapes[name]
    fields = dict(list(HISTORY["fields"].items())[:-1])  # type: ignore[attr-defined]
    new = shape_of(parse_view({**HISTORY, "fields": fields}), REGISTRY.contracts, world.shapes)
    change = plan(old, new)
    assert isinstance(change, InPlace)
    reshape(world.engine, old, new, change, world.epochs[name])
    return new


def test_what_is_old_is_pruned_in_bites(world: LoggedWorld) -> None:
    """Whole transactions, the oldest first; what is left is complete after where it begins."""
    world.start()
    world.switch(True, "inspections")
    shape, epoch, topics = world.shapes["inspections"], world.epochs["inspections"], random_topics(6, 60)
    world.look()
    for end in range(0, len(topics.log("food.inspection", 0)), 3):
        world.builders["inspections"].apply([topics.batch("food.inspection", 0, end, end + 3)])
        world.look()
    first = world.log.standing("inspections").log_from
    assert first is not None
    assert prune(world.engine, shape, epoch, 0) == 0
    assert prune(world.engine, shape, epoch + 1, 2**60) == 0
    taken = prune(world.engine, shape, epoch, 2**60, bite=4)
    standing = world.log.standing("inspections")
    assert 0 < taken < 12
    assert first < (standing.log_from or 0) < standing.seq
    with pytest.raises(ChangesGone):
        world.log.changes(shape, first, 10)
    assert world.check_replays(random.Random(1)) > 3
    assert prune(world.engine, shape, epoch, 2**60) > 0
    standing = world.log.standing("inspections")
    assert standing.log_from == standing.seq
    assert world.log.changes(shape, standing.seq, 10).rows == []


def test_a_worker_follows_which_views_are_streamed(world: LoggedWorld, database_url: str) -> None:
    """The set is replaced as a whole; each view's log begins and ends with the next step."""
    streamed = Streamed(open_database(database_url, "governance"))
    world.start("food_business", "history")
    now = [10**12]
    logs = Logs(world.engine, streamed, now_ms=lambda: now[0])

    def step() -> set[str]:
        logs.look()
        for name in ("food_business", "history"):
            logs.follow(world.shapes[name], world.epochs[name], world.store.states()[name])
        return {name for name, standing in world.log.standings().items() if standing.log_from is not None}

    assert step() == set()
    assert streamed.put(frozenset({"food_business", "unknown"}))
    assert not streamed.put(frozenset({"food_business", "unknown"}))
    assert step() == {"food_business"}
    assert streamed.put(frozenset({"history"}))
    assert streamed.names() == {"history"}
    assert step() == {"history"}
    topics = random_topics(1, 10)
    world.builders["history"].apply([topics.batch("food.inspection", 0, 0, 2)])
    now[0] = 2**60
    assert step() == {"history"}
    standing = world.log.standing("history")
    assert standing.log_from == standing.seq
