"""Aggregates: computed again from the views they read, in one transaction, whenever these have advanced."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.core.columns import Column
from bus.core.conditions import Atom, Clauses, check
from bus.core.views import Measure, Over
from bus.infra.database import translated_errors, write
from bus.views.builder import CrashPoint, begin, no_crash
from bus.views.catalogue import Shape, over_columns
from bus.views.store import VIEW
from bus.views.tables import live_rows, row_table
from bus.views.values import sql_type

Expression = sa.ColumnElement[Any]


class Aggregate:
    """One aggregate view under the lease's ``epoch``. ``shapes``: of the views it reads, at least."""

    def __init__(
        self,
        engine: Engine,
        shape: Shape,
        shapes: Mapping[str, Shape],
        epoch: int,
        *,
        crash_point: CrashPoint = no_crash,
    ) -> None:
        self._engine, self._shape, self._epoch, self._crash = engine, shape, epoch, crash_point
        self._table = row_table(shape)
        self._statement = _insert(shape, shapes, self._table)
        self._fingerprints = {name: shapes[name].fingerprint for name in shape.view.reads}

    def refresh(self) -> bool:
        """Computes the rows again if a view it reads has advanced; whether it did. The view is live once all of these
        are. Raises `Fenced` and `DatabaseUnavailable`."""
        with translated_errors(), write(self._engine) as connection:
            bases = self._bases(connection)
            if bases is None or not self._stale(connection, bases):
                return False
            begin(connection, self._shape, self._epoch)
            connection.execute(sa.delete(self._table))
            self._crash("emptied")
            self._fill(connection)
            live = all(row.state == "live" for row in bases.values())
            seqs = {name: row.seq for name, row in bases.items()}
            connection.execute(
                sa.update(VIEW)
                .where(VIEW.c.name == self._shape.view.name)
                .values(bases=json.dumps(seqs), state="live" if live else "building", reason="")
            )
            self._crash("before commit")
        return True

    def _fill(self, connection: Connection) -> None:
        try:
            connection.execute(self._statement)
        except sa.exc.OperationalError as error:
            if "overflow" in str(error.orig):  # SQLite's word for it; it is no trouble that passes
                raise OverflowError(f"a sum of {self._shape.view.name} is beyond 64 bits") from error
            raise

    def outdated(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether a view that it reads has another shape by now: this object's statement is for the old one."""
        return any(name in shapes and shapes[name].fingerprint != old for name, old in self._fingerprints.items())

    def _bases(self, connection: Connection) -> dict[str, Any] | None:
        """The rows of the views it reads, read before their tables, so that their seq is never too high; None while
        one of them does not have the tables that we know."""
        names = list(self._fingerprints)
        rows = {row.name: row for row in connection.execute(sa.select(VIEW).where(VIEW.c.name.in_(names)))}
        known = all(name in rows and rows[name].fingerprint == self._fingerprints[name] for name in names)
        return rows if known else None

    def _stale(self, connection: Connection, bases: Mapping[str, Any]) -> bool:
        mine = connection.execute(sa.select(VIEW).where(VIEW.c.name == self._shape.view.name)).one()
        live = all(row.state == "live" for row in bases.values())
        advanced = json.loads(mine.bases) != {name: row.seq for name, row in bases.items()}
        return advanced or (mine.state == "live") is not live


def _insert(shape: Shape, shapes: Mapping[str, Shape], table: sa.Table) -> sa.Insert:
    """Each source's rows under each other, the columns of other sources null; then grouped, null being a group."""
    everything = sa.union_all(*(_part(over, shape, shapes) for over in shape.view.over)).subquery()
    groups = [everything.c[name] for name in shape.view.key]
    figures = [
        _FIGURES[measure.function](everything.c[f"m{index}"], shape.columns[len(groups) + index])
        for index, measure in enumerate(shape.view.measures)
    ]
    return sa.insert(table).from_select(
        [column.name for column in shape.columns], sa.select(*groups, *figures).group_by(*groups)
    )


def _part(over: Over, shape: Shape, shapes: Mapping[str, Shape]) -> sa.Select[Any]:
    own = row_table(shapes[over.view]).alias(f"o_{over.name}")
    columns: dict[str, Expression] = {column.name: own.c[column.name] for column in shapes[over.view].columns}
    source: sa.FromClause = own
    if over.join is not None:
        other = row_table(shapes[over.join.view])
        shown = sa.select(other).where(live_rows(other)).subquery()
        source = own.outerjoin(shown, shown.c[over.join.foreign] == own.c[over.join.local])
        columns |= {name: shown.c[name] for name in over.join.bring}
    kinds = over_columns(over, shapes)
    figures = [
        _counted(measure, columns, kinds)
        if measure.over == over.name
        else sa.cast(sa.null(), _inner_type(measure, shape, shapes))
        for measure in shape.view.measures
    ]
    return (
        sa.select(
            *(columns[name].label(name) for name in shape.view.key),
            *(figure.label(f"m{index}") for index, figure in enumerate(figures)),
        )
        .select_from(source)
        .where(live_rows(own))  # type: ignore[arg-type]
    )


def _inner_type(measure: Measure, shape: Shape, shapes: Mapping[str, Shape]) -> Any:
    """The type of a measure's values before they are counted or summed."""
    if measure.field is None:
        return sa.BigInteger()
    over = next(over for over in shape.view.over if over.name == measure.over)
    column = over_columns(over, shapes)[measure.field]
    return sql_type(column.kind, column.scale)


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


def _sum(values: Expression, column: Column) -> Expression:
    # PostgreSQL's sum of integers is NUMERIC; SQLite's of scaled decimals is that integer already.
    return (
        sa.cast(sa.func.sum(values), sa.BigInteger())
        if column.scale is None and _whole(column)
        else sa.func.sum(values)
    )


def _whole(column: Column) -> bool:
    return isinstance(sql_type(column.kind, column.scale), sa.BigInteger)


_FIGURES: Final[Mapping[str, Callable[[Expression, Column], Expression]]] = {
    "count": lambda values, _: sa.func.count(values),
    "distinct": lambda values, _: sa.func.count(values.distinct()),
    "sum": _sum,
    "min": lambda values, _: sa.func.min(values),
    "max": lambda values, _: sa.func.max(values),
}
