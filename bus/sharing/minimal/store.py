"""The SELECT of a declared question: whether its condition holds for the one row that may be asked about."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from bus.access.decision import Allow
from bus.access.filters import where
from bus.core.conditions import check
from bus.core.views import Question
from bus.views.catalogue import Shape
from bus.views.derived.contributions import condition
from bus.views.tables import live_rows, row_table


def held(shape: Shape, question: Question, allow: Allow, key: Mapping[str, Any], today: dt.date) -> sa.Select[Any]:
    """1 or 0; no row where there is none with that key within the grant's rows. ``today``: the day in UTC."""
    table = row_table(shape)
    clauses = check(question.where, shape.kinds, today).clauses
    holds = sa.case((condition(clauses, dict(table.c.items())), 1), else_=0)
    exactly = (table.c[name] == value for name, value in key.items())
    return sa.select(holds).where(sa.true(), live_rows(table), where(allow, table), *exactly).limit(1)
