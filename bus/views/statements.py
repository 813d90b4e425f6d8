"""The SQL that merges staged records into a view's tables and computes its rows again. Built once for each view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.visitors import InternalTraversal

from bus.views.prepared import Prepared
from bus.views.tables import LIVE, ORDER, PARTITION, VERSION, Layout, Records, table_name

Insert = sqlite.Insert | postgresql.Insert


def insert_into(table: sa.Table, dialect: str) -> Insert:
    """An INSERT that knows ON CONFLICT, in the database's dialect."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def temporary(name: str, columns: Sequence[sa.Column[Any]], dialect: str, *, lasting: bool = False) -> sa.Table:
    """A temporary table; on PostgreSQL it is empty again after each transaction, unless ``lasting``: see `scratch`."""
    emptied = dialect == "postgresql" and not lasting
    options: dict[str, Any] = {"postgresql_on_commit": "DELETE ROWS"} if emptied else {}
    return sa.Table(name, sa.MetaData(), *columns, prefixes=["TEMPORARY"], **options)


def stage_of(records: Records, dialect: str, suffix: str) -> sa.Table:
    """The temporary table that a source's records are staged in."""
    columns = [sa.Column(column.name, column.type) for column in records.stored]
    return temporary(table_name(f"s_{records.table.name}", suffix), columns, dialect, lasting=True)


def where_newer(records: Records, insert: Insert) -> Insert:
    """The insertion of records, where they are newer than what there is."""
    names = [column.name for column in records.stored]
    return insert.on_conflict_do_update(
        index_elements=list(records.key),
        set_={name: insert.excluded[name] for name in names if name not in records.key},
        where=sa.tuple_(*(insert.excluded[name] for name in ORDER))
        > sa.tuple_(*(records.table.c[name] for name in ORDER)),
    )


def merge_of_one(records: Records) -> str:
    """SQLite: the merge of one record, its columns in the order of ``stored``."""
    insert = sqlite.insert(records.table).values({column.name: None for column in records.stored})
    return str(where_newer(records, insert).compile(dialect=sqlite.dialect()))


def newer(left: sa.FromClause, right: sa.FromClause) -> sa.ColumnElement[bool]:
    """Whether the version of ``left`` is greater than that of ``right``."""
    return sa.tuple_(*(left.c[name] for name in ORDER)) > sa.tuple_(*(right.c[name] for name in ORDER))


class MergeStatements:
    """Merging one source's newest records from ``stage``, which has columns as the records table: a temporary table, or
    values that a statement is given. Only a temporary one fills ``touched``."""

    def __init__(self, records: Records, stage: sa.FromClause, dialect: str, touched: sa.Table | None = None) -> None:
        self.stage, self._records, self._table, self._dialect = stage, records, records.table, dialect
        self._joined = sa.and_(*(self._table.c[name] == stage.c[name] for name in records.key))
        self.merge = self._made(self._merge(sort=touched is not None))
        self.versions = self._made(
            sa.select(
                *(stage.c[name].label(f"new{name}") for name in ORDER), *(self._table.c[name] for name in ORDER)
            ).join_from(stage, self._table, self._joined)
        )
        places = sa.select(stage.c[VERSION[2]], stage.c[PARTITION]).join_from(stage, self._table, self._joined)
        self.overtaken = self._made(places.where(newer(self._table, stage)))
        if records.group:
            self.changes = self._made(self._changes())
        if touched is not None and records.group:
            self.old_keys, self.new_keys = self._made(self._old_keys(touched)), self._made(self._new_keys(touched))
        elif touched is not None:
            found = sa.select(*(stage.c[name] for name in records.key))
            self.staged_keys = self._made(_insert_keys(touched, found, dialect))

    def _made(self, statement: sa.ClauseElement) -> Prepared:
        return Prepared(statement, self._dialect)

    def _merge(self, *, sort: bool) -> Insert:
        """The staged records, where they are newer than what there is; sorted, so that lock order is one (K4)."""
        names = [column.name for column in self._records.stored]
        found = sa.select(*(self.stage.c[name] for name in names)).where(sa.true())
        if sort:
            found = found.order_by(*(self.stage.c[name] for name in self._records.key))
        return where_newer(self._records, insert_into(self._table, self._dialect).from_select(names, found))

    def _group(self, table: sa.FromClause) -> list[sa.ColumnElement[Any]]:
        return [table.c[name] for name in self._records.group]

    def _old_keys(self, touched: sa.Table) -> Insert:
        """View keys that live records had which are about to change."""
        group = self._group(self._table)
        found = (
            sa.select(*group)
            .join_from(self.stage, self._table, self._joined)
            .where(
                newer(self.stage, self._table), self._table.c[LIVE].is_(True), *(part.is_not(None) for part in group)
            )
        )
        return _insert_keys(touched, found, self._dialect)

    def _new_keys(self, touched: sa.Table) -> Insert:
        """View keys of the staged live records. Late ones are among them: to look at a row for nothing changes nothing
        and costs less than finding them out."""
        group = self._group(self.stage)
        found = sa.select(*group).where(self.stage.c[LIVE].is_(True), *(part.is_not(None) for part in group))
        return _insert_keys(touched, found, self._dialect)

    def _wins(self) -> sa.ColumnElement[bool]:
        return sa.or_(self._table.c[VERSION[0]].is_(None), newer(self.stage, self._table))

    def _changes(self) -> sa.Select[Any]:
        """By how much the number of live records without a view key is about to change (``null_keys``), and how many
        live records are about to leave the view key they have (``leaving``)."""

        def without(table: sa.FromClause) -> sa.ColumnElement[int]:
            missing = sa.or_(sa.false(), *(part.is_(None) for part in self._group(table)))
            return sa.case((sa.and_(table.c[LIVE].is_(True), missing), 1), else_=0)

        pairs = zip(self._group(self._table), self._group(self.stage), strict=True)
        moves = sa.or_(self.stage.c[LIVE].is_(False), *(old.is_distinct_from(new) for old, new in pairs))
        leaves = sa.case((sa.and_(self._table.c[LIVE].is_(True), moves), 1), else_=0)
        change = sa.func.coalesce(sa.func.sum(without(self.stage) - without(self._table)), 0).label("null_keys")
        leaving = sa.func.coalesce(sa.func.sum(leaves), 0).label("leaving")
        joined = self.stage.outerjoin(self._table, self._joined)
        return sa.select(change, leaving).select_from(joined).where(self._wins())


def _insert_keys(touched: sa.Table, found: sa.Select[Any], dialect: str) -> Insert:
    names = [column.name for column in touched.columns]
    found = found.where(sa.true()).distinct()  # without WHERE, SQLite takes ON CONFLICT for the ON of a join
    return insert_into(touched, dialect).from_select(names, found).on_conflict_do_nothing()


def touched_keys(layout: Layout, dialect: str, suffix: str) -> sa.Table:
    """The temporary table of the view keys that a transaction touches."""
    key = [layout.rows.c[name] for name in layout.shape.view.key]
    columns = [sa.Column(f"g{i}", part.type, primary_key=True, autoincrement=False) for i, part in enumerate(key)]
    return temporary(table_name(f"t_{layout.shape.view.name}", suffix), columns, dialect, lasting=True)


class _Driving(sa.ColumnElement[Any]):
    """A column of the table to begin a join with. SQLite, which keeps no statistics of temporary tables, would begin
    with the larger one and go through all its records for each batch; a plus forbids it the other table's index."""

    inherit_cache = True
    # what a cache of statements tells apart; without it nothing with a join is cached and small batches cost double
    _traverse_internals = [("column", InternalTraversal.dp_clauseelement)]  # noqa: RUF012

    def __init__(self, column: sa.ColumnElement[Any]) -> None:
        self.column, self.type = column, column.type


@compiles(_Driving)
def _plain(element: _Driving, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.column, **options))


@compiles(_Driving, "sqlite")
def _with_plus(element: _Driving, compiler: Any, **options: Any) -> str:
    return f"+{compiler.process(element.column, **options)}"


def on_group(touched: sa.FromClause, table: sa.FromClause, group: Sequence[str]) -> sa.ColumnElement[bool]:
    """Whether these columns of ``table`` hold the touched view key."""
    return sa.and_(*(table.c[name] == _Driving(column) for name, column in zip(group, touched.columns, strict=True)))


def best_records(records: Records, touched: sa.FromClause) -> sa.Subquery:
    """Of each touched key the live record of highest rank: null lowest, the record's key last. Its columns: the view
    key as in ``touched``, the records' ``shown`` columns by their names in the view, and ``place``, which is 1."""
    table = records.table
    order = [table.c[name].desc().nulls_last() for name in records.rank]
    order += [table.c[name].desc() for name in records.key]
    key = list(touched.columns)
    place = sa.func.row_number().over(partition_by=key, order_by=order).label("place")
    ranked = (
        sa.select(*key, *(table.c[column].label(name) for name, column in records.shown), place)
        .join_from(touched, table, on_group(touched, table, records.group))
        .where(table.c[LIVE].is_(True))
        .subquery()
    )
    return sa.select(ranked).where(ranked.c.place == 1).subquery()


def best_one_by_one(records: Records, touched: sa.FromClause) -> sa.Subquery:
    """The same on PostgreSQL for few keys, each looked up by itself whatever is known of the table: of one that was
    never analyzed it would read everything."""
    table = records.table
    order = [*(table.c[name].desc().nulls_last() for name in records.rank), *(table.c[n].desc() for n in records.key)]
    one = (
        sa.select(
            *(table.c[column].label(name) for name, column in records.shown), sa.literal_column("1").label("place")
        )
        .where(on_group(touched, table, records.group), table.c[LIVE].is_(True))
        .order_by(*order)
        .limit(sa.literal_column("1"))
        .lateral()
    )
    return sa.select(*touched.columns, *one.c).join_from(touched, one, sa.true()).subquery()


def best_by_row(records: Records, touched: sa.FromClause) -> sa.Subquery:
    """The same on SQLite: each key's record is looked up by itself and then found by its row's number, at half the cost
    of numbering all records of all keys."""
    table, other = records.table, records.table.alias()
    order = [*(other.c[name].desc().nulls_last() for name in records.rank), *(other.c[n].desc() for n in records.key)]
    one = (
        sa.select(_row_number(other))
        .where(on_group(touched, other, records.group), other.c[LIVE].is_(True))
        .order_by(*order)
        .limit(sa.literal_column("1"))
        .scalar_subquery()
    )
    shown = (table.c[column].label(name) for name, column in records.shown)
    found = sa.select(*touched.columns, *shown, sa.literal_column("1").label("place"))
    return found.join_from(touched, table, _row_number(table) == one).subquery()


def _row_number(table: sa.FromClause) -> sa.ColumnClause[int]:
    """SQLite's own number of a row."""
    found: sa.ColumnClause[int] = sa.column("rowid", sa.BigInteger)
    found.table = table
    return found


def of_source(layout: Layout, records: Records, best: sa.Subquery, dialect: str) -> Insert:
    """What one source shows, where it has a live record; what other sources show stays. Right for a batch of this
    source in which no record leaves its view key: half the work of computing whole rows."""
    key, shown = layout.shape.view.key, [name for name, _ in records.shown]
    names = [*list(best.c.keys())[: len(key)], *shown]
    found = sa.select(*(best.c[name] for name in names)).where(sa.true())
    found = found.order_by(*(best.c[name] for name in names[: len(key)]))
    insert = insert_into(layout.rows, dialect).from_select([*key, *shown], found)
    if not shown:
        return insert.on_conflict_do_nothing()
    changes = {name: insert.excluded[name] for name in shown}
    return insert.on_conflict_do_update(index_elements=list(key), set_=changes)


class RowStatements:
    """Computing the rows of touched view keys from the records of all sources."""

    def __init__(self, layout: Layout, touched: sa.FromClause, dialect: str) -> None:
        self.touched = touched
        best = [best_records(records, touched) for records in layout.records]
        self.upsert = self._upsert(layout, best, dialect)
        alone = best if dialect == "postgresql" else [best_by_row(records, touched) for records in layout.records]
        self.upserts = [of_source(layout, *pair, dialect) for pair in zip(layout.records, alone, strict=True)]
        self.delete = self._delete(layout)

    def _upsert(self, layout: Layout, best: Sequence[sa.Subquery], dialect: str) -> Insert:
        key, source = layout.shape.view.key, self._joined(best)
        shown = {
            name: subquery.c[name]
            for records, subquery in zip(layout.records, best, strict=True)
            for name, _ in records.shown
        }
        present = sa.or_(sa.false(), *(subquery.c.place.is_not(None) for subquery in best))
        found = sa.select(*self.touched.columns, *shown.values()).select_from(source)
        found = found.where(present).order_by(*self.touched.columns)
        insert = insert_into(layout.rows, dialect).from_select([*key, *shown], found)
        if not shown:
            return insert.on_conflict_do_nothing()
        changes = {name: insert.excluded[name] for name in shown}
        return insert.on_conflict_do_update(index_elements=list(key), set_=changes)

    def _joined(self, best: Sequence[sa.Subquery]) -> sa.FromClause:
        source: sa.FromClause = self.touched
        for subquery in best:
            names = [column.name for column in self.touched.columns]
            source = source.outerjoin(subquery, on_group(self.touched, subquery, names))
        return source

    def _delete(self, layout: Layout) -> sa.Delete:
        """Rows whose last live record went."""
        key = [layout.rows.c[name] for name in layout.shape.view.key]
        gone = sa.select(*self.touched.columns).where(
            *(
                ~sa.exists().where(on_group(self.touched, found.table, found.group), found.table.c[LIVE].is_(True))
                for found in layout.records
            )
        )
        matching = key[0].in_(gone) if len(key) == 1 else sa.tuple_(*key).in_(gone)
        return sa.delete(layout.rows).where(matching)
