"""Where a row's values come from: the places (topic, partition, offset) of the events that made it, as SQL.

Every statement takes ``visible``, the condition of whoever asks on the view's table, so that nothing is told of a row
that may not be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from bus.core.views import Lookup, Over
from bus.views.catalogue import Shape
from bus.views.derived.history import versions
from bus.views.tables import KNOWN, LIVE, ORDER, PARTITION, UNTIL, VALID, VERSION, Records, layout, live_rows, row_table

Visible = Callable[[sa.FromClause], sa.ColumnElement[bool]]
Key = Mapping[str, Any]
OFFSET: Final = VERSION[2]
MOST_VERSIONS: Final = 100
MOST_KEYS: Final = 20


def everyone(_: sa.FromClause) -> sa.ColumnElement[bool]:
    """For what was decided before: a row that a visible one shows."""
    return sa.true()


@dataclass(frozen=True, slots=True)
class Origin:
    """How a column gets its value: from a source of the view (``lookup`` is None), or from ``field`` of the view that a
    look-up names. ``source``: None for a key column, which every source has."""

    column: str
    source: str | None
    lookup: Lookup | None = None
    field: str = ""


def origins(shape: Shape, columns: Sequence[str]) -> list[Origin]:
    """How each of these columns of an entity or history view gets its value."""
    fields = {field.name: field for field in shape.view.fields if field.name not in shape.view.key}
    found = []
    for name in columns:
        if name not in fields:
            found.append(Origin(name, None))
        elif (lookup := shape.view.lookup(fields[name].source)) is not None:
            found.append(Origin(name, None, lookup, fields[name].field))
        else:
            found.append(Origin(name, fields[name].source))
    return found


def row(shape: Shape, key: Key, columns: Sequence[str], visible: Visible) -> sa.Select[Any]:
    """1 and these columns of the row, if it may be seen."""
    table = row_table(shape)
    chosen: list[sa.ColumnElement[Any]] = [table.c[name] for name in columns]
    return sa.select(sa.literal(1), *chosen).where(_is_key(table, key), live_rows(table), visible(table))


def made_by(shape: Shape, key: Key, visible: Visible) -> sa.Select[Any]:
    """(source, partition, offset) of the record that shows, of each source that has one for this row."""
    table = row_table(shape)
    seen = sa.exists().where(_is_key(table, key), live_rows(table), visible(table))
    parts = [_best(records, tuple(key.values()), seen) for records in layout(shape).records]
    joined = sa.union_all(*parts).subquery()
    return sa.select(joined.c.source, joined.c.partition, joined.c.offset)


def _best(records: Records, key: Sequence[Any], seen: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The live record of highest rank: null lowest, the record's key last, as the builder chooses it."""
    table = records.table
    group = records.group or records.key
    order = [table.c[name].desc().nulls_last() for name in records.rank]
    order += [table.c[name].desc() for name in records.key]
    named = (
        sa.literal(records.source.name, sa.Text).label("source"),
        table.c[PARTITION].label("partition"),
        table.c[OFFSET].label("offset"),
    )
    matching = (table.c[name] == value for name, value in zip(group, key, strict=True))
    best = sa.select(*named).where(*matching, table.c[LIVE].is_(True), seen).order_by(*order).limit(1).subquery()
    return sa.select(best)


def all_versions(shape: Shape, key: Key, visible: Visible) -> sa.Select[Any]:
    """Every version of a record that may be seen, and its deletions: (partition, offset, known, valid, until, live,
    current), newest first, at most one more than `MOST_VERSIONS`. ``current``: whether no version is newer."""
    table = versions(shape).table
    newest_first = [table.c[name].desc() for name in ORDER]
    place = sa.func.row_number().over(order_by=newest_first).label("place")
    every = sa.select(table, place).where(_is_key(table, key)).subquery()
    named = (
        every.c[PARTITION].label("partition"),
        every.c[OFFSET].label("offset"),
        every.c[KNOWN].label("known"),
        every.c[VALID].label("valid"),
        every.c[UNTIL].label("until"),
        every.c[LIVE].label("live"),
        (every.c.place == 1).label("current"),
    )
    shown = sa.or_(every.c[LIVE].is_(False), visible(every))
    return sa.select(*named).where(shown).order_by(every.c.place).limit(MOST_VERSIONS + 1)


@dataclass(frozen=True, slots=True)
class Contributed:
    """The rows of one view that an aggregate's row is made of. ``count``: how many; ``keys``: up to `MOST_KEYS`."""

    count: sa.Select[int]
    keys: sa.Select[Any]


def contributed(
    shape: Shape, over: Over, shapes: Mapping[str, Shape], key: Key, visible: Mapping[str, Visible]
) -> Contributed:
    """``visible``: of the view counted and of the one joined, for the keys only."""
    base = shapes[over.view]
    own = row_table(base).alias("own")
    columns: dict[str, sa.ColumnElement[Any]] = {column.name: own.c[column.name] for column in base.columns}
    source: sa.FromClause = own
    allowed = [visible.get(over.view, everyone)(own)]
    if over.join is not None:
        other = row_table(shapes[over.join.view]).alias("other")
        on = sa.and_(other.c[over.join.foreign] == own.c[over.join.local], live_rows(other))
        source = own.outerjoin(other, on)
        columns |= {name: other.c[name] for name in over.join.bring}
        allowed.append(sa.or_(other.c[over.join.foreign].is_(None), visible.get(over.join.view, everyone)(other)))
    group = [columns[name].is_(None) if value is None else columns[name] == value for name, value in key.items()]
    within = sa.and_(live_rows(own), *group)
    keys = [own.c[name] for name in base.view.key]
    return Contributed(
        sa.select(sa.func.count()).select_from(source).where(within),
        sa.select(*keys).select_from(source).where(within, *allowed).order_by(*keys).limit(MOST_KEYS),
    )


def _is_key(table: sa.FromClause, key: Key) -> sa.ColumnElement[bool]:
    """A group of an aggregate may have a missing value in its key."""
    return sa.and_(
        *(table.c[name].is_(None) if value is None else table.c[name] == value for name, value in key.items())
    )
