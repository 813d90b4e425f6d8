"""Which figures of an aggregate view are about persons, and so are withheld where they are of fewer than five.

They are withheld before anything is filtered or ordered by them, so that no question tells what no answer shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bus.core.grants import LEAST_GROUP
from bus.core.views import Measure, View
from bus.sharing.permitted import Shown
from bus.views.catalogue import Shape

PURPOSE: Final = "open_data"
LEAST: Final = LEAST_GROUP
Guards = tuple[tuple[str, str | None], ...]
"""Columns that are withheld, each with the column of the table that counts what it is made of; None: nothing does."""


def guards_of(shape: Shape, shapes: Callable[[], Mapping[str, Shape]]) -> Guards:
    """The figures of a view that are about persons."""
    view = shape.view
    if view.kind != "aggregate":
        return ()
    known = shapes()
    persons = {over.name for over in view.over if about_persons(over.view, known)}
    return tuple(
        (measure.name, _count_of(view, place, measure))
        for place, measure in enumerate(view.measures)
        if measure.over in persons
    )


def about_persons(view: str, shapes: Mapping[str, Shape], seen: frozenset[str] = frozenset()) -> bool:
    """Whether the rows of a view are of persons, or figures about such rows. A view that is not there counts as one."""
    shape = shapes.get(view)
    if shape is None or view in seen:
        return True
    if any(column.personal for column in shape.columns):
        return True
    return any(about_persons(over.view, shapes, seen | {view}) for over in shape.view.over)


def _count_of(view: View, place: int, measure: Measure) -> str | None:
    """The column that says of how many rows a figure is, or more: a count of different values is of as many rows at
    least, a sum keeps the number of its values (`bus.views.groups`), others need a count over the same rows."""
    if measure.function in ("count", "distinct"):
        return measure.name
    if measure.function == "sum":
        return f"_n{place}"
    same = (
        other.name
        for other in view.measures
        if other.function == "count" and other.over == measure.over and other.where == measure.where
    )
    return next(same, None)


def withheld(shown: Sequence[Shown], rows: Sequence[Sequence[Any]], guards: Guards) -> int:
    """How many figures of an answer are withheld: a guarded figure is null for no other reason but that there is
    nothing to make it of, which is less than five."""
    guarded = {name for name, _ in guards}
    places = [place for place, item in enumerate(shown) if item.column.name in guarded]
    return sum(row[place] is None for row in rows for place in places)
