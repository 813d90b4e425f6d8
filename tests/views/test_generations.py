"""A builder, its lease and its generation: what a worker did not notice in time writes nothing, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from test_builder import REGISTRY, World
from views_world import VIEW, Topics

from bus.core.declarations import parse_view
from bus.errors import Fenced
from bus.infra.database import open_database
from bus.views.builder import Builder
from bus.views.catalogue import Shape, shape_of
from bus.views.oracle.verify import Event
from bus.views.rebuilding.generation import prepare, start_positions
from bus.views.workers.lease import Leases

PLACE = ("dept.market.licence", 0)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    engine = open_database(database_url, "views", durable=False)
    yield World(engine)
    engine.dispose()


def changed(**members: Any) -> Shape:
    return shape_of(parse_view({**VIEW, **members}), REGISTRY.contracts, {})


def one_licence(topics: Topics) -> Any:
    record = {"term_id": "a", "licence": 1, "starts": None, "name": "new", "area": None, "fee": None}
    topics.append(Event("market.licence", 0, 0, record))
    return topics.batch("market.licence", 0, 0, 1)


def test_a_builder_of_the_old_declaration_is_fenced(world: World) -> None:
    """A batch that was under way while its own worker followed a changed declaration, with tables of the same columns
    and the same epoch, writes neither rows nor positions into the new generation."""
    old = world.builders()["food_business"]
    epoch = world.epochs["food_business"]
    fields = {**VIEW["fields"], "result": {"from": "licence.name"}}  # type: ignore[dict-item]
    shape = changed(fields=fields)
    assert prepare(world.engine, shape, epoch)
    topics = Topics(REGISTRY)
    batch = one_licence(topics)
    with pytest.raises(Fenced):
        old.apply([batch])
    assert world.store.positions("food_business") == []
    assert world.store.states()["food_business"].rows == 0
    Builder(world.engine, shape, epoch).apply([batch])
    assert world.store.states()["food_business"].rows == 1


def test_a_worker_that_lost_its_lease_sets_no_start(world: World) -> None:
    """A worker that was paused before it noted where to begin does not take back what its successor applied."""
    world.builders()
    epoch = world.epochs["food_business"]
    time = [0.0]
    other = Leases(world.engine, "other", 5.0, clock=lambda: time[0])
    assert other.acquire("food_business") is None
    time[0] = 6.0
    taken = other.acquire("food_business")
    assert taken is not None
    topics = Topics(REGISTRY)
    Builder(world.engine, world.shapes["food_business"], taken).apply([one_licence(topics)])
    with pytest.raises(Fenced):
        start_positions(world.engine, "food_business", epoch, {PLACE: 0, ("dept.market.licence", 1): 0})
    assert start_positions(world.engine, "food_business", taken, {PLACE: 0}) == {PLACE: 1}
    assert [position.next_offset for position in world.store.positions("food_business")] == [1]
