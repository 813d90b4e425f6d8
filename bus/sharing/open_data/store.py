"""A view's table as everybody may see it: small figures about persons are null from the start."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from bus.sharing.open_data.small import LEAST, Guards


def guarded_table(table: sa.Table, guards: Guards) -> sa.Subquery:
    """The table with each guarded figure null unless it is of enough."""
    counts = dict(guards)
    columns = [_guarded(table, column, counts) if column.name in counts else column for column in table.columns]
    return sa.select(*columns).subquery(table.name)


def _guarded(table: sa.Table, column: sa.Column[Any], counts: dict[str, str | None]) -> sa.Label[Any]:
    count = counts[column.name]
    enough = sa.false() if count is None else table.c[count] >= LEAST
    return sa.case((enough, column), else_=sa.null()).label(column.name)
