"""Views that read other views: look-ups of one and two levels, aggregates over them, joins; what must hold of them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from views_world import INSPECTION, INSPECTIONS, LICENCE, VIEW, FixedRegistry, Topics

from bus.core.declarations import parse_view
from bus.views.builder import Builder
from bus.views.catalogue import Shape, shape_of
from bus.views.derived.enrolment import Enrolment
from bus.views.oracle.verify import Row, by_key, dump, dump_rows, fold, fold_aggregate
from bus.views.rebuilding.generation import prepare
from bus.views.store import VIEW as VIEWS
from bus.views.store import ViewStore
from bus.views.workers.lease import Leases

REGISTRY = FixedRegistry(LICENCE, INSPECTION)
BROUGHT = {"name": "biz.name", "area": "biz.area", "fee": "biz.fee"}
ONE_LEVEL = {
    **INSPECTIONS,
    "lookups": {"biz": {"view": "food_business", "by": "business"}},
    "fields": {**INSPECTIONS["fields"], **{name: {"from": found} for name, found in BROUGHT.items()}},
}
TWO_LEVELS = {
    "view": "checked",
    "owner": "food",
    "key": ["licence"],
    "sources": {"i": {"entity": "food.inspection", "key": ["business"], "rank": ["at"]}},
    "lookups": {"b": {"view": "food_business", "by": "licence"}},
    "fields": {"result": {"from": "i.result"}, "name": {"from": "b.name"}, "starts": {"from": "b.starts"}},
}
BY_NAME = {
    "view": "by_name",
    "owner": "food",
    "kind": "aggregate",
    "over": {"i": {"view": "inspections"}, "c": {"view": "checked"}},
    "group_by": ["name", "result"],
    "measures": {
        "inspections": {"count": "i"},
        "passed": {"count": "i", "where": {"field": "passed", "op": "eq", "value": True}},
        "area": {"sum": "i.area"},
        "fees": {"sum": "i.fee"},
        "last": {"max": "i.at"},
        "checked": {"count": "c"},
        "first": {"min": "c.starts"},
        "starts": {"distinct": "c.starts"},
    },
}
JOINED = {
    "view": "joined",
    "owner": "food",
    "kind": "aggregate",
    "over": {
        "i": {"view": "inspections", "join": {"business": "food_business.licence"}, "bring": ["starts"]},
        "b": {"view": "food_business"},
    },
    "group_by": ["starts"],
    "measures": {
        "revisions": {"sum": "i.revision"},
        "low": {"min": "i.result"},
        "businesses": {"count": "b"},
        "area": {"sum": "b.area"},
        "names": {"distinct": "b.name"},
    },
}
DOCUMENTS = (VIEW, ONE_LEVEL, TWO_LEVELS, BY_NAME, JOINED)


def shapes() -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    for document in DOCUMENTS:
        view = parse_view(document)
        found[view.name] = shape_of(view, REGISTRY.contracts, found)
    return found


class World:
    """The views in one database, each with a builder or only its enrolment."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.shapes, self.store = engine, shapes(), ViewStore(engine)
        self.leases = Leases(engine, "w", 5.0)
        self.epochs: dict[str, int] = {}
        self.builders: dict[str, Builder] = {}

    def start(self, *names: str) -> None:
        """Takes up these views, or all of them."""
        for name in names or tuple(self.shapes):
            shape = self.shapes[name]
            self.epochs[name] = self.leases.acquire(name) or 0
            if shape.contracts:
                prepare(self.engine, shape, self.epochs[name])
                self.builders[name] = Builder(self.engine, shape, self.epochs[name])
            if shape.view.reads:
                assert self.enrolment(name).refresh()

    def enrolment(self, name: str, **given: Any) -> Enrolment:
        return Enrolment(self.engine, self.shapes[name], self.epochs[name], **given)

    def empty(self) -> None:
        """Every table empty, as an earlier example had found it; the views computed from others are filled again."""
        with self.engine.begin() as connection:
            names = connection.execute(sa.select(VIEWS.c.tables)).scalars().all()
            for table in {entry["name"] for text in names for entry in json.loads(text)}:
                connection.execute(sa.delete(sa.table(table)))
            for name in ("position", "quarantine"):
                connection.execute(sa.delete(sa.table(name)))
            seq = {"seq": VIEWS.c.seq + 1}  # raised by all that change positions
            connection.execute(sa.update(VIEWS).values(bases="{}", dependents="{}", state="building", reason="", **seq))
        for name, shape in self.shapes.items():
            if shape.view.reads:
                assert self.enrolment(name).refresh()

    def feed(self, topics: Topics, choose: random.Random, check: bool = True) -> None:
        """Applies all logs in a random interleaving of batches; after each commit everything must be true."""
        at = {(name, place): 0 for name in self.builders for place in topics.logs}
        mine = {key for key in at if key[1][0] in self.builders[key[0]].shape.view.entities}
        while open_ := sorted(key for key in mine if at[key] < len(topics.logs[key[1]])):
            name, place = choose.choice(open_)
            end = min(len(topics.logs[place]), at[name, place] + choose.randint(1, 4))
            self.builders[name].apply([topics.batch(*place, at[name, place], end)])
            at[name, place] = end
            if check:
                self.check(topics, {key: end for key, end in at.items() if key in mine})

    def check(self, topics: Topics, at: Mapping[tuple[str, tuple[str, int]], int]) -> None:
        """Each view equals the fold of what it was given, byte for byte."""
        rows = self.folded(topics, at)
        with self.engine.connect() as connection:
            for name, shape in self.shapes.items():
                if name in rows:
                    assert dump(connection, shape) == dump_rows(shape.columns, rows[name]), name
            self.query(connection)

    def folded(
        self, topics: Topics, at: Mapping[tuple[str, tuple[str, int]], int] | None = None
    ) -> dict[str, list[Row]]:
        """What each view's rows must be. ``at``: how far each has read each partition; None: to the end."""
        rows: dict[str, list[Row]] = {}
        for name, shape in self.shapes.items():
            if not shape.contracts:
                rows[name] = fold_aggregate(shape, self.shapes, rows)
                continue
            events = [e for e in topics.events if at is None or e.offset < at.get((name, (e.entity, e.partition)), 0)]
            looked_up = {read: by_key(self.shapes[read].view, rows[read]) for read in shape.view.reads}
            rows[name] = fold(shape.view, REGISTRY.contracts, events, looked_up)
        return rows

    def query(self, connection: Connection) -> None:
        """Some figures as the database itself finds them over the views they are of."""
        counted = "SELECT name, result, count(*), count(CASE WHEN passed THEN 1 END), max(at) FROM v_inspections"
        found = connection.exec_driver_sql(f"{counted} WHERE _live GROUP BY name, result").all()
        shown = "SELECT name, result, inspections, passed, last FROM v_by_name WHERE inspections > 0"
        assert sorted(map(str, found)) == sorted(map(str, connection.exec_driver_sql(shown).all()))
