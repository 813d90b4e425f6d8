"""Random contracts and views: after every transaction both databases hold exactly the fold of what was applied.

Interleavings, duplicates, late and equal versions, deletes and updates after them, moves between view keys, take-overs
and crashes at every point, after which the same batches are given again.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from sqlalchemy.engine import Connection, Engine
from statements_cut import Cut, cut_after
from view_models import Model, events, models
from views_world import Topics

from bus.core.events import Version, version_number
from bus.core.names import topic_of
from bus.errors import Fenced
from bus.infra.database import open_database
from bus.views.builder import Builder, Place
from bus.views.decoding.batches import Batch
from bus.views.oracle.verify import Event, dump, dump_rows, fold, read_rows
from bus.views.rebuilding.generation import prepare, remove
from bus.views.store import ViewState, ViewStore
from bus.views.tables import Records
from bus.views.workers.lease import Leases

LEASE_S = 5.0


class Watcher:
    """A follower that notes the view keys whose rows may have changed in the last transaction."""

    def __init__(self, *, wants_rows: bool) -> None:
        self.wants_rows = wants_rows
        self.touched: set[tuple[Any, ...]] = set()

    def events(self, _connection: Connection, _records: Records, _batch: Batch) -> None:
        pass

    def rows(self, connection: Connection, touched: sa.Table) -> None:
        self.touched = {tuple(row) for row in connection.execute(sa.select(touched))}


class Side:
    """The view in one database: its builder, and those that another worker took over from."""

    def __init__(self, engine: Engine, model: Model, *, followed: bool) -> None:
        self.engine, self.shape, self.store = engine, model.shape, ViewStore(engine)
        self.watcher = Watcher(wants_rows=followed)
        self.clock, self.zombies = [0.0], list[Builder]()
        self.leases = Leases(engine, "first", LEASE_S, clock=self._now)
        state = self.store.state("modelled")
        if state is not None:  # what the example before left
            remove(engine, "modelled", state.epoch)
        self.builder = self._take()

    def _now(self) -> float:
        return self.clock[0]

    def _take(self) -> Builder:
        epoch = self.leases.acquire("modelled")
        if epoch is None:  # a lease is waited for, not taken
            self.clock[0] += LEASE_S
            epoch = self.leases.acquire("modelled")
        assert epoch is not None
        prepare(self.engine, self.shape, epoch)
        return Builder(self.engine, self.shape, epoch, followers=[self.watcher])

    def take_over(self) -> None:
        """Another worker builds from now on."""
        self.zombies = [self.builder]
        self.leases = Leases(self.engine, "another", LEASE_S, clock=self._now)
        self.builder = self._take()

    def apply(self, batches: Sequence[Batch], crash: int | None) -> None:
        """Applies; with ``crash`` it first ends after so many statements (if it has as many), then is given the same
        again."""
        if crash is not None:
            with cut_after(self.engine, crash), contextlib.suppress(Cut):
                self.builder.apply(batches)
        before, self.watcher.touched = self._rows(), set()
        assert not self.builder.apply(batches).gaps
        after = self._rows()
        if self.watcher.wants_rows:
            changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
            assert changed <= self.watcher.touched

    def _rows(self) -> dict[tuple[Any, ...], Any]:
        with self.engine.connect() as connection:
            rows = read_rows(connection, self.shape)
        return {tuple(row[name] for name in self.shape.view.key): row for row in rows}

    def positions(self) -> dict[Place, int]:
        return {(at.topic, at.partition): at.next_offset for at in self.store.positions("modelled")}

    def state(self) -> ViewState:
        state = self.store.state("modelled")
        assert state is not None
        return state

    def dump(self) -> bytes:
        with self.engine.connect() as connection:
            return dump(connection, self.shape)


class Machine(RuleBasedStateMachine):
    """Publishes, applies, crashes, takes over; each step is checked on both databases."""

    engines: Sequence[Engine] = ()

    @initialize(model=models(), followed=st.booleans())
    def declare(self, model: Model, followed: bool) -> None:
        self.model, self.topics = model, Topics(model.registry)
        self.sides = [Side(engine, model, followed=followed) for engine in self.engines]
        self.applied: list[Event] = []
        self.at: dict[Place, int] = {}

    @rule(data=st.data(), count=st.integers(1, 5), copies=st.integers(1, 2))
    def publish(self, data: st.DataObject, count: int, copies: int) -> None:
        for _ in range(count):
            self.topics.append(data.draw(events(self.model)), copies=copies)

    @precondition(lambda self: self.topics.logs)
    @rule(seed=st.integers(0, 2**16), crashes=st.tuples(*[st.none() | st.integers(0, 12)] * 2))
    def apply(self, seed: int, crashes: tuple[int | None, ...]) -> None:
        """Some events of some partitions, a few of which were applied before."""
        dice = random.Random(seed)
        batches = []
        for place in dice.sample(sorted(self.topics.logs), dice.randint(1, len(self.topics.logs))):
            known = self.at.get(place, 0)
            end = min(len(self.topics.logs[place]), known + dice.randint(0, 4))
            batches.append(self.topics.batch(*place, max(0, known - dice.randint(0, 2)), end))
            self.applied += [e for e in self._log(place) if known <= e.offset < end]
            self.at[place] = end
        for side, crash in zip(self.sides, crashes, strict=True):
            side.apply(batches, crash)
        self.check()

    @rule()
    def take_over(self) -> None:
        for side in self.sides:
            side.take_over()

    @precondition(lambda self: self.topics.logs)
    @rule(seed=st.integers(0, 2**16))
    def a_zombie_wakes(self, seed: int) -> None:
        place = random.Random(seed).choice(sorted(self.topics.logs))
        batch = self.topics.batch(*place, self.at.get(place, 0), len(self.topics.logs[place]))
        for side in self.sides:
            for zombie in side.zombies:
                with pytest.raises(Fenced):
                    zombie.apply([batch])
        self.check()

    @rule(seed=st.integers(0, 2**16))
    def a_gap(self, seed: int) -> None:
        """Events beyond the position are not applied."""
        behind = [place for place, log in sorted(self.topics.logs.items()) if self.at.get(place, 0) + 1 < len(log)]
        for place in random.Random(seed).sample(behind, min(1, len(behind))):
            batch = self.topics.batch(*place, self.at.get(place, 0) + 1, len(self.topics.logs[place]))
            for side in self.sides:
                assert side.builder.apply([batch]).gaps == {(batch.topic, batch.partition)}
            self.check()

    def _log(self, place: Place) -> list[Event]:
        return [event for event in self.topics.events if (event.entity, event.partition) == place]

    def check(self) -> None:
        """Rows, positions and counters are those of the model."""
        contracts = self.model.registry.contracts
        wanted = dump_rows(self.sides[0].shape.columns, fold(self.sides[0].shape.view, contracts, self.applied))
        late, without = counted(self.applied, contracts, self.sides[0].shape)
        lacking = quarantined(self.applied)
        for side in self.sides:
            assert side.dump() == wanted, side.engine.dialect.name
            assert side.positions() == {(topic_of(entity), p): at for (entity, p), at in self.at.items()}
            state = side.state()
            found = (state.applied, state.stale_dropped, state.null_key, state.quarantined)
            assert found == (len(self.applied) - late - lacking, late, without, lacking), side.engine.dialect.name


def quarantined(applied: Sequence[Event]) -> int:
    """How many events lack a sequence that others before them in their partition had."""
    sequenced, lacking = set[Place](), 0
    for event in applied:
        place = (event.entity, event.partition)
        lacking += event.sequence is None and place in sequenced
        if event.sequence is not None:
            sequenced.add(place)
    return lacking


def counted(applied: Sequence[Event], contracts: Mapping[str, Any], shape: Any) -> tuple[int, int]:
    """How many events came later than a newer one of their record, and how many live records have no view key."""
    sequenced, late = set[Place](), 0
    newest: dict[tuple[str, tuple[Any, ...]], tuple[Version, Event]] = {}
    for event in applied:
        place = (event.entity, event.partition)
        if event.sequence is None and place in sequenced:
            continue
        if event.sequence is not None:
            sequenced.add(place)
        named = contracts[event.entity].version
        stated = event.stated if event.record is None or named is None else event.record[named]
        numbers = version_number(stated if named else None), version_number(event.sequence)
        version = Version(*numbers, event.offset, event.partition)
        known = newest.get((event.entity, event.key))
        if known is not None and version <= known[0]:
            late += 1
        else:
            newest[event.entity, event.key] = (version, event)
    records = [event for _, event in newest.values() if event.record is not None]
    without = sum(
        any(event.record[name] is None for name in source.key)
        for source in shape.view.sources
        for event in records
        if event.entity == source.entity and event.record is not None
    )
    return late, without


@pytest.fixture
def engines(sqlite_url: str, postgresql_url: str) -> Iterator[list[Engine]]:
    """Both databases."""
    found = [open_database(url, "views", durable=False) for url in (sqlite_url, postgresql_url)]
    yield found
    for engine in found:
        engine.dispose()


@pytest.mark.postgresql
def test_both_databases_are_the_fold_at_every_commit(engines: list[Engine], full_length: bool) -> None:
    """SQLite, PostgreSQL and plain Python agree on rows, positions and counters, whatever happens between."""
    Machine.engines = engines
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=400 if full_length else 15,
            stateful_step_count=20 if full_length else 10,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
