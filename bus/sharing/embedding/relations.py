"""Which views are related: as declared, and in no other way.

A view's ``lookups`` name its columns that hold the key of another view; an aggregate's ``join`` names the column of a
view that it counts which holds the key of the view that it joins. Each relates two views in both directions: to the one
row with that key, and back to the many rows that name it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bus.core.views import View
from bus.errors import BadFilter
from bus.sharing.question import Embedded
from bus.views.catalogue import Shape


@dataclass(frozen=True, slots=True)
class Relation:
    """``by``: columns of ``view`` that equal the columns ``to`` of ``other``. ``many``: the other has any number of
    rows for one of this."""

    view: str
    by: tuple[str, ...]
    other: str
    to: tuple[str, ...]
    many: bool

    def turned(self) -> Relation:
        """The same from the other side."""
        return Relation(self.other, self.to, self.view, self.by, not self.many)


def declared(views: Mapping[str, View]) -> set[Relation]:
    """Every relation between these views, from either side."""
    found = {relation for view in views.values() for relation in _to_one(view, views)}
    return found | {relation.turned() for relation in found}


def _to_one(view: View, views: Mapping[str, View]) -> Iterator[Relation]:
    for lookup in view.lookups:
        if lookup.view in views:
            yield Relation(view.name, lookup.by, lookup.view, views[lookup.view].key, many=False)
    for over in view.over:
        if over.join is not None and over.view in views and over.join.view in views:
            yield Relation(over.view, (over.join.local,), over.join.view, (over.join.foreign,), many=False)


def relation(view: View, asked: Embedded, shapes: Mapping[str, Shape]) -> Relation:
    """The relation that an embedding means. Raises `BadFilter` where there is none, or more than one."""
    views = {name: shape.view for name, shape in shapes.items()}
    own = [item for item in declared(views) if item.view == view.name]
    found = [item for item in own if item.other == asked.view and asked.by in (None, *item.by, *item.to)]
    if not found:
        raise unrelated(view, asked, shapes)
    if len(found) > 1:
        ways = ", ".join(sorted(f"{asked.view}!{item.by[0]}" for item in found))
        why = f"'{view.name}' and '{asked.view}' are related in several ways: say {ways}."
        raise BadFilter(why=why, field="select")
    return found[0]


def unrelated(view: View, asked: Embedded, shapes: Mapping[str, Shape]) -> BadFilter:
    """The error for a view that cannot be embedded; it names those that can and may be known of."""
    views = {name: shape.view for name, shape in shapes.items()}
    others = sorted({item.other for item in declared(views) if item.view == view.name and views[item.other].listed})
    known = f"related are {', '.join(others)}" if others else "no view is related to it"
    return BadFilter(why=f"'{asked.view}' is not declared as related to '{view.name}': {known}.", field="select")
