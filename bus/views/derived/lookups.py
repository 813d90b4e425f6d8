"""Fields brought over from other views: filled in when a row is written, and again when the row looked up changes.

A row shows what the looked-up row says now, and null while there is none, so it does not matter which came first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bus.core.views import Lookup
from bus.views.catalogue import Shape
from bus.views.derived.contributions import among
from bus.views.statements import insert_into, temporary
from bus.views.tables import live_rows, row_table, table_name


def brought(shape: Shape) -> dict[str, tuple[Lookup, str]]:
    """The view's columns that a look-up brings: the look-up, and the column of the view looked up."""
    found = {}
    for field in shape.view.fields:
        lookup = shape.view.lookup(field.source)
        if lookup is not None and field.name not in shape.view.key:
            found[field.name] = (lookup, field.field)
    return found


class Lookups:
    """The statements on one view with look-ups. ``shapes``: of the views looked up, at least."""

    def __init__(self, shape: Shape, shapes: Mapping[str, Shape], dialect: str) -> None:
        self.shape, self._shapes, self._dialect = shape, shapes, dialect
        self._rows = row_table(shape)
        self._key = [self._rows.c[name] for name in shape.view.key]
        prints = "".join(shapes[name].fingerprint for name in shape.view.reads) + shape.fingerprint
        suffix = hashlib.sha256(prints.encode()).hexdigest()[:8]
        columns = [
            sa.Column(f"g{i}", part.type, primary_key=True, autoincrement=False) for i, part in enumerate(self._key)
        ]
        self.touched = temporary(table_name(f"b_{shape.view.name}", suffix), columns, dialect)
        self._update = self._filled(self.touched)

    def fill(self, connection: Connection) -> None:
        """Brings over everything anew, for every row."""
        self._begin(connection)
        everything = sa.select(*self._key)
        connection.execute(sa.insert(self.touched).from_select(list(self.touched.columns.keys()), everything))
        connection.execute(self._update)

    def written(self, connection: Connection, touched: sa.Table) -> None:
        """This view's rows were written: ``touched`` has their keys."""
        connection.execute(self._filled(touched))

    def follow(self, connection: Connection, touched: Mapping[str, sa.Table]) -> None:
        """Rows looked up may have changed: ``touched``, by view, has their keys. Afterwards `touched` of this object
        has the keys of this view's rows that show them."""
        self._begin(connection)
        names = list(self.touched.columns.keys())
        for lookup in self.shape.view.lookups:
            if lookup.view not in touched:
                continue
            by = [self._rows.c[name] for name in lookup.by]
            shown = sa.select(*self._key).where(among(by, sa.select(*touched[lookup.view].columns)))
            insert = insert_into(self.touched, self._dialect).from_select(names, shown)
            connection.execute(insert.on_conflict_do_nothing())
        connection.execute(self._update)

    def _begin(self, connection: Connection) -> None:
        connection.execute(sa.schema.CreateTable(self.touched, if_not_exists=True))
        connection.execute(sa.delete(self.touched))

    def _filled(self, touched: sa.Table) -> sa.Update:
        """Only rows that differ are written."""
        own = self._rows.alias("own")
        source: sa.FromClause = own
        others: dict[str, sa.FromClause] = {}
        for lookup in self.shape.view.lookups:
            table = row_table(self._shapes[lookup.view])
            other = table.alias(f"l_{lookup.name}")
            pairs = zip(self._shapes[lookup.view].view.key, lookup.by, strict=True)
            matching = [other.c[theirs] == own.c[mine] for theirs, mine in pairs]
            source = source.outerjoin(other, sa.and_(*matching, live_rows(other)))
            others[lookup.name] = other
        columns = brought(self.shape)
        key = [own.c[part.name].label(f"of{i}") for i, part in enumerate(self._key)]
        now: dict[str, sa.ColumnElement[Any]] = {
            name: others[lookup.name].c[column] for name, (lookup, column) in columns.items()
        }
        wanted = among([own.c[part.name] for part in self._key], sa.select(*touched.columns))
        labelled = [column.label(f"now{i}") for i, column in enumerate(now.values())]
        found = sa.select(*key, *labelled).select_from(source).where(wanted).subquery("found")
        same_row = [part == found.c[f"of{i}"] for i, part in enumerate(self._key)]
        changes = {name: found.c[f"now{i}"] for i, name in enumerate(now)}
        differs = (self._rows.c[name].is_distinct_from(value) for name, value in changes.items())
        return sa.update(self._rows).where(*same_row, sa.or_(sa.false(), *differs)).values(changes)
