"""Which views are declared, and their shapes: the view with the columns that its contracts give it.

Declarations live in the governance database; each change raises a revision that workers and doors poll.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.contracts.store import insert_new
from bus.core.columns import Column, columns_of, scale_of
from bus.core.conditions import Condition, check
from bus.core.contracts import Contract, Kind
from bus.core.declarations import parse_view
from bus.core.views import Over, View
from bus.errors import BusError, InvalidDeclaration, UnknownView
from bus.infra.database import create_tables, translated_errors, write

_METADATA: Final = sa.MetaData()
_VIEW: Final = sa.Table(
    "view_declaration",
    _METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
)
_REVISION: Final = sa.Table(
    "view_revision",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
)
_SUMMABLE: Final = (Kind.INTEGER, Kind.NUMBER, Kind.DECIMAL)
_LAYOUT: Final = 2  # of the tables: another number rebuilds every view
_NO_KEY: Final = (Kind.NUMBER, Kind.BYTES, Kind.NESTED)


@dataclass(frozen=True)
class Shape:
    """A view with the columns that readers see, and the contracts of its sources in their order."""

    view: View
    columns: tuple[Column, ...]
    contracts: tuple[Contract, ...] = ()

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """The kind of each column by name."""
        return {column.name: column.kind for column in self.columns}

    @cached_property
    def fingerprint(self) -> str:
        """What the tables depend on, as 64 hex digits: another fingerprint means a rebuild. Titles do not count."""
        document = {k: v for k, v in (self.view.document or {}).items() if k not in ("title", "listed", "owner")}
        columns = [(column.name, column.kind, column.scale, column.source) for column in self.columns]
        sources = [
            (contract.id, contract.key, contract.version, [(f.name, f.kind, str(f.avro)) for f in contract.fields])
            for contract in self.contracts
        ]
        text = json.dumps([_LAYOUT, self.view.name, document, columns, sources], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Applied:
    """What `Declarations.apply` did: the view, and whether its declaration is another than before."""

    view: View
    changed: bool


class Declarations:
    """The declared views in the governance database. Thread-safe; `all` is cached by revision."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._cached: tuple[int, dict[str, View]] | None = None
        create_tables(engine, _METADATA)
        with translated_errors(), write(engine) as connection:
            first = insert_new(connection, _REVISION).values(id=1, revision=0)
            connection.execute(first.on_conflict_do_nothing())

    def apply(self, doc: Mapping[str, Any], contracts: Mapping[str, Contract]) -> Applied:
        """Declares the view, or changes it. Raises `InvalidDeclaration` naming every problem found."""
        view = parse_view(doc)
        text = json.dumps(doc, ensure_ascii=False, default=str)  # in the declared order: readers see columns so
        with translated_errors(), write(self._engine) as connection:
            _raise_revision(connection)
            views = _read(connection)
            _refuse_broken(views, {**views, view.name: view}, contracts, view)
            old = connection.scalar(sa.select(_VIEW.c.document).where(_VIEW.c.name == view.name))
            if old == text:
                connection.rollback()
                return Applied(view, changed=False)
            connection.execute(sa.delete(_VIEW).where(_VIEW.c.name == view.name))
            connection.execute(sa.insert(_VIEW).values(name=view.name, document=text))
        return Applied(view, changed=True)

    def drop(self, name: str) -> None:
        """Takes the view back. Raises `UnknownView`, and `InvalidDeclaration` while an aggregate reads it."""
        with translated_errors(), write(self._engine) as connection:
            _raise_revision(connection)
            views = _read(connection)
            if name not in views:
                raise UnknownView(view=name)
            readers = sorted(view.name for view in views.values() if name in view.reads)
            if readers:
                raise InvalidDeclaration(f"view '{name}' is read by {', '.join(readers)}: drop these first.")
            connection.execute(sa.delete(_VIEW).where(_VIEW.c.name == name))

    def get(self, name: str) -> View:
        """The view of that name. Raises `UnknownView`."""
        view = self.all().get(name)
        if view is None:
            raise UnknownView(view=name)
        return view

    def all(self) -> dict[str, View]:
        """Every declared view by name, in the order of names."""
        with translated_errors(), self._engine.connect() as connection:
            revision = _revision(connection)
            with self._lock:
                if self._cached is not None and self._cached[0] == revision:
                    return dict(self._cached[1])
            views = _read(connection)
        with self._lock:
            self._cached = (revision, views)
        return dict(views)

    def revision(self) -> int:
        """Rises with every change of a declaration."""
        with translated_errors(), self._engine.connect() as connection:
            return _revision(connection)


def _revision(connection: Connection) -> int:
    return connection.scalar(sa.select(_REVISION.c.revision)) or 0


def _raise_revision(connection: Connection) -> None:
    """First in every change: its row lock lets one change at a time decide on what it then reads."""
    connection.execute(sa.update(_REVISION).values(revision=_REVISION.c.revision + 1))


def _read(connection: Connection) -> dict[str, View]:
    rows = connection.execute(sa.select(_VIEW.c.document).order_by(_VIEW.c.name)).scalars()
    views = (parse_view(json.loads(text)) for text in rows)
    return {view.name: view for view in views}


def _refuse_broken(
    before: Mapping[str, View], after: Mapping[str, View], contracts: Mapping[str, Contract], view: View
) -> None:
    """The view itself must be sound, and so must every aggregate that reads it."""
    shaped: dict[str, Shape] = {}
    affected = {view.name} | {name for name, other in before.items() if view.name in other.reads}
    for name, candidate in _ordered(after):
        try:
            shaped[name] = shape_of(candidate, contracts, shaped)
        except BusError:
            if name in affected:
                raise


def _ordered(views: Mapping[str, View]) -> list[tuple[str, View]]:
    """Views that read topics first, then aggregates after what they read."""
    done: dict[str, View] = {name: view for name, view in views.items() if view.kind != "aggregate"}
    waiting = {name: view for name, view in views.items() if view.kind == "aggregate"}
    while waiting:
        ready = [name for name, view in waiting.items() if not set(view.reads) & set(waiting)]
        for name in ready or list(waiting):  # a circle: shape_of will name what is missing
            done[name] = waiting.pop(name)
    return list(done.items())


def shape_of(view: View, contracts: Mapping[str, Contract], shaped: Mapping[str, Shape]) -> Shape:
    """The shape of one view. ``shaped``: the shapes of the views that an aggregate reads.

    Raises `InvalidDeclaration` for what cannot be built: a field, contract or view that is not there, key fields of
    unequal kinds, a join on something else than a key.
    """
    columns = columns_of(view, contracts, {name: shape.columns for name, shape in shaped.items()})
    shape = Shape(view, columns, tuple(contracts[entity] for entity in view.entities))
    problems = _aggregate_problems(shape, shaped) if view.kind == "aggregate" else _key_problems(shape)
    if problems:
        raise InvalidDeclaration(
            f"view '{view.name}' has {len(problems)} problem(s): " + "; ".join(problems), problems=problems
        )
    return shape


def _key_problems(shape: Shape) -> list[str]:
    problems = [
        f"key: '{name}' is {shape.kinds[name]}, which cannot be a key"
        for name in shape.view.key
        if shape.kinds[name] in _NO_KEY
    ]
    columns = {column.name: column for column in shape.columns}
    for source, contract in zip(shape.view.sources, shape.contracts, strict=True):
        for name, own in zip(shape.view.key, source.key, strict=True):
            field = contract.field(own)
            if field is not None and field.kind is not shape.kinds[name]:
                problems.append(f"sources.{source.name}.key: '{own}' is {field.kind}, '{name}' is {shape.kinds[name]}")
            elif field is not None and scale_of(field) != columns[name].scale:
                problems.append(f"sources.{source.name}.key: '{own}' has another scale than '{name}'")
        for own in source.rank:
            field = contract.field(own)
            if field is not None and field.kind in (Kind.BYTES, Kind.NESTED):
                problems.append(f"sources.{source.name}.rank: '{own}' is {field.kind}, which has no order")
    if shape.view.kind == "history" and len(shape.view.sources) != 1:
        problems.append("sources: a history view has exactly one source")
    return problems


def over_columns(over: Over, shaped: Mapping[str, Shape]) -> dict[str, Column]:
    """The columns that an aggregate can use of one source: its view's own, and those brought over."""
    known = {column.name: column for column in shaped[over.view].columns}
    if over.join is not None:
        brought = {column.name: column for column in shaped[over.join.view].columns}
        known |= {name: brought[name] for name in over.join.bring}
    return known


def _join_problems(over: Over, shaped: Mapping[str, Shape]) -> list[str]:
    if over.join is None:
        return []
    other, problems = shaped[over.join.view], []
    if other.view.key != (over.join.foreign,):
        problems.append(f"over.{over.name}.join: '{over.join.foreign}' is not the key of '{over.join.view}'")
    if over.join.local not in shaped[over.view].kinds:
        problems.append(f"over.{over.name}.join: '{over.view}' has no field '{over.join.local}'")
    unknown = (name for name in over.join.bring if name not in other.kinds)
    return problems + [f"over.{over.name}.bring: '{over.join.view}' has no field '{name}'" for name in unknown]


def _aggregate_problems(shape: Shape, shaped: Mapping[str, Shape]) -> list[str]:
    problems = [problem for over in shape.view.over for problem in _join_problems(over, shaped)]
    if problems:
        return problems
    available = {over.name: over_columns(over, shaped) for over in shape.view.over}
    for measure in shape.view.measures:
        column = available[measure.over].get(measure.field or "")
        if measure.function == "sum" and column is not None and column.kind not in _SUMMABLE:
            problems.append(f"measures.{measure.name}: '{column.name}' is {column.kind}, which has no sum")
        if measure.where is not None:
            problems += _where_problems(measure.name, measure.where, available[measure.over])
    return problems


def _where_problems(name: str, where: Condition, columns: Mapping[str, Column]) -> list[str]:
    if where.subject_attributes:
        return [f"measures.{name}.where: nobody is asking, so there is no subject"]
    try:
        check(where, {column: found.kind for column, found in columns.items()})
    except BusError as error:
        return [f"measures.{name}.where: {error.detail}"]
    return []


def shapes(declarations: Declarations, contracts: Mapping[str, Contract]) -> dict[str, Shape]:
    """The shape of each declared view, aggregates after what they read. A view whose contracts are not (or no longer)
    there is left out: nothing can be shown of it."""
    shaped: dict[str, Shape] = {}
    for name, view in _ordered(declarations.all()):
        try:
            shaped[name] = shape_of(view, contracts, shaped)
        except InvalidDeclaration:
            continue
    return shaped
