"""Which views somebody streams: only these have a log of their changes. In the governance database."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.infra.database import create_tables, translated_errors, write

_METADATA: Final = sa.MetaData()
_STREAMED: Final = sa.Table("streamed_view", _METADATA, sa.Column("view", sa.Text, primary_key=True))


class Streamed:
    """The set of streamed views. Thread-safe; doors write it, workers read it with every tick."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        create_tables(engine, _METADATA)

    def put(self, views: frozenset[str]) -> bool:
        """Replaces the set; whether it is another now. Raises `DatabaseUnavailable`."""
        if self.names() == views:
            return False
        with translated_errors(), write(self._engine) as connection:
            known = _names(connection)
            if gone := known - views:
                connection.execute(sa.delete(_STREAMED).where(_STREAMED.c.view.in_(sorted(gone))))
            if new := views - known:
                connection.execute(sa.insert(_STREAMED), [{"view": name} for name in sorted(new)])
        return True

    def names(self) -> frozenset[str]:
        """The views that are streamed now. Raises `DatabaseUnavailable`."""
        with translated_errors(), self._engine.connect() as connection:
            return _names(connection)


def _names(connection: Connection) -> frozenset[str]:
    return frozenset(connection.execute(sa.select(_STREAMED.c.view)).scalars())
