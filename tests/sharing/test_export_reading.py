"""Reading for exports: one state in batches, within a time limit, and nothing left open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from bus.infra.database import open_database
from bus.sharing.exports.reading import ExportReader, TookTooLong
from bus.sharing.store import Statements

NUMBERS = sa.Table("numbers", sa.MetaData(), sa.Column("n", sa.BigInteger, primary_key=True))
ASKED = Statements(sa.select(NUMBERS.c.n).order_by(NUMBERS.c.n), sa.select(sa.func.count()).select_from(NUMBERS))


@pytest.fixture
def views(database_url: str) -> Iterator[sa.Engine]:
    """The views database with a hundred rows in one table."""
    engine = open_database(database_url, "views")
    NUMBERS.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(NUMBERS), [{"n": n} for n in range(100)])
    yield engine
    engine.dispose()


def test_one_state_is_read_in_batches(views: sa.Engine, database_url: str) -> None:
    """What is written meanwhile is not seen, neither by the count nor by a later batch."""
    reader = ExportReader(database_url, batch=30)
    found = reader.read(ASKED, seconds=30)
    assert next(found) == 100
    with views.begin() as connection:
        connection.execute(sa.insert(NUMBERS), [{"n": n} for n in range(100, 200)])
    assert [len(batch) for batch in found if not isinstance(batch, int)] == [30, 30, 30, 10]
    assert next(reader.read(ASKED, seconds=30)) == 200
    reader.close()


def test_a_closed_reading_leaves_nothing_open(views: sa.Engine, database_url: str) -> None:
    """After an end in the middle the table can be dropped at once."""
    reader = ExportReader(database_url, batch=10)
    found = reader.read(ASKED, seconds=30)
    next(found)
    next(found)
    found.close()  # type: ignore[attr-defined]
    NUMBERS.drop(views)
    reader.close()


def test_a_reading_ends_in_time(views: sa.Engine, database_url: str) -> None:
    """Beyond its seconds it is ended, between batches and within a statement."""
    now = [0.0]
    reader = ExportReader(database_url, batch=10, clock=lambda: now[0])
    found = reader.read(ASKED, seconds=5)
    next(found)
    next(found)
    now[0] = 6.0
    with pytest.raises(TookTooLong, match="5 seconds"):
        next(found)
    endless = sa.select(sa.literal(1).label("n")).cte(recursive=True)
    endless = endless.union_all(sa.select(endless.c.n + 1))
    long = Statements(ASKED.page, sa.select(sa.func.count()).select_from(endless))
    real = ExportReader(database_url)
    with pytest.raises(TookTooLong):
        next(real.read(long, seconds=0.2))
    assert next(real.read(ASKED, seconds=5)) == 100
    reader.close()
    real.close()
    del views
