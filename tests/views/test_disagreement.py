"""A discrepancy is open exactly where the fold of the events shows two different values, on both databases."""

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
from views_world import DATE, INSTANT, MONEY, FixedRegistry, Topics, schema

from bus.core.declarations import parse_view
from bus.infra.database import open_database
from bus.views.builder import Builder
from bus.views.catalogue import Shape, shape_of
from bus.views.oracle.verify import Event
from bus.views.oracle.verify_disagreement import Open, differing, fold_open, read_open
from bus.views.rebuilding.generation import prepare, remove
from bus.views.store import DISCREPANCY, VIEW, ViewStore
from bus.views.tables import layout
from bus.views.workers.lease import Leases

FIELDS: dict[str, Any] = {
    "at": ["null", INSTANT],
    "fee": ["null", MONEY],
    "name": ["null", "string"],
    "since": ["null", DATE],
    "size": ["null", "double"],
    "open": ["null", "boolean"],
    "tags": ["null", {"type": "array", "items": "string"}],
}
LICENCE = schema("market", "Licence", ["term"], {"term": "long", "shop": ["null", "string"], **FIELDS})
VISIT = schema(
    "food",
    "Visit",
    ["visit"],
    {"visit": "long", "place": ["null", "string"], "floor": ["null", "long"], **FIELDS},
    **{"bus.owner": "food"},
)
TAX = schema("tax", "Account", ["account"], {"account": "string", "name": ["null", "string"]})
DOCUMENT = {
    "view": "shop",
    "owner": "market",
    "key": ["shop"],
    "sources": {
        "licence": {"entity": "market.licence", "rank": ["since"]},
        "visit": {"entity": "food.visit", "key": ["place"]},
        "tax": {"entity": "tax.account", "key": ["account"]},
    },
    "fields": {
        **{name: {"from": f"licence.{name}", "also_reported_by": [f"visit.{name}"]} for name in FIELDS},
        "name": {"from": "licence.name", "also_reported_by": ["visit.name", "tax.name"]},
        "title": {"from": "licence.name", "also_reported_by": ["visit.name"], "compare": "folded"},
        "floor": {"from": "visit.floor"},
    },
}
REGISTRY = FixedRegistry(LICENCE, VISIT, TAX)
SHOPS = [None, "a", "b|c\\", "丙"]
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
values = {
    "at": st.sampled_from([None, dt.datetime(1969, 1, 1, tzinfo=dt.UTC), dt.datetime(2021, 1, 1, tzinfo=dt.UTC)]),
    "fee": st.sampled_from([None, Decimal("1.00"), Decimal("-0.50")]),
    "name": st.sampled_from([None, "", " ", "a", "A", "a ", "Strasse 1", "STRAßE  1", "é", "e\u0301"]),
    "since": st.sampled_from([None, dt.date(2010, 1, 1), dt.date(2020, 2, 29)]),
    "size": st.sampled_from([None, 0.0, -0.0, 0.1, 0.30000000000000004, 0.3, float("nan")]),
    "open": st.sampled_from([None, True, False]),
    "tags": st.sampled_from([None, [], ["x"], ["x", "y"]]),
}
licences = st.fixed_dictionaries({"term": st.integers(1, 4), "shop": st.sampled_from(SHOPS), **values})
visits = st.fixed_dictionaries(
    {"visit": st.integers(1, 3), "place": st.sampled_from(SHOPS), "floor": st.sampled_from([None, 1]), **values}
)
accounts = st.fixed_dictionaries({"account": st.sampled_from(["a", "丙"]), "name": values["name"]})


@st.composite
def events(draw: st.DrawFn) -> Event:
    """An upsert, or one time in four a delete, of any of the three departments."""
    entity, records, key = draw(
        st.sampled_from(
            [
                ("market.licence", licences, "term"),
                ("food.visit", visits, "visit"),
                ("tax.account", accounts, "account"),
            ]
        )
    )
    record = draw(records)
    gone = draw(st.integers(0, 3)) == 0
    return Event(entity, 0, 0, None if gone else record, (record[key],))


class World:
    """One view with three sources in the views database, emptied for each example."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        ViewStore(engine)
        self.shape: Shape = shape_of(parse_view(DOCUMENT), REGISTRY.contracts, {})
        self.epoch = Leases(engine, "w", 5.0).acquire("shop") or 0
        prepare(engine, self.shape, self.epoch)
        self.builder = Builder(engine, self.shape, self.epoch)

    def empty(self) -> None:
        with self.engine.begin() as connection:
            for name in ("position", "discrepancy", *(table.name for table in layout(self.shape).tables)):
                connection.execute(sa.delete(sa.table(name)))
            connection.execute(sa.update(VIEW).values(seq=VIEW.c.seq + 1))  # as all do that change positions

    def entries(self) -> list[sa.RowMapping]:
        statement = sa.select(DISCREPANCY).order_by(DISCREPANCY.c.opened_ms, DISCREPANCY.c.offset)
        with self.engine.connect() as connection:
            return list(connection.execute(statement).mappings())

    def names(self) -> list[sa.RowMapping]:
        return [entry for entry in self.entries() if entry["field"] == "name"]

    def open(self) -> Open:
        with self.engine.connect() as connection:
            return read_open(connection, "shop")

    def apply(self, topics: Topics, *events: Event) -> None:
        """These events, each reaching its topic a second after the one before, in one transaction."""
        before = {place: len(log) for place, log in topics.logs.items()}
        for event in events:
            topics.append(event)
            topics.log(event.entity, event.partition)[-1].timestamp = 1_000 * len(topics.events)
        changed = [place for place, log in topics.logs.items() if len(log) > before.get(place, 0)]
        batches = [topics.batch(*place, before.get(place, 0), len(topics.logs[place])) for place in changed]
        self.builder.apply(batches)


def licence(term: int, name: str | None, shop: str | None = "a", since: dt.date | None = None) -> Event:
    blank = dict.fromkeys(FIELDS, None)
    return Event("market.licence", 0, 0, {**blank, "term": term, "shop": shop, "name": name, "since": since})


def visit(number: int, name: str | None, shop: str | None = "a") -> Event:
    blank = dict.fromkeys((*FIELDS, "floor"), None)
    return Event("food.visit", 0, 0, {**blank, "visit": number, "place": shop, "name": name})


def test_the_oracle_compares_as_declared() -> None:
    """Byte by byte, or with case and white space folded; by plain values, one pair at a time."""
    events = [licence(1, "STRAßE  1"), visit(1, "strasse 1 ")]
    shape = shape_of(parse_view(DOCUMENT), REGISTRY.contracts, {})
    found = fold_open(shape.view, REGISTRY.contracts, events)
    assert found == {("a", "name", "visit"): ("STRAßE  1", "strasse 1 ")}
    assert differing(found, {}) == ["+ open: ('a', 'name', 'visit') ('STRAßE  1', 'strasse 1 ')"]
    assert differing({}, found) == ["- open: ('a', 'name', 'visit') ('STRAßE  1', 'strasse 1 ')"]
    assert differing(found, found) == []


class DisagreementContract:
    """What is promised of discrepancies, whatever database they are in. Subclasses say which."""

    @pytest.fixture
    def world(self, url: str) -> Iterator[World]:
        engine = open_database(url, "views", durable=False)
        yield World(engine)
        engine.dispose()

    @settings(max_examples=20, deadline=None, suppress_health_check=CHECKS)
    @given(drawn=st.lists(events(), max_size=16), seed=st.integers(0, 2**32))
    def test_open_ones_follow_from_the_events(self, world: World, drawn: list[Event], seed: int) -> None:
        """Updates, deletes and moves between keys, sources in any order and batches of any size, some repeated: after
        each batch exactly those are open whose two values the fold shows to differ."""
        world.empty()
        topics, choose = Topics(REGISTRY), random.Random(seed)
        for event in drawn:
            topics.append(event)
        at = dict.fromkeys(topics.logs, 0)
        while any(at[place] < len(log) for place, log in topics.logs.items()):
            place = choose.choice(sorted(at))
            start = max(0, at[place] - choose.randint(0, 2))
            at[place] = min(len(topics.logs[place]), at[place] + choose.randint(0, 5))
            assert not world.builder.apply([topics.batch(*place, start, at[place])]).gaps
            applied = [event for event in topics.events if event.offset < at[event.entity, event.partition]]
            assert world.open() == fold_open(world.shape.view, REGISTRY.contracts, applied)

    def test_the_later_of_two_records_opens_it(self, world: World) -> None:
        """Place and time are those of the event that disagreed; a change of a value keeps them; agreement closes it
        with the time of its event, and another disagreement is another entry."""
        topics = Topics(REGISTRY)
        world.apply(topics, licence(1, "Wang"))
        world.apply(topics, visit(1, "Wong"))
        world.apply(topics, visit(1, "Weng"))
        (entry,) = world.names()
        assert (entry["topic"], entry["partition"], entry["offset"]) == ("dept.food.visit", 0, 0)
        assert (entry["opened_ms"], entry["closed_ms"]) == (2_000, None)
        assert (entry["shown"], entry["reported"], entry["source"]) == ("Wang", "Weng", "licence")
        world.apply(topics, visit(1, "Wang"))
        assert [entry["closed_ms"] for entry in world.names()] == [4_000]
        world.apply(topics, licence(1, "Li"), licence(1, "Zhao"))
        first, second = world.names()
        assert first["closed_ms"] == 4_000
        assert (second["topic"], second["offset"], second["opened_ms"]) == ("dept.market.licence", 2, 6_000)

    def test_a_deleted_record_opens_what_it_hid(self, world: World) -> None:
        """Where the record above it is deleted, an older one disagrees: opened by the transaction's last event."""
        topics = Topics(REGISTRY)
        old, new = licence(1, "Wang", since=dt.date(2010, 1, 1)), licence(2, "Li", since=dt.date(2020, 1, 1))
        world.apply(topics, old, new, visit(1, "Li"))
        assert world.entries() == []
        world.apply(topics, Event("market.licence", 0, 0, None, (2,)))
        (entry,) = world.names()
        assert (entry["shown"], entry["reported"]) == ("Wang", "Li")
        assert (entry["topic"], entry["offset"], entry["opened_ms"]) == ("dept.market.licence", 2, 4_000)

    def test_a_row_that_goes_closes_it(self, world: World) -> None:
        """A record that moves to another key closes what was open at the old one."""
        topics = Topics(REGISTRY)
        world.apply(topics, licence(1, "Wang"), visit(1, "Li"))
        world.apply(topics, licence(1, "Wang", shop="丙"))
        assert world.open() == {}
        world.apply(topics, visit(2, "Li", shop="丙"))
        assert world.open() == {("丙", field, "visit"): ("Wang", "Li") for field in ("name", "title")}

    def test_they_go_with_the_view(self, world: World) -> None:
        """A view that is taken back leaves no discrepancy behind."""
        world.apply(Topics(REGISTRY), licence(1, "Wang"), visit(1, "Li"))
        remove(world.engine, "shop", world.epoch)
        assert world.entries() == []

    def test_an_undone_transaction_leaves_no_trace(self, world: World) -> None:
        """A transaction that fails before its commit opens nothing; the same batches again open it once."""
        topics, fails = Topics(REGISTRY), [False, True]

        def crash(point: str) -> None:
            if point == "before commit" and fails.pop():
                raise RuntimeError(point)

        builder = Builder(world.engine, world.shape, world.epoch, crash_point=crash)
        topics.append(licence(1, "Wang"))
        topics.append(visit(1, "Li"))
        batches = [topics.batch(entity, 0, 0, 1) for entity in ("market.licence", "food.visit")]
        with pytest.raises(RuntimeError):
            builder.apply(batches)
        assert world.entries() == []
        builder.apply(batches)
        assert len(world.open()) == 2


class TestSqlite(DisagreementContract):
    """On SQLite."""

    @pytest.fixture
    def url(self, sqlite_url: str) -> str:
        return sqlite_url


class TestPostgresql(DisagreementContract):
    """On PostgreSQL."""

    @pytest.fixture
    def url(self, postgresql_url: str) -> str:
        return postgresql_url
