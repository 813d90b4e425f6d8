"""Which views are declared, and their shapes: the view with the columns that its contracts give it.

Declarations live in the governance database; each change raises a revision that workers and doors poll.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.contracts.store import insert_new
from bus.core import names
from bus.core.columns import Column, find_columns, scale_of
from bus.core.columns import over_columns as columns_over
from bus.core.contracts import Contract, Kind
from bus.core.declarations import parse_view, problems_of, read_view
from bus.core.problems import Problems
from bus.core.soundness import check_reads, check_view
from bus.core.views import Over, View
from bus.errors import InvalidDeclaration, UnknownView
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
_LAYOUT: Final = 3  # of the tables: another number rebuilds every view


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
        """What the tables depend on, as 64 hex digits: another fingerprint means a rebuild. Titles, owner, classes and
        what the view does not use of its contracts do not count, nor does the suffix of a shadow (``+next``)."""
        text = json.dumps([_LAYOUT, names.without_generation(self.view.name), self._stored()], default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _stored(self) -> list[Any]:
        view = self.view
        columns = [(column.name, column.kind, column.scale, column.source) for column in self.columns]
        if view.kind == "aggregate":
            over = [astuple(over) for over in view.over]
            measures = [(m.name, m.function, m.over, m.field, m.where and astuple(m.where)[0]) for m in view.measures]
            return [view.kind, view.key, columns, over, measures]
        fields = [(field.name, field.source, field.field, field.also) for field in view.fields]
        lookups = [astuple(lookup) for lookup in view.lookups]
        return [view.kind, view.key, columns, fields, lookups, view.valid, self._used()]

    def _used(self) -> list[Any]:
        """Of each source what the view uses: its keys, its rank, its version, and the kinds of all fields used."""
        found: list[Any] = []
        for source, contract in zip(self.view.sources, self.contracts, strict=True):
            shown = [field.field for field in self.view.fields if field.source == source.name]
            also = [name for field in self.view.fields for reporter, name in field.also if reporter == source.name]
            version = [contract.version] if contract.version else []
            used = sorted({*contract.key, *source.key, *source.rank, *shown, *also, *self.view.valid, *version})
            kinds = [(name, field.kind, scale_of(field)) for name in used if (field := contract.field(name))]
            found.append((source.name, source.entity, contract.key, source.key, source.rank, contract.version, kinds))
        return found


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
        problems = problems_of(doc)
        view = read_view(doc, problems)
        text = json.dumps(doc, ensure_ascii=False, default=str)  # in the declared order: readers see columns so
        with translated_errors(), write(self._engine) as connection:
            _raise_revision(connection)
            views = _read(connection)
            _refuse_broken(views, view, contracts, problems)
            problems.raise_if_any()
            old = connection.scalar(sa.select(_VIEW.c.document).where(_VIEW.c.name == view.name))
            if old == text:
                connection.rollback()
                return Applied(view, changed=False)
            connection.execute(sa.delete(_VIEW).where(_VIEW.c.name == view.name))
            connection.execute(sa.insert(_VIEW).values(name=view.name, document=text))
        return Applied(view, changed=True)

    def drop(self, name: str) -> None:
        """Takes the view back. Raises `UnknownView`, and `InvalidDeclaration` while another view reads it."""
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


def _refuse_broken(before: Mapping[str, View], view: View, contracts: Mapping[str, Contract], found: Problems) -> None:
    """Adds what is wrong with the view itself, and each view that can be built now and could not any more.

    ``found``: what is wrong with its document already; then the views that read it are not looked at."""
    after = {**before, view.name: view}
    circle = circle_through(view.name, after)
    if circle:
        found.add("view", f"reads itself: {' -> '.join(circle)}. A view may not be computed from its own rows.")
        return
    built, shaped = shapes_of(before, contracts), dict[str, Shape]()
    for name, candidate in ordered(after):
        problems = found if name == view.name else Problems(name)
        shape = find_shape(candidate, contracts, shaped, problems)
        if not problems.found:
            shaped[name] = shape
        elif name != view.name and name in built and view.name in shaped:
            found.add("view", f"'{name}' reads it and would break: {'; '.join(problems.found)}")


def circle_through(name: str, views: Mapping[str, View]) -> list[str]:
    """The views from ``name`` back to itself, each read by the one before; empty where there is no circle."""
    paths = [[name]]
    seen = set[str]()
    while paths:
        path = paths.pop()
        for read in views[path[-1]].reads if path[-1] in views else ():
            if read == name:
                return [*path, name]
            if read not in seen:
                seen.add(read)
                paths.append([*path, read])
    return []


def ordered(views: Mapping[str, View]) -> list[tuple[str, View]]:
    """Each view after those that it reads; within that, in the order of names."""
    done, waiting = dict[str, View](), dict(sorted(views.items()))
    while waiting:
        ready = [name for name, view in waiting.items() if not set(view.reads) & set(waiting)]
        for name in ready or list(waiting):  # a circle: shape_of will name what is missing
            done[name] = waiting.pop(name)
    return list(done.items())


def shape_of(view: View, contracts: Mapping[str, Contract], shaped: Mapping[str, Shape]) -> Shape:
    """The shape of one view. ``shaped``: the shapes of the views that this one reads.

    Raises `InvalidDeclaration` naming everything that cannot be built: a field, contract or view that is not there,
    keys of unequal kinds, a look-up or join on something else than a key.
    """
    problems = Problems(f"view '{view.name}'")
    shape = find_shape(view, contracts, shaped, problems)
    problems.raise_if_any()
    return shape


def find_shape(view: View, contracts: Mapping[str, Contract], shaped: Mapping[str, Shape], problems: Problems) -> Shape:
    """The shape as far as it can be found; what is wrong goes to ``problems``."""
    known = {name: shape.columns for name, shape in shaped.items()}
    columns = find_columns(view, contracts, known, problems)
    check_view(view, columns, contracts, known, problems)
    others = {name: shape.view for name, shape in shaped.items()}
    check_reads(view, others, {column.name: column for column in columns}, known, problems)
    return Shape(view, columns, tuple(contracts[entity] for entity in view.entities if entity in contracts))


def over_columns(over: Over, shaped: Mapping[str, Shape]) -> dict[str, Column]:
    """The columns that an aggregate can use of one source: its view's own, and those brought over."""
    return columns_over(over, {name: shape.columns for name, shape in shaped.items()})


def shapes(declarations: Declarations, contracts: Mapping[str, Contract]) -> dict[str, Shape]:
    """The shape of each declared view, each after what it reads. A view whose contracts are not (or no longer)
    there is left out: nothing can be shown of it."""
    return shapes_of(declarations.all(), contracts)


def shapes_of(views: Mapping[str, View], contracts: Mapping[str, Contract]) -> dict[str, Shape]:
    """The shape of each of these views that can be built, each after what it reads."""
    shaped: dict[str, Shape] = {}
    for name, view in ordered(views):
        problems = Problems(name)
        shape = find_shape(view, contracts, shaped, problems)
        if not problems.found:
            shaped[name] = shape
    return shaped
