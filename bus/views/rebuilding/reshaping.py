"""Changes a view's tables in place, in one transaction, to the shape that its declaration has now."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.core.names import without_generation
from bus.infra.database import translated_errors, write
from bus.views.applied import shape_text
from bus.views.builder import begin
from bus.views.catalogue import Shape
from bus.views.changelog.keeping import begin_anew
from bus.views.derived.graph import forsake, release
from bus.views.rebuilding.changes import InPlace, TableChange
from bus.views.rebuilding.generation import tables_of
from bus.views.statements import RowStatements, insert_into, touched_keys
from bus.views.store import VIEW
from bus.views.tables import LIVE, layout

_LOCK_WAIT: Final = "SET LOCAL lock_timeout = '500ms'"


def reshape(engine: Engine, old: Shape, new: Shape, change: InPlace, epoch: int) -> int:
    """Makes the tables of ``old`` into those of ``new``; the view's new ``seq``. Builders of the old shape are fenced
    from then on. Raises `Fenced` and `DatabaseUnavailable`."""
    with translated_errors(), write(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(_LOCK_WAIT)
        seq = begin(connection, old, epoch).seq
        for table in change.tables:
            _table(connection, table)
        if change.recompute:
            _recompute(connection, new)
        named = tables_of(replace(new, view=replace(new.view, name=without_generation(new.view.name))))
        kept = [
            {"name": table.name, "live": LIVE in table.c, "of": own.name}
            for table, own in zip(tables_of(new), named, strict=True)
        ]
        noted = {"fingerprint": new.fingerprint, "shape": shape_text(new), "tables": json.dumps(kept), "undone": ""}
        connection.execute(sa.update(VIEW).where(VIEW.c.name == new.view.name).values(**noted))
        begin_anew(connection, new.view.name, raised=True)
        if change.recompute or any(now != was for table in change.tables for now, was in table.origins.items()):
            forsake(connection, new.view.name)  # values are others though columns have the same names
        if new.view.lookups:
            release(connection, new.view.name)
    return seq


def _table(connection: Connection, change: TableChange) -> None:
    """Columns that share the values of another are added and filled first, then what is left over goes, then names
    change, by way of names that nothing has, since two may change places."""
    kept = {old: new for new, old in change.origins.items() if old == new}
    for new, old in change.origins.items():
        kept.setdefault(old, new)
    aside = {new: _filled(connection, change, new, old) for new, old in change.origins.items() if kept[old] != new}
    for column in change.old.columns:
        if column.name not in kept:
            _alter(connection, change, f"DROP COLUMN {_quoted(connection, column.name)}")
    for old, new in kept.items():
        if old != new:
            aside[new] = _unused()
            _rename(connection, change, old, aside[new])
    for new, name in aside.items():
        _rename(connection, change, name, new)
    for column in change.new.columns:
        if column.name not in change.origins:
            _add(connection, change, column)


def _filled(connection: Connection, change: TableChange, new: str, old: str) -> str:
    """Adds a column under a name that nothing has, with the values of ``old``; the name."""
    name = _unused()
    _add(connection, change, sa.Column(name, change.new.c[new].type))
    table = sa.table(change.old.name, sa.column(name), sa.column(old))
    connection.execute(sa.update(table).values({name: table.c[old]}))
    return name


def _add(connection: Connection, change: TableChange, column: sa.Column[Any]) -> None:
    definition = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
    _alter(connection, change, f"ADD COLUMN {definition}")


def _rename(connection: Connection, change: TableChange, old: str, new: str) -> None:
    _alter(connection, change, f"RENAME COLUMN {_quoted(connection, old)} TO {_quoted(connection, new)}")


def _alter(connection: Connection, change: TableChange, what: str) -> None:
    connection.exec_driver_sql(f"ALTER TABLE {_quoted(connection, change.old.name)} {what}")


def _quoted(connection: Connection, name: str) -> str:
    return str(connection.dialect.identifier_preparer.quote_identifier(name))


def _unused() -> str:
    return f"_m{uuid.uuid4().hex}"


def _recompute(connection: Connection, shape: Shape) -> None:
    """Every row again from the records, as after a batch that touched all of them."""
    tables, dialect = layout(shape), connection.dialect.name
    touched = touched_keys(tables, dialect, shape.fingerprint[:8])
    connection.execute(sa.schema.CreateTable(touched, if_not_exists=True))
    connection.execute(sa.delete(touched))
    keys = sa.select(*(tables.rows.c[name] for name in shape.view.key))
    connection.execute(insert_into(touched, dialect).from_select(list(touched.columns.keys()), keys))
    connection.execute(RowStatements(tables, touched, dialect).upsert)
