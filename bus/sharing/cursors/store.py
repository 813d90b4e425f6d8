"""Keyset paging: the rows after a place in an order, each exactly once whatever is null in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from bus.access.masks import shown
from bus.core.contracts import Kind
from bus.core.masks import Mask
from bus.sharing.permitted import Permitted
from bus.sharing.store import Base, Rendering

Condition = sa.ColumnElement[bool]
_HASH: Final = Mask("hash", True)


@dataclass(frozen=True, slots=True)
class Term:
    """One part of an order: what it goes by, which way, and where nulls come."""

    column: sa.ColumnElement[Any]
    descending: bool = False
    nulls_first: bool = False
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Page:
    """A page with one row more than asked for, which tells whether there is another one. ``places``: where in a row
    the values of its order stand; beyond ``width`` they are there for that only."""

    select: sa.Select[Any]
    places: tuple[int, ...]
    width: int

    @property
    def wider(self) -> bool:
        """Whether rows have more than is shown."""
        return any(place >= self.width for place in self.places)


def turned(
    allowed: Base,
    page: sa.Select[Any],
    permitted: Permitted,
    *,
    hidden: Sequence[str],
    after: Sequence[Any] | None,
    rendering: Rendering,
) -> Page:
    """The page of ``permitted`` that begins after a place. ``hidden``: columns of the view's key that may neither be
    shown nor order; their keyed hash breaks ties in their stead, so that the order says nothing about them."""
    table = allowed.table
    terms = [
        Term(table.c[order.field], order.descending, order.nulls_first, getattr(table.c[order.field], "nullable", True))
        for order in permitted.order
    ]
    ties = [_tie(table.c[name], rendering) for name in hidden]
    select = page.order_by(*(term.column for term in ties)) if ties else page
    if after is not None:
        select = select.where(_beyond([*terms, *ties], after))
    seen = {item.column.name: place for place, item in enumerate(permitted.shown) if item.mask is None}
    places, more = list[int](), list[sa.ColumnElement[Any]]()
    for term, name in zip([*terms, *ties], [*(order.field for order in permitted.order), *hidden], strict=True):
        if name in seen:
            places.append(seen[name])
            continue
        places.append(len(permitted.shown) + len(more))
        more.append(term.column.label(f"_place{len(more)}"))
    if more:
        select = select.add_columns(*more)
    return Page(select.limit(permitted.limit + 1), tuple(places), len(permitted.shown))


def untold(page: sa.Select[Any], table: sa.FromClause, hidden: Sequence[str], rendering: Rendering) -> sa.Select[Any]:
    """The rows of ``page``, in the end ordered by the keyed hash of the ``hidden`` columns of the key: without an order
    the database gives rows in that of the key, which tells of it (A10)."""
    return page.order_by(*(_tie(table.c[name], rendering).column for name in hidden))


def _tie(column: sa.ColumnElement[Any], rendering: Rendering) -> Term:
    text = sa.cast(column, sa.Text)
    return Term(shown(text, _HASH, Kind.TEXT, dialect=rendering.dialect, key=rendering.key), nullable=False)


def _beyond(terms: Sequence[Term], place: Sequence[Any]) -> Condition:
    """Rows after the place: beyond it in the first part, or level there and beyond it in the next, and so on."""
    found, level = list[Condition](), list[Condition]()
    for term, value in zip(terms, place, strict=True):
        later = _later(term, value)
        if later is not None:
            found.append(sa.and_(sa.true(), *level, later))
        level.append(term.column.is_(None) if value is None else term.column == _bound(term, value))
    beyond = sa.or_(sa.false(), *found)
    first, value = terms[0], place[0]
    if len(terms) == 1 or first.nullable or value is None:
        return beyond
    # said once more in a form that an index can follow
    bound = _bound(first, value)
    return sa.and_(first.column <= bound if first.descending else first.column >= bound, beyond)


def _later(term: Term, value: Any) -> Condition | None:
    """Rows that come after a value in one part; None where none do."""
    if value is None:
        return term.column.is_not(None) if term.nulls_first else None
    bound = _bound(term, value)
    later: Condition = term.column < bound if term.descending else term.column > bound
    return sa.or_(later, term.column.is_(None)) if term.nullable and not term.nulls_first else later


def _bound(term: Term, value: Any) -> sa.ColumnElement[Any]:
    """The value as a parameter of the column's type."""
    return sa.literal(value, term.column.type)
