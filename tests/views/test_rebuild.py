"""Views built beside, compared, swapped and put back; tables changed in place: on both databases, without Kafka."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from test_builder import REGISTRY, TERMS, World
from views_world import INSPECTIONS, VIEW, Topics

from bus.core.declarations import parse_view
from bus.errors import Fenced
from bus.infra.database import open_database
from bus.views.builder import Builder
from bus.views.catalogue import Shape, shape_of
from bus.views.oracle.verify import Event, dump, dump_rows, fold
from bus.views.rebuilding.changes import InPlace, comparable, plan
from bus.views.rebuilding.comparing import compare
from bus.views.rebuilding.generation import prepare
from bus.views.rebuilding.reshaping import reshape
from bus.views.rebuilding.swap import NEXT, OLD, discard, swap, undo
from bus.views.store import VIEW as VIEWS
from bus.views.tables import row_table, table_name

NAME = "food_business"


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    engine = open_database(database_url, "views", durable=False)
    yield World(engine)
    engine.dispose()


def some_events(seed: int, count: int = 80) -> Topics:
    """Topics with random events, the same for the same seed."""
    topics, dice = Topics(REGISTRY), random.Random(seed)
    for _ in range(count):
        topics.append(licence_event(dice) if dice.random() < 0.5 else inspection_event(dice))
    return topics


def licence_event(dice: random.Random) -> Event:
    term = dice.choice(TERMS)
    record = {
        "term_id": term,
        "licence": dice.choice([None, 1, 2, 3]),
        "starts": dice.choice([None, dt.date(2010, 1, 1), dt.date(2020, 2, 29)]),
        "name": dice.choice([None, "", "a", "é"]),
        "area": dice.choice([None, -0.0, 1.5]),
        "fee": dice.choice([None, Decimal("-12.34")]),
    }
    gone = dice.random() < 0.1
    return Event("market.licence", TERMS.index(term) % 2, 0, None if gone else record, (term,))


def inspection_event(dice: random.Random) -> Event:
    number = dice.randint(1, 9)
    record = {
        "inspection": number,
        "business": dice.choice([None, 1, 2, 3]),
        "revision": dice.choice([None, 1, 2]),
        "at": dice.choice([None, dt.datetime(2021, 1, 1, tzinfo=dt.UTC)]),
        "result": dice.choice([None, "Pass", "Fail"]),
        "passed": dice.choice([None, True, False]),
    }
    gone = dice.random() < 0.1
    return Event("food.inspection", number % 2, 0, None if gone else record, (number,), dice.randint(0, 3))


def shadow_of(shape: Shape) -> Shape:
    return replace(shape, view=replace(shape.view, name=shape.view.name + NEXT))


def feed(builder: Builder, topics: Topics, upto: float = 1.0) -> None:
    for (entity, partition), log in sorted(topics.logs.items()):
        if entity in builder.shape.view.entities:
            builder.apply([topics.batch(entity, partition, 0, int(len(log) * upto))])


def beside(world: World, shape: Shape) -> tuple[Builder, int]:
    """A builder of the shadow, and its epoch."""
    shadow = shadow_of(shape)
    epoch = world.leases.acquire(shadow.view.name)
    assert epoch is not None
    prepare(world.engine, shadow, epoch)
    return Builder(world.engine, shadow, epoch), epoch


def declared(fields: Mapping[str, Any] | None = None, base: Mapping[str, Any] = VIEW, **members: Any) -> Shape:
    document = {**base, **members, **({"fields": fields} if fields is not None else {})}
    return shape_of(parse_view(document), REGISTRY.contracts, {})


def test_built_beside_compared_swapped_and_put_back(world: World) -> None:
    """Damage is counted, the swap repairs it in one step, ``seq`` goes on rising, builders of neither generation are
    confused, and one undo brings back what was there, which then catches up."""
    live, topics = world.builders()[NAME], some_events(1)
    shape, epoch = live.shape, world.epochs[NAME]
    feed(live, topics, 0.5)
    shadow, shadow_epoch = beside(world, shape)
    assert swap(world.engine, NAME, epoch, shadow_epoch) is None, "it has applied nothing"
    feed(shadow, topics, 0.3)
    assert compare(world.engine, shape, shadow.shape, None) is None
    assert swap(world.engine, NAME, epoch, shadow_epoch) is None, "it is behind"
    feed(live, topics)
    feed(shadow, topics)
    same = compare(world.engine, shape, shadow.shape, comparable(shape, shape))
    assert same is not None
    assert (same.differing, same.hidden) == (0, 0)
    damaged = damage(world, shape)
    found = compare(world.engine, shape, shadow.shape, None)
    assert found is not None
    assert found.differing == 1
    seq = world.store.states()[NAME].seq
    done = swap(world.engine, NAME, epoch, shadow_epoch)
    assert done is not None
    assert done.seq == world.store.states()[NAME].seq > seq
    assert world.dump(NAME) == world.expected(NAME, topics) != damaged
    assert set(world.store.states()) >= {NAME, NAME + OLD}
    assert NAME + NEXT not in world.store.states()
    topics.append(topics.events[0])
    feed(live, topics)
    assert world.dump(NAME) == world.expected(NAME, topics)

    assert undo(world.engine, NAME, epoch) is not None
    assert world.dump(NAME) == damaged
    assert world.store.states()[NAME].undone == shape.fingerprint
    feed(live, topics)
    assert undo(world.engine, NAME, epoch) is not None
    assert world.dump(NAME) == world.expected(NAME, topics)
    with world.engine.begin() as connection:
        assert discard(connection, NAME + OLD)
    assert undo(world.engine, NAME, epoch) is None
    second, second_epoch = beside(world, shape)
    feed(second, topics)
    assert swap(world.engine, NAME, epoch, second_epoch) is not None
    assert world.dump(NAME) == world.expected(NAME, topics)


def damage(world: World, shape: Shape) -> bytes:
    """Changes a name in one row behind the builder's back; what the view shows then."""
    table = row_table(shape)
    with world.engine.begin() as connection:
        key = connection.scalar(sa.select(sa.func.min(table.c.licence)))
        connection.execute(sa.update(table).where(table.c.licence == key).values(name="damaged"))
    return world.dump(NAME)


def test_a_swap_needs_both_leases(world: World) -> None:
    """Who lost the lease of the view or of what is built beside it changes nothing."""
    live, topics = world.builders()[NAME], some_events(2)
    feed(live, topics)
    shadow, epoch = beside(world, live.shape)
    feed(shadow, topics)
    for wrong in ((world.epochs[NAME] + 1, epoch), (world.epochs[NAME], epoch + 1)):
        with pytest.raises(Fenced):
            swap(world.engine, NAME, *wrong)
    assert world.dump(NAME) == world.expected(NAME, topics)
    assert NAME + NEXT in world.store.states()


def test_a_reader_in_the_middle_sees_one_generation(world: World) -> None:
    """A reader whose transaction began before the swap reads the old rows to its end; the next one the new ones."""
    live, topics = world.builders()[NAME], some_events(3)
    feed(live, topics)
    shadow, epoch = beside(world, live.shape)
    feed(shadow, topics)
    damaged = damage(world, live.shape)
    options = {"isolation_level": "REPEATABLE READ"} if world.engine.dialect.name == "postgresql" else {}
    with world.engine.execution_options(**options).connect() as reader:
        with reader.begin():
            assert dump(reader, live.shape) == damaged
            if world.engine.dialect.name == "sqlite":  # PostgreSQL would wait for the reader
                assert swap(world.engine, NAME, world.epochs[NAME], epoch) is not None
                assert dump(reader, live.shape) == damaged
        if world.engine.dialect.name == "postgresql":
            assert swap(world.engine, NAME, world.epochs[NAME], epoch) is not None
        with reader.begin():
            assert dump(reader, live.shape) == world.expected(NAME, topics)


FIELDS: Mapping[str, Any] = VIEW["fields"]  # type: ignore[assignment]
CHANGES: Mapping[str, tuple[Mapping[str, Any], bool]] = {
    "removed": ({n: f for n, f in FIELDS.items() if n not in ("name", "fee")}, True),
    "renamed": ({("title" if n == "name" else n): f for n, f in FIELDS.items()}, True),
    "swapped": ({**FIELDS, "name": FIELDS["result"], "result": FIELDS["name"]}, True),
    "reordered": (dict(reversed(list(FIELDS.items()))), True),
    "added from the rank": ({**FIELDS, "passed": {"from": "inspection.passed"}}, True),
    "added twice": ({**FIELDS, "again": FIELDS["name"], "result": FIELDS["result"]}, True),
    "added from the topic": ({**FIELDS, "revision": {"from": "inspection.revision"}}, False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_fields_changed_in_place(world: World, change: str) -> None:
    """Fields that go, change names or show what is kept already need no topics; the result is that of a view built
    anew, and stays so."""
    fields, in_place = CHANGES[change]
    live, topics = world.builders()[NAME], some_events(4)
    feed(live, topics)
    new = declared(fields)
    found = plan(live.shape, new)
    assert isinstance(found, InPlace) is in_place
    if isinstance(found, InPlace):
        builder = reshaped(world, live, new, found)
        assert_is_fold(world, new, topics)
        with pytest.raises(Fenced):
            feed(live, topics)
        more = some_events(5)
        for event in more.events:
            topics.append(event)
        feed(builder, topics)
        assert_is_fold(world, new, topics)


def reshaped(world: World, live: Builder, new: Shape, change: InPlace) -> Builder:
    epoch = world.epochs[live.shape.view.name]
    reshape(world.engine, live.shape, new, change, epoch)
    return Builder(world.engine, new, epoch)


def assert_is_fold(world: World, shape: Shape, topics: Topics) -> None:
    with world.engine.connect() as connection:
        there = dump(connection, shape)
    assert there == dump_rows(shape.columns, fold(shape.view, REGISTRY.contracts, topics.events))


def test_a_view_of_one_level_changed_in_place(world: World) -> None:
    """The same where records and rows are one table."""
    live, topics = world.builders()["inspections"], some_events(6)
    feed(live, topics)
    fields: dict[str, Any] = {"outcome": {"from": "i.result"}, "result": {"from": "i.business"}}
    new = declared({**fields, "same": {"from": "i.business"}, "at": {"from": "i.at"}}, INSPECTIONS)
    found = plan(live.shape, new)
    assert isinstance(found, InPlace)
    builder = reshaped(world, live, new, found)
    for event in some_events(7).events:
        topics.append(event)
    feed(builder, topics)
    assert_is_fold(world, new, topics)


def test_a_chain_of_changes(world: World) -> None:
    """Ten random declarations one after the other, some in place, with events between them."""
    dice, topics = random.Random(8), Topics(REGISTRY)
    live, arriving = world.builders()[NAME], some_events(9, 100).events
    shown = [*FIELDS.values(), {"from": "licence.term_id"}, {"from": "inspection.passed"}]
    in_place = 0
    for step in range(10):
        for event in arriving[step * 10 : step * 10 + 10]:
            topics.append(event)
        feed(live, topics)
        fields = {f"f{dice.randrange(9)}": source for source in dice.sample(shown, dice.randint(2, 6))}
        new = declared(fields)
        found = plan(live.shape, new)
        if isinstance(found, InPlace):
            in_place += 1
            live = reshaped(world, live, new, found)
        else:
            shadow, epoch = beside(world, new)
            feed(shadow, topics)
            assert swap(world.engine, NAME, world.epochs[NAME], epoch) is not None
            live = Builder(world.engine, new, world.epochs[NAME])
        assert_is_fold(world, new, topics)
    assert 0 < in_place < 10


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"key": ["licence"], "sources": {"licence": {"entity": "market.licence"}}, "fields": {}}, "sources"),
        ({"sources": {**VIEW["sources"], "licence": {"entity": "market.licence", "rank": ["name"]}}}, "sources"),  # type: ignore[dict-item]
    ],
)
def test_what_decides_rows_is_built_anew(members: dict[str, Any], reason: str) -> None:
    """Other sources, keys or ranks make other rows: nothing can be kept, and nothing compared."""
    if members.get("fields") == {}:
        members = {**members, "fields": {"name": FIELDS["name"]}}
    found = plan(declared(), declared(**members))
    assert isinstance(found, str)
    assert reason in found
    assert comparable(declared(), declared(**members)) == []


def test_names_of_tables_are_unambiguous() -> None:
    """Parts that are cut at another place make another name, and none is longer than PostgreSQL keeps."""
    pairs = [
        ("r_a", "b__c"),
        ("r_a__b", "c"),
        ("r_a_", "b"),
        ("r_a", "_b"),
        ("r_" + "x" * 70, "y"),
        ("r_" + "x" * 69, "xy"),
    ]
    names = {table_name(*pair) for pair in pairs}
    assert len(names) == len(pairs)
    assert max(map(len, names)) <= 63
    assert table_name("r_food_business", "licence") == "r_food_business__licence"


def test_what_tables_were_made_for_is_kept(world: World) -> None:
    """The row of a view says which declaration its tables have, whatever is declared now."""
    from bus.views.applied import applied_shape

    world.builders()
    row = world.store.states()[NAME]
    other = declared({"name": FIELDS["result"]}, title={"zh": "新", "en": "new"}, stale=True)
    found = applied_shape(other, row.fingerprint, row.shape)
    assert [column.name for column in found.columns] == [column.name for column in world.shapes[NAME].columns]
    assert (found.view.title, found.view.stale) == (other.view.title, True)
    with world.engine.begin() as connection:
        connection.execute(sa.update(VIEWS).where(VIEWS.c.name == NAME).values(shape=""))
    assert applied_shape(other, row.fingerprint, "") is other
