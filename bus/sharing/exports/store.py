"""The statements of an export: its rows without end, and how many they are, counted no further than needed."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from bus.sharing.permitted import Permitted
from bus.sharing.store import Base, Statements, asked_of, statements


def exported(allowed: Base, permitted: Permitted) -> Statements:
    """The rows of ``permitted``, and their number, counted to its limit and no further."""
    asked = [asked_of(allowed.table, item) for item in permitted.filters]
    some = sa.select(sa.literal(1).label("one")).select_from(allowed.table).where(allowed.visible, *asked)
    counted = some.limit(permitted.limit).offset(permitted.offset or None).subquery()
    return replace(statements(allowed, permitted), total=sa.select(sa.func.count()).select_from(counted))
