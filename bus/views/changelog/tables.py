"""The table of a view's changes: `l_<view>`, a row for each key that a transaction touched, as it was after it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from bus.views.catalogue import Shape
from bus.views.tables import LIVE, table_name
from bus.views.values import sql_type

SEQ: Final = "_seq"  # of the view after the transaction
AT: Final = "_at"  # when it was written, in milliseconds of the writer's clock


def log_name(view: str) -> str:
    """The name of a view's log."""
    return table_name(f"l_{view}")


def log_table(shape: Shape) -> sa.Table:
    """The log of a view of that shape: its columns, all of them null but the key where the row has gone (``_live`` is
    false then). The key of an aggregate may have nulls."""
    return _table(log_name(shape.view.name), tuple((c.name, c.kind, c.scale) for c in shape.columns))


@lru_cache(maxsize=500)
def _table(name: str, columns: tuple[tuple[str, Any, int | None], ...]) -> sa.Table:
    table = sa.Table(
        name,
        sa.MetaData(),
        sa.Column(SEQ, sa.BigInteger, nullable=False),
        *(sa.Column(column, sql_type(kind, scale)) for column, kind, scale in columns),
        sa.Column(LIVE, sa.Boolean, nullable=False),
        sa.Column(AT, sa.BigInteger, nullable=False),
    )
    sa.Index(table_name("i", name), table.c[SEQ])
    return table
