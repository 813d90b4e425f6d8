"""A question goes on being answered while a rebuild replaces the tables that connections have prepared it for."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa

from bus.infra.database import open_database
from bus.sharing.readers import open_reader
from bus.sharing.store import Statements

PREPARED = 8  # the driver prepares a statement on the server when it comes for the sixth time


def test_a_column_of_another_type_is_read_through_old_connections(database_url: str) -> None:
    """The swap puts a table in place whose column has another type under the same name."""
    engine = open_database(database_url, "views")
    live, beside = (sa.Table(name, sa.MetaData(), sa.Column("a", kind))
                    for name, kind in (("v_x", sa.Integer()), ("v_x+next", sa.Text())))  # fmt: skip
    with engine.begin() as connection:
        live.create(connection)
        beside.create(connection)
        connection.execute(sa.insert(live).values(a=1))
        connection.execute(sa.insert(beside).values(a="one"))
    asked = Statements(sa.select(sa.column("a")).select_from(sa.table("v_x")), sa.select(sa.func.count()))

    async def run() -> list[str | int]:
        reader = open_reader(database_url)
        try:
            before = [(await reader.read(asked, kind="k", rows=1, count=False))[0][0][0] for _ in range(PREPARED)]
            with engine.begin() as connection:
                connection.exec_driver_sql('ALTER TABLE "v_x" RENAME TO "v_x+old"')
                connection.exec_driver_sql('ALTER TABLE "v_x+next" RENAME TO "v_x"')
            after = [(await reader.read(asked, kind="k", rows=1, count=False))[0][0][0] for _ in range(2)]
            return [*before, *after]
        finally:
            await reader.close()

    assert asyncio.run(run()) == [1] * PREPARED + ["one"] * 2
