"""What readers are told of a view that is not caught up: nothing, or its rows with a word on why they are not all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from test_builder import World
from test_rebuild import NAME, declared, feed, some_events

from bus.errors import ViewRebuilding
from bus.infra.database import open_database
from bus.sharing.watch import Standing, Watch
from bus.views.applied import AppliedShapes
from bus.views.catalogue import Shape
from bus.views.rebuilding.generation import set_state


@pytest.fixture
def world(sqlite_url: str) -> Iterator[World]:
    engine = open_database(sqlite_url, "views", durable=False)
    yield World(engine)
    engine.dispose()


def standing(world: World, shape: Shape) -> Standing:
    return asyncio.run(Watch(world.store, time.monotonic).standing(shape))


def test_stale_rows_only_where_the_declaration_lets_them_be_shown(world: World) -> None:
    """A view that is built or has stopped is refused, or shown with the reason; one without tables of the shape asked
    for is refused in any case."""
    feed(world.builders()[NAME], some_events(30), 0.5)
    strict, lenient = declared(), declared(stale=True)
    assert strict.fingerprint == lenient.fingerprint
    with pytest.raises(ViewRebuilding):
        standing(world, strict)
    assert "being built" in standing(world, lenient).stale
    set_state(world.engine, NAME, world.epochs[NAME], "stopped", "events are gone")
    with pytest.raises(ViewRebuilding):
        standing(world, strict)
    assert standing(world, lenient).stale == "events are gone"
    set_state(world.engine, NAME, world.epochs[NAME], "live")
    assert standing(world, strict).stale == standing(world, lenient).stale == ""
    with pytest.raises(ViewRebuilding):
        standing(world, declared({"name": {"from": "inspection.result"}}, stale=True))


def test_doors_go_by_what_tables_have(world: World) -> None:
    """After a change of the declaration a door reads the columns that are there, with the titles and classes of now,
    until the tables are others."""
    world.builders()
    fields = {"title": {"from": "licence.name"}, "name": {"from": "licence.name", "class": "restricted"}}
    new = declared(fields, title={"zh": "新", "en": "new"})
    now = {NAME: new}
    shapes = AppliedShapes(lambda: now, world.store, clock=lambda: 0.0)
    found = shapes()[NAME]
    assert [column.name for column in found.columns] == [column.name for column in world.shapes[NAME].columns]
    assert found.view.title["en"] == "new"
    classes = {column.name: column.classification for column in found.columns}
    assert classes["name"] == "restricted", "what became stricter is so at once"
    assert shapes()[NAME] is found
    set_state(world.engine, NAME, world.epochs[NAME], "live")
    assert standing(world, found).stale == ""
    with pytest.raises(ViewRebuilding):
        standing(world, new)
