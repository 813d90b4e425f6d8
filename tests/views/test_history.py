"""A history as of any instant, and at any instant of validity, is the fold of what was known then, byte for byte."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Engine
from views_world import DATE, INSPECTION, FixedRegistry, Topics, schema

from bus.core.contracts import Contract
from bus.core.declarations import parse_view
from bus.infra.database import open_database
from bus.views.builder import Builder
from bus.views.catalogue import Shape, shape_of
from bus.views.derived.history import Moment, read_versions, rows_at
from bus.views.oracle.verify import Event, Row, dump, dump_rows
from bus.views.oracle.verify_history import dump_versions, fold_history, fold_versions
from bus.views.rebuilding.generation import prepare, remove
from bus.views.store import POSITION, VIEW, ViewStore
from bus.views.tables import layout
from bus.views.workers.lease import Leases

PERMIT = schema(
    "market",
    "Permit",
    ["permit", "part"],
    {
        "permit": "long",
        "part": "string",
        "starts": ["null", DATE],
        "ends": ["null", DATE],
        "area": ["null", "double"],
    },
)
PLAIN = {
    "view": "inspection_versions",
    "owner": "food",
    "kind": "history",
    "key": ["inspection"],
    "sources": {"i": {"entity": "food.inspection"}},
    "fields": {name: {"from": f"i.{name}"} for name in ("business", "at", "result", "passed")},
}
STATED = {
    "view": "permits",
    "owner": "market",
    "kind": "history",
    "key": ["permit", "part"],
    "sources": {"p": {"entity": "market.permit"}},
    "fields": {"area": {"from": "p.area"}},
    "valid": {"from": "starts", "to": "ends"},
}
REGISTRY = FixedRegistry(INSPECTION, PERMIT)
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
days = st.integers(0, 6)
TIMES = (None, None, "2026-01-02T00:00:00Z", "2026-01-04T09:00:00.000001+09:00", "1969-12-31T23:59:59Z", "yesterday",
         "2026-01-03T00:00:00")  # fmt: skip


def ms(day: float) -> int:
    """Milliseconds of a day after the start, as the broker stamps them."""
    return int((START.timestamp() + day * 86_400) * 1_000)


@st.composite
def changes(draw: st.DrawFn) -> Event:
    """A change of one of few records: late, equal in version or time, stated to begin at another day, or a delete; one
    time in ten in another partition than the record's own."""
    stray = draw(st.integers(0, 9)) == 9
    gone, appended = draw(st.integers(0, 4)) == 0, ms(draw(days) + draw(st.sampled_from([0.0, 0.5])))
    sequence = draw(st.sampled_from([None, None, None, None, 1, 2]))
    told = {"sequence": sequence, "appended_ms": appended, "time": draw(st.sampled_from(TIMES))}
    if draw(st.booleans()):
        day = st.sampled_from([None, *((START + n * DAY).date() for n in (-90_000, 0, 1, 3, 5))])
        key = (draw(st.integers(1, 2)), draw(st.sampled_from(["a", "b|"])))
        record = {"permit": key[0], "part": key[1], "starts": draw(day), "ends": draw(day)}
        record["area"] = draw(st.sampled_from([None, -0.0, 1.5, float("nan")]))
        return Event("market.permit", (key[0] + stray) % 2, 0, None if gone else record, key, **told)
    number = draw(st.integers(1, 3))
    record = {
        "inspection": number,
        "business": draw(st.integers(1, 9)),
        "revision": draw(st.sampled_from([None, 1, 2, 3])),
        "at": None,
        "result": draw(st.sampled_from([None, "Pass", "Fail"])),
        "passed": None,
    }
    stated = draw(st.integers(0, 4)) if gone else None
    return Event("food.inspection", (number + stray) % 2, 0, None if gone else record, (number,), stated, **told)


class World:
    """Two history views on one database: one that counts from the event's time, one whose contract states validity."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        ViewStore(engine)
        self.leases = Leases(engine, "w", 5.0)
        views = [parse_view(document) for document in (PLAIN, STATED)]
        self.shapes = {view.name: shape_of(view, REGISTRY.contracts, {}) for view in views}
        self.builders = {name: self._builder(shape) for name, shape in self.shapes.items()}

    def _builder(self, shape: Shape) -> Builder:
        epoch = self.leases.acquire(shape.view.name)
        assert epoch is not None
        prepare(self.engine, shape, epoch)
        return Builder(self.engine, shape, epoch)

    def empty(self) -> None:
        """As if nothing had been applied."""
        tables = [table.name for shape in self.shapes.values() for table in layout(shape).tables]
        with self.engine.begin() as connection:
            for name in (POSITION.name, "quarantine", *tables):
                connection.execute(sa.delete(sa.table(name)))
            connection.execute(sa.update(VIEW).values(seq=VIEW.c.seq + 1))  # as all do that change positions

    def apply(self, topics: Topics, cuts: Iterator[int]) -> None:
        """All that the topics have, in batches of any size, one partition after the other; some are repeated."""
        for (entity, partition), log in topics.logs.items():
            builder = next(b for b in self.builders.values() if b.shape.view.entities == (entity,))
            at = 0
            while at < len(log):
                end = min(len(log), at + next(cuts))
                builder.apply([topics.batch(entity, partition, max(0, at - next(cuts) + 1), end)])
                at = end

    def at(self, name: str, moment: Moment) -> list[Row]:
        """The rows as the SQL gives them."""
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(sa.select(rows_at(self.shapes[name], moment))).mappings()]

    def versions(self, name: str) -> list[Row]:
        with self.engine.connect() as connection:
            return read_versions(connection, self.shapes[name])


@pytest.fixture
def world(database_url: str) -> World:
    """The test's views on each database."""
    return World(open_database(database_url, "views", durable=False))


def _contracts() -> Mapping[str, Contract]:
    return REGISTRY.contracts


def moments() -> st.SearchStrategy[Moment]:
    """Every combination of now, a day's start, a moment just before it, and long ago or in the far future."""
    backs = st.sampled_from([dt.timedelta(), dt.timedelta.resolution])
    instant = st.one_of(
        st.none(),
        st.builds(lambda day, back: START + day * DAY - back, days, backs),
        st.sampled_from([dt.datetime(1, 1, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, tzinfo=dt.UTC)]),
    )
    return st.builds(Moment, instant, instant)


@settings(max_examples=30, deadline=None, suppress_health_check=CHECKS)
@given(
    st.lists(changes(), max_size=14),
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.lists(moments(), min_size=1, max_size=6),
)
@example([], [1], [Moment()])
def test_any_moment_is_the_fold_of_what_was_known_then(
    world: World, events: list[Event], sizes: list[int], asked: list[Moment]
) -> None:
    """Late events, corrections, deletes, repeats and batches cut anywhere; both times, alone and together."""
    world.empty()
    topics = Topics(REGISTRY)
    for event in events:
        topics.append(event)

    def cuts() -> Iterator[int]:
        while True:
            yield from sizes

    world.apply(topics, cuts())
    for name, shape in world.shapes.items():
        for moment in [*asked, Moment(), Moment(as_of=dt.datetime(9999, 12, 31, tzinfo=dt.UTC))]:
            folded = fold_history(shape.view, _contracts(), topics.events, as_of=moment.as_of, valid_at=moment.valid_at)
            assert dump_rows(shape.columns, world.at(name, moment)) == dump_rows(shape.columns, folded), moment
        with world.engine.connect() as connection:
            assert dump(connection, shape) == dump_rows(shape.columns, world.at(name, Moment()))
        kept = sorted(map(repr, world.versions(name)))
        versions = fold_versions(shape.view, _contracts(), topics.events)
        assert dump_versions(shape.view, world.versions(name)) == dump_versions(shape.view, versions)
        world.empty()
        world.apply(topics, iter(lambda: 100, 0))
        assert sorted(map(repr, world.versions(name))) == kept


def _inspection(result: str | None, **more: Any) -> Event:
    record = {"inspection": 1, "business": 7, "revision": None, "at": None, "result": result, "passed": None}
    return Event("food.inspection", 0, 0, record if result else None, (1,), **more)


def _results(world: World, *events: Event) -> Any:
    topics = Topics(REGISTRY)
    for event in events:
        topics.append(event)
    world.apply(topics, iter(lambda: 1, 0))

    def at(**moment: dt.datetime) -> list[str | None]:
        return [row["result"] for row in world.at("inspection_versions", Moment(**moment))]

    return at


def test_what_was_known_is_not_what_is_known(world: World) -> None:
    """A late correction changes what held, and not what was known to hold before it came."""
    at = _results(
        world,
        _inspection("Pass", appended_ms=ms(1), time="2026-01-01T00:00:00Z"),
        _inspection("Fail", appended_ms=ms(4), time="2026-01-01T00:00:00Z"),
    )
    assert at(as_of=START) == []
    assert at(as_of=START + DAY) == ["Pass"]
    assert at(valid_at=START) == ["Fail"]
    assert at(valid_at=START, as_of=START + 2 * DAY) == ["Pass"]


def test_a_deleted_record_is_there_before_its_deletion(world: World) -> None:
    """And gone from then on, until it is published again."""
    at = _results(
        world,
        _inspection("Pass", appended_ms=ms(1)),
        Event("food.inspection", 0, 0, None, (1,), 9, appended_ms=ms(2)),
        _inspection("Late", appended_ms=ms(3)),
    )
    assert at(as_of=START + DAY) == ["Pass"]
    assert at(as_of=START + 2 * DAY) == []
    assert at(as_of=START + 9 * DAY) == []  # the upsert states an older version than the delete
    assert at() == []


def test_the_brokers_clock_never_goes_back(world: World) -> None:
    """An event that was appended with an earlier stamp than the one before it is known no earlier than that one."""
    at = _results(world, _inspection("Pass", appended_ms=ms(3)), _inspection("Fail", appended_ms=ms(1)))
    assert at(as_of=START + 2 * DAY) == []
    assert at(as_of=START + 3 * DAY) == ["Fail"]


def test_a_view_that_goes_takes_its_history_along(world: World) -> None:
    """Dropping a view drops the table of its versions; only history views have one."""
    shape = world.shapes["permits"]
    with world.engine.connect() as connection:
        assert sa.inspect(connection).has_table("h_permits")
        epoch = connection.scalar(sa.select(VIEW.c.epoch).where(VIEW.c.name == "permits"))
    assert epoch is not None
    remove(world.engine, "permits", epoch)
    with world.engine.connect() as connection:
        assert not sa.inspect(connection).has_table("h_permits")
    entity = shape_of(parse_view({**PLAIN, "kind": "entity"}), REGISTRY.contracts, {})
    assert layout(entity).history is None
    assert shape.view.valid == ("starts", "ends")
