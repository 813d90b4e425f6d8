"""An aggregate's figures, kept by taking away what touched rows contributed and adding what they contribute now.

The work of a transaction grows with the rows it touched, not with the tables or the groups, but for the number of
different values (`distinct`) of the groups it touched. All of it happens under the lock of the aggregate's VIEW row.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bus.core.contracts import Kind
from bus.views.catalogue import Shape
from bus.views.derived.contributions import JOINED, AggregateTables, Contributions, among
from bus.views.derived.sums import EMPTY, Sum, parse
from bus.views.groups import ROWS, is_float, key_columns, key_names, values_of
from bus.views.statements import Insert, insert_into, temporary
from bus.views.tables import live_rows, row_table, table_name

Expression = sa.ColumnElement[Any]
Mark = Callable[[str], None]
Touched = Mapping[str, sa.Table]
_SIGN: Final = "_sign"
_HALF: Final[Expression] = sa.literal_column("32")
_LOW: Final[Expression] = sa.literal_column("4294967295")
_WHOLE: Final[Expression] = sa.literal_column("4294967296")
_GREATEST: Final = 2**31 - 1


class Figures:
    """The statements on one aggregate. ``shapes``: of the views it reads, at least. ``mark`` is called between
    statements. Values are lost to nobody: every method leaves the tables as a query over these views would fill them.
    """

    def __init__(self, shape: Shape, shapes: Mapping[str, Shape], dialect: str, mark: Mark) -> None:
        self.shape, self._shapes, self._dialect, self._mark = shape, shapes, dialect, mark
        prints = "".join(shapes[name].fingerprint for name in (*shape.view.reads, shape.view.name) if name in shapes)
        self._suffix = hashlib.sha256((prints + shape.fingerprint).encode()).hexdigest()[:8]
        self.tables = AggregateTables(shape, shapes, self._temporary)
        self._key = key_names(shape)
        measures = [sa.Column(f"m{index}", kind) for index, kind in enumerate(self.tables.types)]
        signed = [sa.Column(_SIGN, sa.Integer, nullable=False), *key_columns(shape, primary=False), *measures]
        self._signed = self._temporary(f"d_{shape.view.name}", signed)
        self._groups = self._temporary(f"t_{shape.view.name}", key_columns(shape, primary=True))
        self._upsert, self._update = self._add_up(), self._show()
        self._beyond = self._beyond_64_bits()
        self._emptied = sa.delete(self.tables.rows).where(
            self._touched(self.tables.rows), self.tables.rows.c[ROWS] == 0
        )

    def _temporary(self, name: str, columns: list[sa.Column[Any]]) -> sa.Table:
        return temporary(table_name(name, self._suffix), columns, self._dialect)

    @property
    def touched(self) -> sa.Table:
        """After `follow`: the hidden keys of the groups that may have changed, appeared or gone."""
        return self._groups

    # --- what callers do ---

    def make(self, connection: Connection) -> None:
        """Makes the stored tables beside the rows' anew; the rows' table is there and is emptied."""
        for table in self.tables.stored:
            table.drop(connection, checkfirst=True)
            table.create(connection)
        connection.execute(sa.delete(self.tables.rows))

    def fill(self, connection: Connection) -> None:
        """From empty tables: all that there is. Raises OverflowError."""
        self._begin(connection)
        for one in self.tables.contributions:
            base = row_table(self._shapes[one.over.view])
            key = [base.c[name] for name in self._shapes[one.over.view].view.key]
            everything = sa.select(*key).where(live_rows(base))
            connection.execute(sa.insert(one.keys).from_select(list(one.keys.columns.keys()), everything))
        self._carry(connection)

    def follow(self, connection: Connection, touched: Touched) -> None:
        """``touched``: by view, the temporary table of view keys whose rows may have changed. Raises OverflowError."""
        self._begin(connection)
        for one in self.tables.contributions:
            if one.over.view in touched:
                found = sa.select(*touched[one.over.view].columns)
                connection.execute(self._insert_keys(one, found))
            if one.over.join is not None and one.over.join.view in touched:
                (foreign,) = touched[one.over.join.view].columns
                found = sa.select(*one.base).where(among([one.table.c[JOINED]], sa.select(foreign)))
                connection.execute(self._insert_keys(one, found))
        self._carry(connection)

    # --- how ---

    def _begin(self, connection: Connection) -> None:
        for table in (*(one.keys for one in self.tables.contributions), self._signed, self._groups):
            connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
            connection.execute(sa.delete(table))

    def _insert_keys(self, one: Contributions, found: sa.Select[Any]) -> Insert:
        insert = insert_into(one.keys, self._dialect)
        return insert.from_select(list(one.keys.columns.keys()), found.where(sa.true())).on_conflict_do_nothing()

    def _carry(self, connection: Connection) -> None:
        for one in self.tables.contributions:
            touched = among(one.base, sa.select(*one.keys.columns))
            names = [*self._key, *(f"m{index}" for index in one.measures)]
            kept = sa.select(*(one.table.c[name] for name in names)).where(touched)
            self._sign(connection, -1, names, kept)
            connection.execute(sa.delete(one.table).where(touched))
            self._mark("taken away")
            connection.execute(sa.insert(one.table).from_select(list(one.table.columns.keys()), one.found))
            self._mark("contributed")
            self._sign(connection, 1, names, kept)
        groups = sa.select(*(self._signed.c[name] for name in self._key)).distinct()
        connection.execute(sa.insert(self._groups).from_select(self._key, groups))
        for index, table in self.tables.multisets.items():
            self._count_values(connection, index, table)
        connection.execute(self._upsert)
        self._mark("added up")
        for index, measure in enumerate(self.shape.view.measures):
            if measure.function == "sum" and is_float(self.shape, index):
                self._sum_floats(connection, index)
        self._finish(connection)

    def _sign(self, connection: Connection, sign: int, names: Sequence[str], kept: sa.Select[Any]) -> None:
        signed = kept.add_columns(sa.literal_column(str(sign)))
        connection.execute(sa.insert(self._signed).from_select([*names, _SIGN], signed))

    def _count_values(self, connection: Connection, index: int, table: sa.Table) -> None:
        value, key = self._signed.c[f"m{index}"], [self._signed.c[name] for name in self._key]
        change = _total(self._signed.c[_SIGN])
        changes = sa.select(*key, value, change).where(value.is_not(None)).group_by(*key, value).having(change != 0)
        insert = insert_into(table, self._dialect).from_select([*self._key, "value", "n"], changes)
        added = {"n": table.c.n + insert.excluded.n}
        connection.execute(insert.on_conflict_do_update(index_elements=[*self._key, "value"], set_=added))
        mine = [*(table.c[name] for name in self._key), table.c.value]
        seen = sa.select(*key, value).where(value.is_not(None), self._signed.c[_SIGN] == -1)
        connection.execute(sa.delete(table).where(table.c.n == 0, among(mine, seen)))
        self._mark("values counted")

    def _add_up(self) -> Insert:
        """One row for each group touched: what changed, added to what there is."""
        rows, signed = self.tables.rows, self._signed
        values: dict[str, Expression] = {name: signed.c[name] for name in self._key}
        by = list(values.values())
        added: dict[str, Expression] = {ROWS: _total(signed.c[_SIGN])}
        shown: dict[str, Expression] = dict(zip(self.shape.view.key, values_of(self.shape, signed), strict=True))
        for index, measure in enumerate(self.shape.view.measures):
            value = signed.c[f"m{index}"]
            counted = _total(sa.case((value.is_not(None), signed.c[_SIGN]), else_=sa.literal_column("0")))
            if measure.function == "count":
                added[measure.name] = counted
            elif measure.function == "sum":
                added[f"_n{index}"] = counted
                if is_float(self.shape, index):
                    shown[f"_x{index}"] = sa.literal(EMPTY, sa.Text)
                else:
                    whole = self._whole(index, value)
                    added[f"_h{index}"] = _total(whole.bitwise_rshift(_HALF) * signed.c[_SIGN])
                    added[f"_l{index}"] = _total(whole.bitwise_and(_LOW) * signed.c[_SIGN])
        everything = values | shown | added
        insert = insert_into(rows, self._dialect)
        insert = insert.from_select(list(everything), sa.select(*everything.values()).group_by(*by))
        changes = {name: rows.c[name] + insert.excluded[name] for name in added}
        return insert.on_conflict_do_update(index_elements=list(self._key), set_=changes)

    def _whole(self, index: int, value: Expression) -> Expression:
        """The value as a whole number: a decimal times 10^scale, which has at most 18 digits."""
        column = self.shape.columns[len(self.shape.view.key) + index]
        if column.kind is Kind.DECIMAL and self._dialect == "postgresql":
            factor = sa.literal_column(f"1{'0' * (column.scale or 0)}", sa.Numeric())
            return sa.cast(sa.type_coerce(value, sa.Numeric()) * factor, sa.BigInteger)
        return sa.type_coerce(value, sa.BigInteger)

    def _halves(self, index: int) -> tuple[Expression, Expression]:
        high, low = self.tables.rows.c[f"_h{index}"], self.tables.rows.c[f"_l{index}"]
        return high + low.bitwise_rshift(_HALF), low.bitwise_and(_LOW)

    def _summed(self) -> list[int]:
        measures = enumerate(self.shape.view.measures)
        return [i for i, measure in measures if measure.function == "sum" and not is_float(self.shape, i)]

    def _beyond_64_bits(self) -> sa.Select[Any] | None:
        outside = [
            sa.not_(
                self._halves(i)[0].between(sa.literal_column(str(-_GREATEST - 1)), sa.literal_column(str(_GREATEST)))
            )
            for i in self._summed()
        ]
        rows = self.tables.rows
        return (
            sa.select(sa.func.count()).select_from(rows).where(self._touched(rows), sa.or_(*outside))
            if outside
            else None
        )

    def _show(self) -> sa.Update | None:
        """What readers see that is not simply added up."""
        shown: dict[str, Expression] = {}
        for index, table in self.tables.multisets.items():
            measure = self.shape.view.measures[index]
            shown[measure.name] = self._of_values(measure.function, table)
        for index in self._summed():
            high, low = self._halves(index)
            total = self._as_shown(index, high * _WHOLE + low)
            shown[self.shape.view.measures[index].name] = sa.case((self.tables.rows.c[f"_n{index}"] > 0, total))
        rows = self.tables.rows
        return sa.update(rows).where(self._touched(rows)).values(shown) if shown else None

    def _as_shown(self, index: int, total: Expression) -> Expression:
        column = self.shape.columns[len(self.shape.view.key) + index]
        kind = self.tables.rows.c[column.name].type
        if column.kind is Kind.DECIMAL and self._dialect == "postgresql":
            unit = sa.literal_column(f"CAST('1e-{column.scale or 0}' AS NUMERIC)", sa.Numeric())
            return sa.type_coerce(sa.cast(total, sa.Numeric()) * unit, kind)
        return sa.type_coerce(total, kind)

    def _of_values(self, function: str, table: sa.Table) -> Expression:
        rows = self.tables.rows
        mine = [table.c[name] == rows.c[name] for name in self._key]
        if function == "distinct":
            return sa.select(sa.func.count()).select_from(table).where(*mine).correlate(rows).scalar_subquery()
        order = table.c.value.asc() if function == "min" else table.c.value.desc()
        return sa.select(table.c.value).where(*mine).order_by(order).limit(1).correlate(rows).scalar_subquery()

    def _sum_floats(self, connection: Connection, index: int) -> None:
        """Exactly, in Python, since no database adds them so."""
        value, key = self._signed.c[f"m{index}"], [self._signed.c[name] for name in self._key]
        changes: dict[tuple[Any, ...], Sum] = defaultdict(Sum)
        for *group, sign, number in connection.execute(
            sa.select(*key, self._signed.c[_SIGN], value).where(value.is_not(None))
        ):
            changes[tuple(group)].add(number, sign)
        if not changes:
            return
        rows, state, name = self.tables.rows, f"_x{index}", self.shape.view.measures[index].name
        mine = [rows.c[name] for name in self._key]
        kept = connection.execute(sa.select(*mine, rows.c[f"_n{index}"], rows.c[state]).where(self._touched(rows)))
        new = []
        for *group, count, text in kept.all():
            total = parse(text).plus(changes[tuple(group)])
            found = {f"of{i}": part for i, part in enumerate(group)}
            new.append({**found, "new_state": total.text(), "new_sum": total.rounded() if count else None})
        where = [column == sa.bindparam(f"of{i}", type_=column.type) for i, column in enumerate(mine)]
        update = sa.update(rows).where(*where)
        bound = {
            state: sa.bindparam("new_state", type_=sa.Text),
            name: sa.bindparam("new_sum", type_=rows.c[name].type),
        }
        connection.execute(update.values(bound), new)

    def _finish(self, connection: Connection) -> None:
        if self._beyond is not None and connection.scalar(self._beyond):
            raise OverflowError(f"a sum of {self.shape.view.name} is beyond 64 bits")
        if self._update is not None:
            connection.execute(self._update)
            self._mark("shown")
        connection.execute(self._emptied)

    def _touched(self, table: sa.Table) -> sa.ColumnElement[bool]:
        return among([table.c[name] for name in self._key], sa.select(*self._groups.columns))


def _total(values: Expression) -> Expression:
    # PostgreSQL's sum of BIGINT is NUMERIC
    return sa.cast(sa.func.coalesce(sa.func.sum(values), sa.literal_column("0")), sa.BigInteger)
