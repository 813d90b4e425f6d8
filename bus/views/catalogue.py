"""Which views are declared, and their shapes: the view with the columns that its contracts give it.

Declarations live in the governance database; each change raises a revision that workers and doors poll.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.contracts.store import insert_new
from bus.core.contracts import Contract
from bus.core.declarations import parse_view, problems_of, read_view
from bus.core.guards import NOTHING_LOWERED, Lowered
from bus.core.views import View
from bus.errors import InvalidDeclaration, UnknownView
from bus.infra.database import create_tables, translated_errors, write
from bus.views.shapes import Shape, check_declared, over_columns, shape_of, shapes_of

__all__ = ["Applied", "Declarations", "Shape", "over_columns", "shape_of", "shapes"]
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


_Given = tuple[dict[str, View], dict[str, Contract], dict[tuple[str, str, str], tuple[str, str]]]


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
        self._shaped: tuple[_Given, dict[str, Shape]] | None = None
        create_tables(engine, _METADATA)
        with translated_errors(), write(engine) as connection:
            first = insert_new(connection, _REVISION).values(id=1, revision=0)
            connection.execute(first.on_conflict_do_nothing())

    def apply(
        self, doc: Mapping[str, Any], contracts: Mapping[str, Contract], lowered: Lowered = NOTHING_LOWERED
    ) -> Applied:
        """Declares the view, or changes it. ``lowered``: the declassifications in force. Raises `InvalidDeclaration`
        naming every problem found."""
        problems = problems_of(doc)
        view = read_view(doc, problems)
        text = json.dumps(doc, ensure_ascii=False, default=str)  # in the declared order: readers see columns so
        with translated_errors(), write(self._engine) as connection:
            _raise_revision(connection)
            views = _read(connection)
            check_declared(views, [(view, problems)], contracts, lowered)
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

    def shapes(self, contracts: Mapping[str, Contract], lowered: Lowered) -> dict[str, Shape]:
        """The shapes of all declared views; computed again only for other views, contracts or declassifications than
        in the last call, since a worker asks every second."""
        given = (self.all(), dict(contracts), dict(lowered))
        with self._lock:
            if self._shaped is not None and self._shaped[0] == given:  # mostly the same objects: compared in no time
                return dict(self._shaped[1])
        shaped = shapes_of(given[0], contracts, lowered)
        with self._lock:
            self._shaped = (given, shaped)
        return dict(shaped)

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


def shapes(
    declarations: Declarations, contracts: Mapping[str, Contract], lowered: Lowered = NOTHING_LOWERED
) -> dict[str, Shape]:
    """The shape of each declared view, each after what it reads. A view whose contracts are not (or no longer)
    there is left out: nothing can be shown of it."""
    return declarations.shapes(contracts, lowered)
