"""Compares a view with the one that was built beside it, both at the same positions, in one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.infra.database import translated_errors
from bus.views.catalogue import Shape
from bus.views.store import read_positions
from bus.views.tables import layout, live_rows, row_table


@dataclass(frozen=True, slots=True)
class Comparison:
    """``rows``: of the one built beside. ``differing``: keys whose row is another, or in one of the two only, and
    ``hidden``: records and versions that differ; both are 0 where nothing had to be repaired. ``columns``: how many
    were compared; 0 where the declarations have nothing in common that must be equal."""

    rows: int
    differing: int
    hidden: int
    columns: int


def compare(engine: Engine, live: Shape, shadow: Shape, columns: Sequence[str] | None) -> Comparison | None:
    """None while the two are not at the same positions. ``columns``: which must be equal; None: all of both, with the
    records that they are made of."""
    with translated_errors(), _frozen(engine) as connection:
        if _at(connection, live) != _at(connection, shadow):
            return None
        names = [column.name for column in shadow.columns] if columns is None else list(columns)
        differing = count_of(connection, differing_keys(live, shadow, names)) if names else 0
        hidden = _hidden(connection, live, shadow) if columns is None else 0
        built = row_table(shadow)  # one object: two of one name would be a product of the table with itself
        rows = count_of(connection, sa.select(sa.literal(1)).select_from(built).where(live_rows(built)))
        return Comparison(rows, differing, hidden, len(names))


def differing_keys(live: Shape, shadow: Shape, columns: Sequence[str]) -> sa.Select[Any]:
    """The view keys whose rows are not equal in these columns, or are in one of the two only."""
    names = list(dict.fromkeys([*shadow.view.key, *columns]))
    one, other = (_rows(shape, names) for shape in (live, shadow))
    either = sa.union_all(_minus(one, other, names), _minus(other, one, names)).subquery()
    return sa.select(*(either.c[name] for name in shadow.view.key)).distinct()


def _rows(shape: Shape, names: Sequence[str]) -> sa.Select[Any]:
    table = row_table(shape)
    return sa.select(*(table.c[name] for name in names)).where(live_rows(table))


def _minus(one: sa.Select[Any], other: sa.Select[Any], names: Sequence[str]) -> sa.Select[Any]:
    found = sa.except_(one, other).subquery()
    return sa.select(*(found.c[name] for name in names))


def _hidden(connection: Connection, live: Shape, shadow: Shape) -> int:
    """Records and versions that are not equal, hidden columns included; a view of one level has its records in its
    rows."""
    first, second = layout(live), layout(shadow)
    found = 0
    for one, other in zip(first.tables, second.tables, strict=True):
        if one is first.rows and not first.one_level:
            continue
        names = [column.name for column in one.columns]
        both = [sa.select(*(table.c[name] for name in names)) for table in (one, other)]
        found += count_of(connection, _minus(both[0], both[1], names)) + count_of(
            connection, _minus(both[1], both[0], names)
        )
    return found


def count_of(connection: Connection, statement: sa.Select[Any]) -> int:
    """How many rows the statement gives."""
    return connection.scalar(sa.select(sa.func.count()).select_from(statement.subquery())) or 0


def _at(connection: Connection, shape: Shape) -> dict[tuple[str, int], int]:
    return {(p.topic, p.partition): p.next_offset for p in read_positions(connection, shape.view.name)}


def _frozen(engine: Engine) -> AbstractContextManager[Connection]:
    """A transaction that sees one state throughout."""
    if engine.dialect.name == "sqlite":
        return engine.begin()
    return engine.execution_options(isolation_level="REPEATABLE READ").begin()
