"""Aggregates: what each row of the views they read contributes to them, as tables and as SQL.

`c_<aggregate>__<source>` has a row for each row counted: its group, and its value for each measure (null where it does
not count). `u_<aggregate>__<measure>` has, for measures that a value taken away may change in any way (min, max,
distinct), each different value of a group and how often it is there. `bus.views.derived.figures` keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import sqlalchemy as sa

from bus.core.columns import Column
from bus.core.conditions import Atom, Clauses, check
from bus.core.views import Measure, Over
from bus.views.catalogue import Shape, over_columns
from bus.views.groups import key_columns, key_of
from bus.views.tables import live_rows, row_table, table_name
from bus.views.values import sql_type

Expression = sa.ColumnElement[Any]
JOINED: Final = "_join"
_MULTISETS: Final = ("min", "max", "distinct")


@dataclass(frozen=True)
class Contributions:
    """What the rows of one view contribute. ``table``: keyed by the view's key (columns ``b0``, ``b1`` and so on);
    ``found``: the same columns, computed for the view keys in the temporary table ``keys``. ``measures``: which of the
    aggregate's these are, by number."""

    over: Over
    table: sa.Table
    keys: sa.Table
    found: sa.Select[Any]
    measures: tuple[int, ...]

    @property
    def base(self) -> list[sa.Column[Any]]:
        """The view's key in the table."""
        return [self.table.c[f"b{index}"] for index in range(len(self.keys.columns))]


class AggregateTables:
    """The stored tables of an aggregate beside its rows. ``temporary`` makes a temporary table of a name."""

    def __init__(
        self, shape: Shape, shapes: Mapping[str, Shape], temporary: Callable[[str, list[sa.Column[Any]]], sa.Table]
    ) -> None:
        self.shape, self._shapes = shape, shapes
        self.rows = row_table(shape)
        self._metadata = sa.MetaData()
        self.contributions = tuple(self._contributions(over, temporary) for over in shape.view.over)
        self.multisets = {
            index: self._multiset(index, measure)
            for index, measure in enumerate(shape.view.measures)
            if measure.function in _MULTISETS
        }

    @property
    def stored(self) -> tuple[sa.Table, ...]:
        """Every stored table but that of the rows."""
        return (*(one.table for one in self.contributions), *self.multisets.values())

    @cached_property
    def types(self) -> list[Any]:
        """The type of each measure's values before they are counted or summed."""
        return [self._type(measure) for measure in self.shape.view.measures]

    def _type(self, measure: Measure) -> Any:
        if measure.field is None:
            return sa.BigInteger()
        over = next(over for over in self.shape.view.over if over.name == measure.over)
        column = over_columns(over, self._shapes)[measure.field]
        return sql_type(column.kind, column.scale)

    def _contributions(self, over: Over, temporary: Callable[[str, list[sa.Column[Any]]], sa.Table]) -> Contributions:
        shape, base = self.shape, self._shapes[over.view]
        own = {column.name: column for column in row_table(base).columns}
        types = [own[name].type for name in base.view.key]
        measures = tuple(i for i, measure in enumerate(shape.view.measures) if measure.over == over.name)
        name = table_name(f"c_{shape.view.name}", over.name)
        joined = [sa.Column(JOINED, own[over.join.local].type)] if over.join else []
        table = sa.Table(
            name,
            self._metadata,
            *(sa.Column(f"b{i}", kind, primary_key=True, autoincrement=False) for i, kind in enumerate(types)),
            *joined,
            *key_columns(shape, primary=False),
            *(sa.Column(f"m{index}", self.types[index]) for index in measures),
        )
        for column in joined:
            sa.Index(table_name("i", name), table.c[column.name])
        keys = temporary(
            f"k_{shape.view.name}__{over.name}",
            [sa.Column(f"g{i}", kind, primary_key=True, autoincrement=False) for i, kind in enumerate(types)],
        )
        return Contributions(over, table, keys, self._found(over, keys, measures), measures)

    def _found(self, over: Over, keys: sa.Table, measures: tuple[int, ...]) -> sa.Select[Any]:
        base = self._shapes[over.view]
        own = row_table(base).alias(f"o_{over.name}")
        columns: dict[str, Expression] = {column.name: own.c[column.name] for column in base.columns}
        key = [own.c[name] for name in base.view.key]
        source: sa.FromClause = own
        joined: list[Expression] = []
        if over.join is not None:
            other = row_table(self._shapes[over.join.view]).alias(f"j_{over.name}")
            matching = sa.and_(other.c[over.join.foreign] == own.c[over.join.local], live_rows(other))
            source = source.outerjoin(other, matching)
            columns |= {name: other.c[name] for name in over.join.bring}
            joined = [own.c[over.join.local]]
        kinds = over_columns(over, self._shapes)
        figures = [_counted(self.shape.view.measures[index], columns, kinds) for index in measures]
        groups = key_of(self.shape, [columns[name] for name in self.shape.view.key])
        found = sa.select(*key, *joined, *groups, *figures).select_from(source)
        return found.where(among(key, sa.select(*keys.columns)), live_rows(own))

    def _multiset(self, index: int, measure: Measure) -> sa.Table:
        return sa.Table(
            table_name(f"u_{self.shape.view.name}", measure.name),
            self._metadata,
            *key_columns(self.shape, primary=True),
            sa.Column("value", self.types[index], primary_key=True, autoincrement=False),
            sa.Column("n", sa.BigInteger, nullable=False),
        )


def among(columns: Sequence[Expression], found: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """Whether the columns' values are among the rows found. Not a join: SQLite, which knows nothing of the sizes of
    temporary tables, might begin that with the large table; this begins with what was found."""
    return columns[0].in_(found) if len(columns) == 1 else sa.tuple_(*columns).in_(found)


def _counted(measure: Measure, columns: Mapping[str, Expression], kinds: Mapping[str, Column]) -> Expression:
    """A row's value for a measure: null where the row does not count."""
    value: Expression = columns[measure.field] if measure.field else sa.literal(1, sa.BigInteger())
    if measure.where is None:
        return value
    clauses = check(measure.where, {name: column.kind for name, column in kinds.items()}).clauses
    return sa.case((condition(clauses, columns), value))


def condition(clauses: Clauses, columns: Mapping[str, Expression]) -> sa.ColumnElement[bool]:
    """A normalised condition as SQL, values bound. A comparison with null is not true, nor is its negation."""
    return sa.or_(
        sa.false(), *(sa.and_(sa.true(), *(_atom(atom, columns[atom.field]) for atom in clause)) for clause in clauses)
    )


def _prefix(column: Expression, value: str) -> sa.ColumnElement[bool]:
    return sa.func.substr(column, 1, len(value)) == value


_ATOMS: Final[Mapping[str, Callable[[Expression, Any], sa.ColumnElement[bool]]]] = {
    "eq": lambda column, value: column == value,
    "ne": lambda column, value: column != value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "in": lambda column, value: column.in_(value),
    "not_in": lambda column, value: column.not_in(value),
    "prefix": _prefix,
    "not_prefix": lambda column, value: ~_prefix(column, value),
    "missing": lambda column, _: column.is_(None),
    "present": lambda column, _: column.is_not(None),
}


def _atom(atom: Atom, column: Expression) -> sa.ColumnElement[bool]:
    return _ATOMS[atom.op](column, atom.value)
