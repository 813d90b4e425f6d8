"""A read over a connection held open sees every commit before it, and fails as the database does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from bus.errors import DatabaseUnavailable
from bus.infra.database import open_database, write
from bus.infra.held import HeldRead

TABLE = sa.Table("numbers", sa.MetaData(), sa.Column("n", sa.Integer))


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[sa.Engine]:
    engine = open_database(sqlite_url, "governance")
    TABLE.create(engine)
    yield engine
    engine.dispose()


def test_each_read_sees_what_was_committed_before_it(engine: sa.Engine) -> None:
    """By any connection, and nothing that is not committed yet; it holds up no writer."""
    held = HeldRead(engine, sa.select(TABLE.c.n).order_by(TABLE.c.n))
    for number in range(3):
        with write(engine) as connection:
            connection.execute(TABLE.insert().values(n=number))
            assert held.rows() == [(before,) for before in range(number)]
        assert held.rows() == [(before,) for before in range(number + 1)]
    held.close()
    assert len(held.rows()) == 3
    held.close()


def test_a_database_that_fails_is_unavailable_and_may_come_back(engine: sa.Engine) -> None:
    """Never an old answer."""
    held = HeldRead(engine, sa.select(TABLE.c.n))
    assert held.rows() == []
    TABLE.drop(engine)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            held.rows()
    TABLE.create(engine)
    assert held.rows() == []
    held.close()
