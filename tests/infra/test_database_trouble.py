"""Which trouble with a database passes, and which is a defect of ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from bus.errors import DatabaseUnavailable
from bus.infra.database import open_database, translated_errors, write


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_database(database_url, "views", wait_s=0.1)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("statement", ["SELECT FROM WHERE", "SELECT 1 FROM there_is_no_such_table"])
def test_a_wrong_statement_is_no_outage(engine: Engine, statement: str) -> None:
    """It is raised as it is: who waits for it to pass would wait for ever."""
    with pytest.raises(sa.exc.DBAPIError), translated_errors(), engine.connect() as connection:
        connection.exec_driver_sql(statement)


def test_a_locked_database_is_one(sqlite_url: str, tmp_path: Path) -> None:
    """Somebody else holds the write lock for longer than is waited."""
    engine = open_database(sqlite_url, "views", wait_s=0.1)
    with closing(sqlite3.connect(tmp_path / "data" / "views.db", isolation_level=None)) as other:
        engine.connect().close()
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseUnavailable), translated_errors(), write(engine):
            pass
    engine.dispose()


def test_a_full_database_is_one(sqlite_url: str) -> None:
    """No page more: the transaction is undone, and with space again the same goes through."""
    engine = open_database(sqlite_url, "views")
    table = sa.Table("much", sa.MetaData(), sa.Column("text", sa.Text))
    table.create(engine)
    rows = [{"text": "x" * 1_000}] * 100
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 4")
        connection.rollback()
        with pytest.raises(DatabaseUnavailable), translated_errors(), connection.begin():
            connection.execute(sa.insert(table), rows)
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
        connection.rollback()
        with connection.begin():
            connection.execute(sa.insert(table), rows)
        assert connection.scalar(sa.select(sa.func.count()).select_from(table)) == 100
    engine.dispose()
