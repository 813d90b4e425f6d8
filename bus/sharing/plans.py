"""How a question is answered, worked out once: what follows from its form, the decision and the view alone.

A question that is asked again under the same decision is answered by the same statements: what was worked out is kept
by everything that it follows from. Rows, the state of the view, limits and the audit entry are of each answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Final

from bus.access.decision import Allow
from bus.sharing.cursors.pages import START, Paging
from bus.sharing.cursors.store import Page
from bus.sharing.filters import shape_of
from bus.sharing.open_data.small import PURPOSE as OPEN_DATA
from bus.sharing.past import as_texts
from bus.sharing.permitted import Permitted
from bus.sharing.question import Query
from bus.sharing.store import Statements

KEPT: Final = 500
_OFFSET_KIND: Final = 1_000


@dataclass(frozen=True, slots=True)
class Reading:
    """The statements of an answer's rows. ``kind``: equal for questions that differ in their values only; ``page``: as
    cursors turn it, None where there are none."""

    statements: Statements
    kind: Hashable
    page: Page | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How a question is answered. ``reading``: None where no rows are read."""

    permitted: Permitted
    paging: Paging
    reading: Reading | None


class Plans:
    """Keeps the plans of the questions asked last. A decision is known by `Allow.same`: another policy, day or shape of
    the view, and it is another one."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, Query], Plan] = OrderedDict()

    def of(self, query: Query, allow: Allow, make: Callable[[], Plan]) -> Plan:
        """The plan, made where it is not known. Raises what ``make`` raises."""
        if not _lasting(query, allow):
            return make()
        key = (allow.same, query)
        plan = self._kept.get(key)
        if plan is not None:
            self._kept.move_to_end(key)
            return plan
        plan = self._kept[key] = _kept(make())
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return plan


def _kept(plan: Plan) -> Plan:
    if plan.reading is None:
        return plan
    return replace(plan, reading=replace(plan.reading, statements=replace(plan.reading.statements, lasting=True)))


def kind_of(permitted: Permitted) -> tuple[Hashable, ...]:
    """Equal for questions that differ in their values only."""
    pages = permitted.offset // _OFFSET_KIND
    figures = tuple((item.function, item.column and item.column.name) for item in permitted.figures)
    return (permitted.shown and tuple(item.name for item in permitted.answered), figures,
            shape_of(permitted.filters), permitted.order, permitted.limit, pages, permitted.count,
            *as_texts(permitted.moment))  # fmt: skip


def _lasting(query: Query, allow: Allow) -> bool:
    """Whether nothing but the question, the decision and its view goes into the plan, and it may well be asked again:
    what everybody sees depends on other views, as embedded ones do; each cursor is asked with once."""
    once = query.explain or query.moment or query.cursor not in (None, START)
    everybody = allow.open_to_all or allow.purpose == OPEN_DATA
    return not (everybody or query.embedded or query.figures or once)
