"""A question about another moment: whether the view can answer it, and the rows that then stand for its table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from bus.access.answers import And, Comparison, Filter, Not, Or
from bus.access.decision import Allow
from bus.errors import BadFilter
from bus.sharing.filters import comparisons
from bus.sharing.permitted import Permitted
from bus.sharing.store import asked_of
from bus.views.catalogue import Shape
from bus.views.derived.history import Moment, rows_at, versions


def refuse_without_history(
    permitted: Permitted, shape: Shape, allow: Allow, shapes: Callable[[], Mapping[str, Shape]]
) -> None:
    """Raises `BadFilter` where the view keeps no history, or one of the columns that the question or the grant's row
    condition names has none, because a look-up brings it."""
    if not permitted.moment:
        return
    if shape.view.kind != "history":
        listed = sorted(name for name, other in shapes().items() if other.view.kind == "history" and other.view.listed)
        raise BadFilter(
            why=f"'{shape.view.name}' shows how things are now. `as_of` and `valid_at` are for views that keep their "
            f"history: {', '.join(listed) or 'there is none yet'}.",
            field="as_of" if permitted.moment.as_of else "valid_at",
        )
    named = [item.column.name for item in permitted.shown]
    named += [item.field for item in comparisons(permitted.filters)]
    named += [item.column.name for item in permitted.figures if item.column is not None]
    if not permitted.figures:  # else the order is of names of the answer
        named += [order.field for order in permitted.order]
    refuse_brought(shape, (*named, *condition_fields(allow.filter)))


def refuse_brought(shape: Shape, names: Iterable[str]) -> None:
    """Raises `BadFilter` for a column of a history view that has no versions of its own."""
    kept = {name for name, _ in versions(shape).fields}
    for name in names:
        if name not in kept:
            why = f"'{name}' is brought over from another view, so it has no history here."
            raise BadFilter(why=f"{why} Name the other columns in `select`.", field=name)


def condition_fields(condition: Filter) -> Iterator[str]:
    """The columns that a grant's row condition names."""
    match condition:
        case Comparison(field=field):
            yield field
        case Not(item=item):
            yield item.field
        case And(items=items) | Or(items=items):
            for inner in items:
                yield from condition_fields(inner)


def table_at(shape: Shape, permitted: Permitted) -> sa.Subquery:
    """The view's rows at the moment of the question. Filters on the key narrow the versions that are looked at; all
    others, and the grant's condition, are of the rows as they were."""
    table, key = versions(shape).table, set(shape.view.key)
    narrowing = [item for item in permitted.filters if {inner.field for inner in comparisons((item,))} <= key]
    return rows_at(shape, permitted.moment, [asked_of(table, item) for item in narrowing])


def as_texts(moment: Moment) -> dict[str, Any]:
    """The moment for the audit log and for explanations; nothing for now."""
    named = {"as_of": moment.as_of, "valid_at": moment.valid_at}
    return {name: at.isoformat().replace("+00:00", "Z") for name, at in named.items() if at is not None}
