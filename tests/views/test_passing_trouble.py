"""A database that refuses one statement, whichever it is, delays a rebuild: no view is left without its reader."""

from __future__ import annotations

import itertools
import json
import random
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from test_builder import REGISTRY
from test_rebuild import inspection_event, licence_event, some_events
from views_world import VIEW, Topics

from bus.core.names import topic_of
from bus.errors import DatabaseUnavailable, Fenced, Unavailable
from bus.infra.database import open_database
from bus.infra.kafka import KafkaConnection
from bus.views.builder import Place, no_crash
from bus.views.catalogue import Declarations
from bus.views.oracle.verify import dump, dump_rows, fold
from bus.views.rebuilding import rebuild
from bus.views.rebuilding.requests import Requests
from bus.views.rebuilding.swap import NEXT
from bus.views.store import ViewStore
from bus.views.workers.held import Held
from bus.views.workers.roster import Roster

NAME = "food_business"
STEPS = 40  # of a rebuild that one statement delays; it takes 6 where nothing does
STRIDE = 17  # in the short form not every statement is tried, but others each time


class Log:
    """What a roster asks of Kafka's administration, of topics in memory."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    def end_offsets(self, topics: Collection[str]) -> dict[Place, int]:
        ends = {(topic_of(entity), partition): len(log) for (entity, partition), log in self._topics.logs.items()}
        return {place: end for place, end in ends.items() if place[0] in topics}

    def start_offsets(self, topics: Collection[str]) -> dict[Place, int]:
        return dict.fromkeys(self.end_offsets(topics), 0)

    def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        return {topic: f"id of {topic}" for topic in topics}


class Keeper:
    """A worker without Kafka: its roster, and rounds that are applied between two ticks."""

    def __init__(self, url: str) -> None:
        self.engine, governance = open_database(url, "views", durable=False), open_database(url, "governance")
        self.store = ViewStore(open_database(url, "views", read_only=True))
        self.declarations, self.requests = Declarations(governance), Requests(governance)
        self.declarations.apply(VIEW, REGISTRY.contracts)
        self.topics, self.dice = some_events(31, 30), random.Random(31)
        self.roster = Roster(
            self.engine,
            declarations=self.declarations,
            registry=REGISTRY,
            kafka=KafkaConnection("nobody is asked", "nobody", "-"),
            worker="w",
            lease_s=0.0,
            crash_point=no_crash,
            requests=self.requests,
        )
        self.roster._admin = cast("Any", Log(self.topics))

    def publish(self, count: int = 4) -> None:
        for _ in range(count):
            self.topics.append(licence_event(self.dice))
            self.topics.append(inspection_event(self.dice))

    def step(self) -> None:
        """A tick, and what the readers of the views held would deliver then; trouble is waited out, as by a worker."""
        with suppress(Unavailable):
            self.roster.tick()
        for held in list(self.roster.held.values()):
            if held.reading and held.builder is not None:
                self._deliver(held)

    def _deliver(self, held: Held) -> None:
        for (entity, partition), log in self.topics.logs.items():
            at = held.positions.get((topic_of(entity), partition))
            if held.builder is None or at is None or at == len(log) or not held.reading:
                continue
            try:
                outcome = held.builder.apply([self.topics.batch(entity, partition, at, len(log))])
            except DatabaseUnavailable:
                continue
            except Fenced:
                self.roster.forget(held)
                return
            held.positions.update(outcome.positions)

    def steps_until(self, holds: Any, what: str) -> None:
        for _ in range(STEPS):
            if holds():
                return
            self.step()
        assert holds(), f"{what}: {self.outcome()}"

    def outcome(self) -> dict[str, Any]:
        state = self.store.state(NAME)
        return dict(state.rebuild or {}) if state else {}

    def right(self) -> bool:
        """Whether the view is live and equals the fold of everything published."""
        states = self.store.states(count=False)
        if NAME not in states or states[NAME].state != "live" or NAME + NEXT in states:
            return False
        shape = self.roster.shapes[NAME]
        with self.store.engine.connect() as connection:
            found = dump(connection, shape)
        return found == dump_rows(shape.columns, fold(shape.view, REGISTRY.contracts, self.topics.events))


@contextmanager
def statements(engine: Engine, failing: int | None = None) -> Iterator[list[str]]:
    """Notes the statements from now on; the one numbered ``failing`` finds the database locked."""
    seen: list[str] = []
    numbers = itertools.count()

    def before(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)
        if next(numbers) == failing:
            locked = sqlite3.OperationalError("database is locked")
            locked.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise sa.exc.OperationalError(statement, None, locked)

    sa.event.listen(engine, "before_cursor_execute", before)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "before_cursor_execute", before)


def rebuilt(keeper: Keeper, kind: str, number: int) -> None:
    """A rebuild from its request to its end."""
    if kind == "asked for":
        request = keeper.requests.ask(NAME, "rebuild").id
        keeper.steps_until(lambda: _over(keeper, request), "the rebuild that was asked for")
        return
    document = json.loads(json.dumps(VIEW))
    document["sources"]["licence"]["rank"] = [["name", "starts"], ["starts", "name"]][number % 2]
    keeper.declarations.apply(document, REGISTRY.contracts)
    keeper.steps_until(lambda: _declared(keeper, document["sources"]["licence"]["rank"]), "the tables declared anew")


def _over(keeper: Keeper, request: str) -> bool:
    found = keeper.outcome()
    return found.get("request") == request and found["state"] == "done"


def _declared(keeper: Keeper, rank: list[str]) -> bool:
    """Whether the worker has read the declaration and the tables are those that it wants."""
    shape, state = keeper.roster.shapes.get(NAME), keeper.store.state(NAME)
    if shape is None or state is None or list(shape.view.sources[0].rank) != rank:
        return False
    return state.fingerprint == shape.fingerprint and keeper.outcome().get("state") == "done"


@pytest.mark.parametrize("kind", ["asked for", "declared anew"])
def test_a_statement_refused_during_a_rebuild(
    sqlite_url: str, full_length: bool, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Whichever statement of a rebuild finds the database locked, keeper's, builder's or comparer's: the rebuild ends
    all the same, and the view goes on following its topics and equals the fold."""
    monkeypatch.setattr(rebuild, "_PAUSE_S", 0.002)
    keeper = Keeper(sqlite_url)
    keeper.steps_until(keeper.right, "the first build")
    keeper.publish()
    with statements(keeper.engine) as every:
        rebuilt(keeper, kind, 0)
        keeper.steps_until(keeper.right, "following")
    chosen = range(len(every)) if full_length else range(random.randrange(STRIDE), len(every), STRIDE)
    for turn, number in enumerate(chosen, start=1):
        keeper.publish(1)
        with statements(keeper.engine, failing=number) as seen:
            rebuilt(keeper, kind, turn)
            keeper.publish(1)
            keeper.steps_until(keeper.right, f"following, after {seen[min(number, len(seen) - 1)]!r} was refused")
