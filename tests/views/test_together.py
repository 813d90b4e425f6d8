"""The views of a small round share a transaction: exactly once for each of them, and no view is held up by another."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, cast

import pytest
import sqlalchemy as sa
from statements_cut import Cut, cut_after
from test_builder import REGISTRY
from test_rebuild import inspection_event, licence_event
from views_world import INSPECTIONS, VIEW, Topics

from bus.core.declarations import parse_view
from bus.errors import Fenced
from bus.infra.database import open_database
from bus.views.builder import Builder, together
from bus.views.catalogue import Shape, shape_of
from bus.views.decoding.batches import Batch
from bus.views.oracle.verify import dump, dump_rows, fold
from bus.views.picking import Picking
from bus.views.rebuilding.generation import prepare
from bus.views.store import VIEW as VIEWS
from bus.views.store import ViewStore
from bus.views.tables import layout
from bus.views.workers.building import Building
from bus.views.workers.held import Held
from bus.views.workers.lease import Leases
from bus.views.workers.renewal import Pulse

COUNT = 7
MOST = 200  # statements of a shared transaction of three views


class World:
    """Several views over the same topics, as one worker holds them."""

    def __init__(self, url: str) -> None:
        self.engine = open_database(url, "views", durable=False)
        self.store, self.leases = ViewStore(self.engine), Leases(self.engine, "w", 5.0)
        self.topics, self.dice = Topics(REGISTRY), random.Random(7)
        self.at: dict[tuple[str, int], int] = {}
        self.held = [self._held(number) for number in range(COUNT)]
        roster: Any = None  # `_tried` asks it nothing
        self.building = Building(cast("Any", roster), Pulse(), nudge=lambda: None, stop_view=cast("Any", None))

    def _held(self, number: int) -> Held:
        document = {**(VIEW, INSPECTIONS)[number % 2], "view": f"view_{number}"}
        shape = shape_of(parse_view(document), REGISTRY.contracts, {})
        epoch = self.leases.acquire(shape.view.name)
        assert epoch is not None
        prepare(self.engine, shape, epoch)
        return Held(shape, epoch, Builder(self.engine, shape, epoch), reading=True)

    def batches(self) -> list[Batch]:
        """What was appended since the last time, some new events first."""
        for _ in range(6):
            self.topics.append(licence_event(self.dice))
            self.topics.append(inspection_event(self.dice))
        found = []
        for place, log in sorted(self.topics.logs.items()):
            found.append(self.topics.batch(*place, self.at.get(place, 0), len(log)))
            self.at[place] = len(log)
        return found

    def round(self, batches: list[Batch]) -> dict[str, Exception | None]:
        """Applies them as a worker does; what went wrong, by view."""
        work = [(held, [b for b in batches if b.topic in held.topics]) for held in self.held]
        tried = self.building._tried(work, Picking(batches))
        return {held.name: one.error for held, one in zip(self.held, tried, strict=True)}

    def right(self, held: Held) -> bool:
        """Whether the view has the rows of the fold, and counted and passed each event once."""
        with self.engine.connect() as connection:
            rows = dump(connection, held.shape)
        state = self.store.state(held.name)
        positions = {(p.topic, p.partition): p.next_offset for p in self.store.positions(held.name)}
        events = sum(len(log) for (entity, _), log in self.topics.logs.items() if entity in _entities(held.shape))
        assert state is not None
        return rows == dump_rows(
            held.shape.columns, fold(held.shape.view, REGISTRY.contracts, self.topics.events)
        ) and state.applied + state.stale_dropped == events == sum(positions.values())


def _entities(shape: Shape) -> set[str]:
    return {contract.id for contract in shape.contracts}


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    made = World(database_url)
    yield made
    made.engine.dispose()


def test_views_share_transactions_and_have_every_event_once(world: World) -> None:
    """Seven views in two transactions, once it is known that nothing is computed from them; and equal to the fold."""
    commits, counts = list[object](), []

    def committed(connection: sa.Connection) -> None:
        commits.append(connection)

    sa.event.listen(world.engine, "commit", committed)
    for _ in range(4):
        batches = world.batches()
        commits.clear()
        assert set(world.round(batches).values()) == {None}
        counts.append(len(commits))
        assert all(world.right(held) for held in world.held)
    assert counts == [COUNT, 2, 2, 2]


def test_a_view_that_is_fenced_loses_alone(world: World) -> None:
    """Those that share its transaction get their events all the same, in transactions of their own."""
    world.round(world.batches())
    with world.engine.begin() as connection:
        connection.execute(sa.update(VIEWS).where(VIEWS.c.name == "view_2").values(epoch=VIEWS.c.epoch + 1))
    errors = world.round(world.batches())
    assert isinstance(errors.pop("view_2"), Fenced)
    assert set(errors.values()) == {None}
    assert [held.name for held in world.held if not world.right(held)] == ["view_2"]


def test_a_view_with_a_defect_fails_alone(world: World) -> None:
    """One whose table is gone: its error is told, and it holds up nobody."""
    world.round(world.batches())
    with world.engine.begin() as connection:
        layout(world.held[3].shape).rows.drop(connection)
    errors = world.round(world.batches())
    assert errors.pop("view_3") is not None
    assert set(errors.values()) == {None}
    assert all(world.right(held) for held in world.held if held.name != "view_3")


def test_a_shared_transaction_that_is_cut_leaves_nothing(world: World) -> None:
    """Cut after any statement: no view has any of it, and given again each has all of it once."""
    world.round(world.batches())
    held = world.held[:3]
    before = {one.name: world.store.state(one.name) for one in held}
    batches = world.batches()
    work = [(one.builder, [b for b in batches if b.topic in one.topics]) for one in held if one.builder is not None]
    for number in range(MOST):
        try:
            with cut_after(world.engine, number):
                together(work, Picking(batches))
        except Cut:
            assert {one.name: world.store.state(one.name) for one in held} == before
        else:
            break
    else:
        pytest.fail("the transaction never came to its end")
    assert number > len(held)
    assert all(world.right(one) for one in held)
