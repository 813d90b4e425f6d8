"""What publishers refused, in the governance database: quarantine of origin ``publish``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from bus.contracts.quarantine import Kept, Quarantined, count, put, quarantine_table, recent
from bus.infra.database import create_tables, translated_errors, write

METADATA: Final = sa.MetaData()
QUARANTINE: Final = quarantine_table(METADATA)


class Refusals:
    """Keeps refused rows with their reasons. The same row of the same line is kept once, so that a file
    that is sent again after an interruption does not fill the list."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        create_tables(engine, METADATA)

    def add(self, entries: Sequence[Quarantined]) -> int:
        """Adds what is not there yet; how many were new."""
        with translated_errors(), write(self._engine) as connection:
            new = [entry for entry in entries if not connection.execute(_same(entry)).first()]
            put(connection, QUARANTINE, new)
        return len(new)

    def count(self) -> int:
        with translated_errors(), self._engine.connect() as connection:
            return count(connection, QUARANTINE)

    def recent(self, limit: int = 100) -> list[Kept]:
        """The newest entries, newest first."""
        with translated_errors(), self._engine.connect() as connection:
            return recent(connection, QUARANTINE, limit)


def _same(entry: Quarantined) -> sa.Select[tuple[int]]:
    table = QUARANTINE.c
    return sa.select(table.id).where(
        table.entity == entry.entity,
        table.line.is_not_distinct_from(entry.line),
        table.payload.is_not_distinct_from(entry.payload),
    )
