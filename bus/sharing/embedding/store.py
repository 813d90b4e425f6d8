"""The SELECT of the rows of a related view that belong to some rows of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from bus.sharing.permitted import Permitted
from bus.sharing.store import Base, asked_of, ordering


def related(
    allowed: Base,
    permitted: Permitted,
    *,
    to: Sequence[str],
    keys: Sequence[tuple[Any, ...]],
    each: int | None,
    most: int,
) -> sa.Select[Any]:
    """At most ``most`` rows whose columns ``to`` are one of ``keys``; of each of these at most ``each`` (None: all),
    the first in the order asked for."""
    table, columns = allowed.table, [allowed.table.c[name] for name in to]
    among = columns[0].in_([key[0] for key in keys]) if len(columns) == 1 else sa.tuple_(*columns).in_(keys)
    order = [ordering(table, item) for item in permitted.order]
    page = allowed.page.where(among, *(asked_of(table, item) for item in permitted.filters))
    if each is None:
        return page.order_by(*order).limit(most)
    place = sa.func.row_number().over(partition_by=columns, order_by=order or columns).label("_place")
    placed = page.add_columns(place).subquery()
    shown = [column for column in placed.c if column.key != "_place"]
    return sa.select(*shown).where(placed.c["_place"] <= each).order_by(placed.c["_place"]).limit(most)
