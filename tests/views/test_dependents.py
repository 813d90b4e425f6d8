"""Look-ups and aggregates are right after every commit, whatever changes first, on both databases."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from dependents_world import World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Connection
from test_builder import REGISTRY, events
from views_world import Topics

from bus.errors import DependentsChanged
from bus.infra.database import open_database
from bus.views.builder import Builder
from bus.views.derived.followed import follow_swap, lock_reads
from bus.views.oracle.verify import Event, dump, dump_rows
from bus.views.rebuilding.swap import swap, undo
from bus.views.store import VIEW as VIEWS

CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


class Death(BaseException):
    """The process ends here."""


def inspection(number: int, business: int | None, **more: Any) -> Event:
    record = {"inspection": number, "business": business, "revision": None, "at": None, "result": None, "passed": None}
    return Event("food.inspection", number % 2, 0, {**record, **more})


def licence(term: str, number: int | None, **more: Any) -> Event:
    record = {"term_id": term, "licence": number, "starts": None, "name": term, "area": None, "fee": None}
    return Event("market.licence", sum(term.encode()) % 2, 0, {**record, **more})


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A world on each database."""
    engine = open_database(database_url, "views", durable=False)
    yield World(engine)
    engine.dispose()


@settings(max_examples=10, deadline=None, suppress_health_check=CHECKS)
@given(drawn=st.lists(events(), max_size=14), seed=st.integers(0, 2**32))
def test_every_commit_equals_the_fold(world: World, drawn: list[Event], seed: int) -> None:
    """Updates, corrections, deletes, moves between groups, nulls, late versions, either side of a look-up first: after
    each commit every view and aggregate is what plain Python makes of the events that were applied."""
    topics = Topics(REGISTRY)
    for event in drawn:
        topics.append(event)
    if world.builders:
        world.empty()
    else:
        world.start()
    world.feed(topics, random.Random(seed))


def random_topics(seed: int, count: int = 60) -> Topics:
    """Events of few records, so that they change often."""
    choose, topics = random.Random(seed), Topics(REGISTRY)
    for _ in range(count):
        number = choose.randint(1, 6)
        if choose.random() < 0.15:
            topics.append(Event("food.inspection", number % 2, 0, None, (number,), choose.randint(0, 9)))
        elif choose.random() < 0.5:
            some = {"revision": choose.randint(0, 9), "result": choose.choice(["Pass", "Fail", None])}
            topics.append(inspection(number, choose.choice([1, 2, 3, None]), passed=choose.random() < 0.5, **some))
        else:
            fee, area = Decimal(choose.randint(-500, 500)).scaleb(-2), choose.choice([0.1, 1e16, -1e16, 0.3, None])
            name = choose.choice(["x", "y", "", None])
            topics.append(licence(f"t{number}", choose.randint(1, 3), name=name, area=area, fee=fee))
    return topics


def test_declared_while_events_flow(world: World) -> None:
    """Builders that were there before learn of a look-up and of aggregates when these are taken up; nothing is lost."""
    topics = random_topics(1)
    world.start("food_business")
    world.feed(topics, random.Random(1), check=False)
    world.start("inspections", "checked")
    world.start("by_name")
    old = world.builders["food_business"]
    world.feed(topics, random.Random(2), check=False)
    world.start("joined")
    topics.append(licence("t1", 2, name="later", area=2.5))
    place = ("market.licence", sum(b"t1") % 2)
    old.apply([topics.batch(*place, len(topics.logs[place]) - 1, len(topics.logs[place]))])
    everything = world.folded(topics)
    with world.engine.connect() as connection:
        for name, shape in world.shapes.items():
            assert dump(connection, shape) == dump_rows(shape.columns, everything[name]), name


def test_two_writers_at_once(world: World) -> None:
    """Two threads write the two sides of a look-up, of a join and of an aggregate at the same time: nothing is missed
    and nobody waits for good."""
    world.start()
    topics = random_topics(7, 160)
    worlds = [("food_business",), ("inspections", "checked")]
    trouble: list[BaseException] = []

    def write(names: tuple[str, ...]) -> None:
        choose = random.Random(names[0])
        try:
            for name in names:
                builder = Builder(world.engine, world.shapes[name], world.epochs[name])
                for place in sorted(topics.logs):
                    at = 0
                    while place[0] in builder.shape.view.entities and at < len(topics.logs[place]):
                        end = min(len(topics.logs[place]), at + choose.randint(1, 3))
                        builder.apply([topics.batch(*place, at, end)])
                        at = end
        except BaseException as error:
            trouble.append(error)

    threads = [threading.Thread(target=write, args=(names,)) for names in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not trouble
    everything = world.folded(topics)
    with world.engine.connect() as connection:
        for name, shape in world.shapes.items():
            assert dump(connection, shape) == dump_rows(shape.columns, everything[name]), name


def test_a_sum_beyond_64_bits_stops_its_aggregate_only(world: World) -> None:
    """The view it reads goes on; the aggregate says why, and is right again once the data is."""
    world.start()
    topics = Topics(REGISTRY)
    for number in (2, 4):
        topics.append(inspection(number, 1, revision=2**62))
    builder = world.builders["inspections"]
    builder.apply([topics.batch("food.inspection", 0, 0, 2)])
    state = world.store.states()["joined"]
    assert (state.state, world.store.states()["inspections"].rows) == ("stopped", 2)
    assert "OverflowError" in state.reason
    again = world.enrolment("joined")
    assert not again.refresh()
    assert not again.refresh()
    topics.append(Event("food.inspection", 0, 0, None, (4,), 2**62))
    topics.append(inspection(6, 1, revision=-1))
    builder.apply([topics.batch("food.inspection", 0, 2, 4)])
    assert again.refresh()
    with world.engine.connect() as connection:
        (found,) = connection.execute(sa.text("SELECT revisions FROM v_joined")).scalars()
    assert found == 2**62 - 1


def test_death_between_any_two_statements(world: World) -> None:
    """Of a transaction that carries a change through a look-up into aggregates all or nothing is there."""
    world.start()
    topics = Topics(REGISTRY)
    topics.append(inspection(2, 1, result="Pass"))
    topics.append(licence("b", 1, area=0.5))
    world.builders["inspections"].apply([topics.batch("food.inspection", 0, 0, 1)])
    world.builders["checked"].apply([topics.batch("food.inspection", 0, 0, 1)])
    world_at = {("inspections", ("food.inspection", 0)): 1, ("checked", ("food.inspection", 0)): 1}
    for last in range(200):
        steps = iter(range(last))

        def crash(_point: str, steps: Iterator[int] = steps) -> None:
            if next(steps, None) is None:
                raise Death

        builder = Builder(world.engine, world.shapes["food_business"], world.epochs["food_business"], crash_point=crash)
        place = ("market.licence", sum(b"b") % 2)
        batch = topics.batch(*place, 0, 1)
        try:
            builder.apply([batch])
        except Death:
            with world.engine.connect() as connection:
                done = connection.scalar(sa.text("SELECT count(*) FROM v_food_business"))
            world.check(topics, world_at | ({("food_business", place): 1} if done else {}))
        else:
            break
    assert last > 20
    world.check(topics, world_at | {("food_business", place): 1})


def test_a_builder_that_does_not_know_writes_nothing(world: World) -> None:
    """Where a view computed from this one cannot be learned of, the batch waits; it is not applied without it."""
    world.start("food_business", "inspections")
    topics = Topics(REGISTRY)
    topics.append(inspection(2, 1))
    with world.engine.begin() as connection:
        connection.execute(sa.update(VIEWS).where(VIEWS.c.name == "inspections").values(bases="{}"))
    with pytest.raises(DependentsChanged):
        world.builders["inspections"].apply([topics.batch("food.inspection", 0, 0, 1)])
    assert world.store.states()["inspections"].rows == 0
    assert world.enrolment("inspections").refresh()
    world.builders["inspections"].apply([topics.batch("food.inspection", 0, 0, 1)])
    assert world.store.states()["inspections"].rows == 1


def test_a_swap_carries_what_differs(world: World) -> None:
    """Tables built beside take a view's place: what is computed from it follows in the same transaction, and those it
    looks up keep the new tables up to date, and no longer the old ones; an undo the other way round."""
    world.start()
    topics = random_topics(3)
    world.feed(topics, random.Random(3), check=False)
    everything = world.folded(topics)
    for name in ("food_business", "inspections"):
        spoilt = sa.text(f"DELETE FROM v_{name} WHERE {world.shapes[name].view.key[0]} = 2")
        with world.engine.begin() as connection:
            connection.execute(spoilt)
        shape = replace(world.shapes[name], view=replace(world.shapes[name].view, name=f"{name}+next"))
        world.shapes[shape.view.name] = shape
        world.start(shape.view.name)
        builder = world.builders.pop(shape.view.name)
        del world.shapes[shape.view.name]
        for place in sorted(topics.logs):
            if place[0] in shape.view.entities:
                builder.apply([topics.batch(*place, 0, len(topics.logs[place]))])
        assert swap(world.engine, name, world.epochs[name], world.epochs[shape.view.name], **around(world, name))
        with world.engine.connect() as connection:
            for shown, known in world.shapes.items():
                assert dump(connection, known) == dump_rows(known.columns, everything[shown]), (name, shown)
    topics.append(licence("t2", 2, name="after", area=1.5))
    place = ("market.licence", sum(b"t2") % 2)
    world.builders["food_business"] = Builder(
        world.engine, world.shapes["food_business"], world.epochs["food_business"]
    )
    world.builders["food_business"].apply([topics.batch(*place, len(topics.logs[place]) - 1, len(topics.logs[place]))])
    everything = world.folded(topics)
    with world.engine.connect() as connection:
        for shown, known in world.shapes.items():
            assert dump(connection, known) == dump_rows(known.columns, everything[shown]), shown
    assert undo(world.engine, "inspections", world.epochs["inspections"], **around(world, "inspections"))
    assert not world.enrolment("inspections").is_kept()
    assert world.enrolment("inspections").refresh()
    assert world.enrolment("by_name").refresh()


def around(world: World, name: str) -> dict[str, Any]:
    """What a rebuild does before and after a swap."""

    def within(connection: Connection) -> None:
        follow_swap(connection, world.engine, name, shadow=f"{name}+next", replaced=f"{name}+old")

    return {"first": lambda connection: lock_reads(connection, name), "within": within}
