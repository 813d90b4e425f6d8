"""The quarantine table on both databases."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from bus.contracts.quarantine import Quarantined, as_json, count, from_json, put, quarantine_table, recent
from bus.infra.database import create_tables, open_database, write

REASONS = [{"field": "ward", "expected": "at least 0", "received": "-1"}]
ROW = Quarantined("publish", "a.b", REASONS, line=7, key="k|1", payload=b"{}")
EVENT = Quarantined("topic", "a.b", REASONS, topic="dept.a.b", partition=3, offset=2**40, key=None, payload=b"\x00\xff")


@pytest.fixture
def table() -> sa.Table:
    return quarantine_table(sa.MetaData())


@pytest.fixture
def engine(database_url: str, table: sa.Table) -> sa.Engine:
    engine = open_database(database_url, "views", durable=False)
    create_tables(engine, table.metadata)
    return engine


def test_entries_come_back_as_they_were(engine: sa.Engine, table: sa.Table) -> None:
    """Newest first, bytes and all."""
    with write(engine) as connection:
        put(connection, table, [ROW, EVENT])
        put(connection, table, [])
    with engine.connect() as connection:
        assert [kept.entry for kept in recent(connection, table)] == [EVENT, ROW]
        assert [kept.entry for kept in recent(connection, table, 1)] == [EVENT]


def test_an_event_is_kept_once(engine: sa.Engine, table: sa.Table) -> None:
    """A batch applied again after a crash quarantines the same event, which is then there already;
    rows of origin publish have no place of their own and are all kept."""
    for _ in range(2):
        with write(engine) as connection:
            put(connection, table, [EVENT, ROW])
    with engine.connect() as connection:
        assert count(connection, table) == 3


def test_a_key_that_postgresql_cannot_hold(engine: sa.Engine, table: sa.Table) -> None:
    """U+0000 in a key is shown as its symbol, so that poison cannot block the quarantine itself."""
    with write(engine) as connection:
        put(connection, table, [Quarantined("topic", "a.b", [], "t", 0, 1, key="a\x00b", payload=b"\x00")])
    with engine.connect() as connection:
        assert recent(connection, table)[0].entry.key == "a␀b"


@pytest.mark.parametrize("entry", [ROW, EVENT])
def test_entries_travel_as_json(entry: Quarantined) -> None:
    """A publisher hands its entries over HTTP."""
    assert from_json(as_json(entry)) == entry


@pytest.mark.parametrize(
    "change",
    [
        *({"line": line} for line in ("7", 2**63, -1, True)),
        *({"reasons": reasons} for reasons in ("late", ["late"])),
        *({"payload": payload} for payload in ("zz", 1)),
        {"key": 5},
        {"topic": []},
        {"entity": None},
        {"entity": "a.b\x00"},
        {"other": 1},
    ],
)
def test_what_is_no_entry_is_refused(change: dict[str, object]) -> None:
    """Whoever hands over entries cannot make the database refuse them later."""
    with pytest.raises((TypeError, ValueError)):
        from_json({**as_json(ROW), **change})
