"""Rows brought into SQLite from columns, many to a statement."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from bus.infra.database import open_database, write
from bus.views.staging import as_sqlite, load_by


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    return open_database(f"sqlite:///{tmp_path}", "views", durable=False)


def _table(engine: sa.Engine, width: int) -> tuple[sa.Table, str]:
    """A table of so many columns, and the insertion of a row where its second column is greater than what is there."""
    columns = [sa.Column(f"c{number}", sa.BigInteger, primary_key=not number) for number in range(width)]
    table = sa.Table("wide", sa.MetaData(), *columns)
    table.create(engine)
    insert = sqlite.insert(table).values({column.name: None for column in columns})
    insert = insert.on_conflict_do_update(
        index_elements=["c0"],
        set_={column.name: insert.excluded[column.name] for column in columns[1:]},
        where=insert.excluded.c1 > table.c.c1,
    )
    return table, str(insert.compile(dialect=sqlite.dialect()))


@pytest.mark.parametrize("width", [2, 13, 300, 1_000])
@pytest.mark.parametrize("count", [0, 1, 99, 100, 119, 433, 2_007])
def test_every_row_is_written_once_however_many_there_are_to_a_statement(
    engine: sa.Engine, width: int, count: int
) -> None:
    """Each number of rows and of columns, and only rows that changed are counted."""
    if width * count > 100_000:
        count = 109
    table, statement = _table(engine, width)
    rows = [[row * 10_000 + number for number in range(width)] for row in range(count)]
    late = [
        [row[0], -1, *row[2:]] if place % 3 == 0 else [row[0], row[1] + 1, *row[2:]] for place, row in enumerate(rows)
    ]
    newer = [after if after[1] > 0 else before for before, after in zip(rows, late, strict=True)]
    with write(engine) as connection:
        assert load_by(connection, statement, [_columns(rows, width)]) == count
        assert load_by(connection, statement, [_columns(late, width)]) == sum(row[1] > 0 for row in late)
        found = connection.execute(sa.select(table).order_by(table.c.c0)).all()
    assert [list(row) for row in found] == newer


def _columns(rows: list[list[int]], width: int) -> list[list[int]]:
    return [[row[number] for row in rows] for number in range(width)]


def test_values_are_as_sqlite_stores_them() -> None:
    """Each type with a null: truths and instants as integers, days as text, decimals without their point."""
    moment = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
    cases = [
        (pa.array([True, None, False]), [1, None, 0]),
        (pa.array([dt.date(2024, 5, 1), None]), ["2024-05-01", None]),
        (pa.array([moment, None], pa.timestamp("us", "UTC")), [1_714_564_800_000_000, None]),
        (pa.array([Decimal("1.50"), None], pa.decimal128(38, 2)), [150, None]),
        (pa.array(["é", None]), ["é", None]),
        (pa.array([1.5, None]), [1.5, None]),
        (pa.array([b"\x00", None]), [b"\x00", None]),
        (pa.array([2**62, None]), [2**62, None]),
    ]
    for array, wanted in cases:
        found = as_sqlite(array)
        assert found == wanted
        assert [type(value) for value in found] == [type(value) for value in wanted]
