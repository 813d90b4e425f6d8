"""Any interleaving of the sources gives the rows of the fold, byte for byte, on both databases."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Engine
from views_world import BY_RESULT, INSPECTION, INSPECTIONS, LICENCE, VIEW, FixedRegistry, Topics

from bus.core.declarations import parse_view
from bus.errors import Fenced
from bus.infra.database import open_database
from bus.views.builder import Builder
from bus.views.catalogue import Shape, shape_of
from bus.views.derived.enrolment import Enrolment
from bus.views.oracle.verify import Event, dump, dump_rows, fold, fold_aggregate
from bus.views.rebuilding.generation import prepare
from bus.views.store import QUARANTINE, ViewStore
from bus.views.store import VIEW as VIEWS
from bus.views.tables import layout, row_table
from bus.views.workers.lease import Leases

REGISTRY = FixedRegistry(LICENCE, INSPECTION)
PARTITIONS = 2
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
BEFORE_1970 = dt.datetime(1969, 12, 31, 23, 59, 59, 999999, dt.UTC)
licences = st.fixed_dictionaries(
    {
        "term_id": st.sampled_from(["a|1", "b\\", "ü", "一", "z"]),
        "licence": st.sampled_from([None, 1, 2, 3]),
        "starts": st.sampled_from([None, dt.date(2010, 1, 1), dt.date(2020, 2, 29)]),
        "name": st.sampled_from([None, "", "a", "B", "é", "￿", "\U00010000"]),
        "area": st.sampled_from([None, 0.0, -0.0, 1.5, float("nan"), float("inf")]),
        "fee": st.sampled_from([None, Decimal("0.00"), Decimal("-12.34"), Decimal("9999999999.99")]),
    }
)
inspections = st.fixed_dictionaries(
    {
        "inspection": st.integers(1, 4),
        "business": st.sampled_from([None, 1, 2, 3]),
        "revision": st.sampled_from([None, 1, 2, 3]),
        "at": st.sampled_from([None, BEFORE_1970, dt.datetime(2021, 1, 1, tzinfo=dt.UTC)]),
        "result": st.sampled_from([None, "Pass", "Fail", "Fire"]),
        "passed": st.sampled_from([None, True, False]),
    }
)  # fmt: skip
TERMS = ["a|1", "b\\", "ü", "一", "z"]
sequences = st.sampled_from([None, None, None, 1, 2, 3])


@st.composite
def events(draw: st.DrawFn) -> Event:
    """An upsert or a delete; a record always lives in the partition that its key gives."""
    sequence = draw(sequences)
    if draw(st.booleans()):
        record = draw(licences)
        gone = draw(st.integers(0, 4)) == 0
        partition = TERMS.index(record["term_id"]) % PARTITIONS
        return Event("market.licence", partition, 0, None if gone else record, (record["term_id"],), None, sequence)
    record = draw(inspections)
    gone = draw(st.integers(0, 4)) == 0
    partition = record["inspection"] % PARTITIONS
    stated = draw(st.integers(0, 4)) if gone else None
    return Event("food.inspection", partition, 0, None if gone else record, (record["inspection"],), stated, sequence)


def shapes() -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    for document in (VIEW, INSPECTIONS, BY_RESULT):
        view = parse_view(document)
        found[view.name] = shape_of(view, REGISTRY.contracts, found)
    return found


class World:
    """The views database with builders for the test's views, fresh generations each time."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.store, self.shapes = engine, ViewStore(engine), shapes()
        self.leases = Leases(engine, "w", 5.0)
        self.epochs: dict[str, int] = {}
        self.made: dict[str, Builder] = {}

    def builders(self) -> dict[str, Builder]:
        """Builders on empty tables: what an earlier example left is forgotten."""
        if not self.made:
            self.made = {name: self.builder(name) for name, shape in self.shapes.items() if shape.contracts}
            self.epochs["by_result"] = self.leases.acquire("by_result") or 0
            prepare(self.engine, self.shapes["by_result"], self.epochs["by_result"])
            return self.made
        with self.engine.begin() as connection:
            for name in ("position", "quarantine", *self.tables()):
                connection.execute(sa.delete(sa.table(name)))
            zero = dict.fromkeys(("seq", "applied", "stale_dropped", "null_key", "quarantined"), 0)
            connection.execute(sa.update(VIEWS).values(**zero, state="building", bases="{}", dependents="{}"))
        return self.made

    def tables(self) -> list[str]:
        """The tables of all views."""
        every = [table.name for name in self.made for table in layout(self.shapes[name]).tables]
        return [*every, row_table(self.shapes["by_result"]).name]

    def builder(self, name: str) -> Builder:
        epoch = self.leases.acquire(name)
        assert epoch is not None
        prepare(self.engine, self.shapes[name], epoch)
        self.epochs[name] = epoch
        return Builder(self.engine, self.shapes[name], epoch)

    def dump(self, name: str) -> bytes:
        with self.engine.connect() as connection:
            return dump(connection, self.shapes[name])

    def expected(self, name: str, topics: Topics) -> bytes:
        shape = self.shapes[name]
        return dump_rows(shape.columns, fold(shape.view, REGISTRY.contracts, topics.events))


def feed(builders: dict[str, Builder], topics: Topics, choose: random.Random) -> None:
    """Applies all logs in a random interleaving of batches, some of them twice or overlapping."""
    at = dict.fromkeys(topics.logs, 0)
    while any(at[place] < len(log) for place, log in topics.logs.items()):
        places = choose.sample(sorted(at), choose.randint(1, len(at)))
        batches = []
        for place in places:
            start = max(0, at[place] - choose.randint(0, 2))
            at[place] = min(len(topics.logs[place]), at[place] + choose.randint(0, 4))
            batches.append(topics.batch(*place, start, at[place]))
        for builder in builders.values():
            mine = [batch for batch in batches if batch.entity in builder.shape.view.entities]
            if mine:
                assert not builder.apply(mine).gaps


class ViewContract:
    """What a view promises, whatever database it is in. Subclasses say which."""

    @pytest.fixture
    def world(self, url: str) -> Iterator[World]:
        engine = open_database(url, "views", durable=False)
        yield World(engine)
        engine.dispose()

    @settings(max_examples=60, deadline=None, suppress_health_check=CHECKS)
    @given(drawn=st.lists(st.tuples(events(), st.integers(1, 3)), max_size=25), seed=st.integers(0, 2**32))
    def test_any_interleaving_equals_the_fold(self, world: World, drawn: list[tuple[Event, int]], seed: int) -> None:
        """Duplicates, late versions, deletes and moves between view keys, in any interleaving of partitions and
        batches, repeated batches included, give the rows of the fold."""
        topics = Topics(REGISTRY)
        for event, copies in drawn:
            topics.append(event, copies=copies)
        feed(world.builders(), topics, random.Random(seed))
        for name in ("food_business", "inspections"):
            assert world.dump(name) == world.expected(name, topics)

    @settings(max_examples=25, deadline=None, suppress_health_check=CHECKS)
    @given(drawn=st.lists(events(), max_size=25))
    def test_aggregates_equal_the_fold(self, world: World, drawn: list[Event]) -> None:
        """Counts, sums, least, greatest and distinct values, a join and the null group equal plain Python."""
        topics = Topics(REGISTRY)
        for event in drawn:
            topics.append(event)
        feed(world.builders(), topics, random.Random(1))
        aggregate = Enrolment(world.engine, world.shapes["by_result"], world.epochs["by_result"])
        assert aggregate.refresh()
        rows = {
            n: fold(world.shapes[n].view, REGISTRY.contracts, topics.events) for n in ("food_business", "inspections")
        }
        shape = world.shapes["by_result"]
        assert world.dump("by_result") == dump_rows(shape.columns, fold_aggregate(shape, world.shapes, rows))
        assert not aggregate.refresh()

    def test_late_events_are_counted(self, world: World) -> None:
        """Versions 3, 1, 2 and a delete 2 of one record: 3 stays, three came late; update 4 counts again."""
        topics = Topics(REGISTRY)
        builder = world.builders()["inspections"]

        def inspection(revision: int) -> dict[str, Any]:
            return {
                "inspection": 1,
                "business": 1,
                "revision": revision,
                "at": None,
                "result": str(revision),
                "passed": None,
            }

        for step in (3, 1, 2):
            topics.append(Event("food.inspection", 0, 0, inspection(step)))
        topics.append(Event("food.inspection", 0, 0, None, (1,), 2))
        builder.apply([topics.batch("food.inspection", 0, 0, 2)])
        builder.apply([topics.batch("food.inspection", 0, 2, 4)])
        state = world.store.states()["inspections"]
        assert (state.applied, state.stale_dropped, state.rows, state.seq) == (1, 3, 1, 2)
        topics.append(Event("food.inspection", 0, 0, inspection(4)))
        builder.apply([topics.batch("food.inspection", 0, 4, 5)])
        assert world.store.states()["inspections"].stale_dropped == 3
        assert b'"4"' in world.dump("inspections")

    def test_a_tombstone_blocks_older_upserts(self, world: World) -> None:
        """After delete 5, upsert 4 changes nothing and upsert 6 brings the record back."""
        topics = Topics(REGISTRY)
        builder = world.builders()["inspections"]
        topics.append(Event("food.inspection", 0, 0, None, (7,), 5))
        for revision in (4, 6):
            record = {
                "inspection": 7,
                "business": None,
                "revision": revision,
                "at": None,
                "result": None,
                "passed": None,
            }
            topics.append(Event("food.inspection", 0, 0, record))
        builder.apply([topics.batch("food.inspection", 0, 0, 2)])
        assert world.store.states()["inspections"].rows == 0
        builder.apply([topics.batch("food.inspection", 0, 2, 3)])
        assert world.store.states()["inspections"].rows == 1

    def test_a_fenced_builder_writes_nothing(self, world: World) -> None:
        """After another worker took the lease, the old builder's batch is refused and leaves no trace."""
        topics = Topics(REGISTRY)
        zombie = world.builders()["food_business"]
        topics.append(Event("market.licence", 0, 0, _licence("a", 1)))
        time = [0.0]
        other = Leases(world.engine, "other", 5.0, clock=lambda: time[0])
        assert other.acquire("food_business") is None
        time[0] = 5.1
        assert other.acquire("food_business") == world.epochs["food_business"] + 1
        with pytest.raises(Fenced):
            zombie.apply([topics.batch("market.licence", 0, 0, 1)])
        assert world.store.positions("food_business") == []
        assert world.store.states()["food_business"].rows == 0

    def test_a_batch_beyond_the_position_is_not_applied(self, world: World) -> None:
        """A gap is reported and nothing of that partition is applied; the other partition's batch is."""
        topics = Topics(REGISTRY)
        builder = world.builders()["food_business"]
        for name in ("a", "b"):
            topics.append(Event("market.licence", 0, 0, _licence(name, 1)))
        topics.append(Event("market.licence", 1, 0, _licence("c", 2)))
        outcome = builder.apply([topics.batch("market.licence", 0, 1, 2), topics.batch("market.licence", 1, 0, 1)])
        assert outcome.gaps == {("dept.market.licence", 0)}
        assert world.store.states()["food_business"].rows == 1

    def test_null_view_keys_are_counted(self, world: World) -> None:
        """A record without a view key makes no row and is counted, until it gets one."""
        topics = Topics(REGISTRY)
        builder = world.builders()["food_business"]
        topics.append(Event("market.licence", 0, 0, _licence("a", None)))
        topics.append(Event("market.licence", 0, 0, _licence("a", 5)))
        builder.apply([topics.batch("market.licence", 0, 0, 1)])
        state = world.store.states()["food_business"]
        assert (state.null_key, state.rows) == (1, 0)
        builder.apply([topics.batch("market.licence", 0, 1, 2)])
        state = world.store.states()["food_business"]
        assert (state.null_key, state.rows) == (0, 1)

    def test_events_without_a_sequence_after_one_with(self, world: World) -> None:
        """They would be lost silently, so they go to quarantine with the reason, and are counted."""
        topics = Topics(REGISTRY)
        builder = world.builders()["food_business"]
        topics.append(Event("market.licence", 0, 0, _licence("a", 1), sequence=7))
        topics.append(Event("market.licence", 0, 0, _licence("b", 1)))
        builder.apply([topics.batch("market.licence", 0, 0, 1)])
        builder.apply([topics.batch("market.licence", 0, 1, 2)])
        with world.engine.connect() as connection:
            (entry,) = connection.execute(sa.select(QUARANTINE)).mappings()
        assert (entry["offset"], entry["entity"]) == (1, "market.licence")
        assert "ce_sequence" in entry["reasons"]
        assert world.store.states()["food_business"].quarantined == 1

    def test_a_changed_declaration_rebuilds(self, world: World) -> None:
        """Another declaration drops tables and positions at once and starts from the beginning, as building."""
        topics = Topics(REGISTRY)
        world.builders()["food_business"].apply([_one(topics, _licence("a", 1))])
        changed = {**VIEW, "fields": {"title": {"from": "licence.name"}}}
        shape = shape_of(parse_view(changed), REGISTRY.contracts, {})
        epoch = world.epochs["food_business"]
        assert prepare(world.engine, shape, epoch)
        assert not prepare(world.engine, shape, epoch)
        assert world.store.positions("food_business") == []
        state = world.store.states()["food_business"]
        assert (state.state, state.rows, state.fingerprint) == ("building", 0, shape.fingerprint)
        Builder(world.engine, shape, epoch).apply([topics.batch("market.licence", 0, 0, 1)])
        assert world.store.states()["food_business"].rows == 1


def _licence(term: str, licence: int | None) -> dict[str, Any]:
    return {"term_id": term, "licence": licence, "starts": None, "name": term, "area": None, "fee": None}


def _one(topics: Topics, record: dict[str, Any]) -> Any:
    topics.append(Event("market.licence", 0, 0, record))
    return topics.batch("market.licence", 0, 0, 1)


class TestSqlite(ViewContract):
    """Views in SQLite files."""

    @pytest.fixture
    def url(self, sqlite_url: str) -> str:
        return sqlite_url


@pytest.mark.postgresql
class TestPostgresql(ViewContract):
    """Views in PostgreSQL."""

    @pytest.fixture
    def url(self, postgresql_url: str) -> str:
        return postgresql_url
