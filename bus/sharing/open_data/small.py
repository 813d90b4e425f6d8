"""Which figures of an aggregate view are about persons, and so are withheld where they are of fewer than five.

They are withheld before anything is filtered or ordered by them, so that no question tells what no answer shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bus.core.views import Measure, View
from bus.sharing.aggregates.persons import LEAST, counted_by, measures_of_persons
from bus.sharing.permitted import Shown
from bus.views.catalogue import Shape

__all__ = ["LEAST", "PURPOSE", "Guards", "guards_of", "withheld"]
PURPOSE: Final = "open_data"
Guards = tuple[tuple[str, str | None], ...]
"""Columns that are withheld, each with the column of the table that counts what it is made of; None: nothing does."""


def guards_of(shape: Shape, shapes: Callable[[], Mapping[str, Shape]]) -> Guards:
    """The figures of a view that are about persons."""
    view = shape.view
    if view.kind != "aggregate":
        return ()
    return tuple(
        (measure.name, _count_of(view, place, measure)) for place, measure in measures_of_persons(view, shapes())
    )


def _count_of(view: View, place: int, measure: Measure) -> str | None:
    """The table's own column; a sum keeps the number of its values (`bus.views.groups`)."""
    return f"_n{place}" if measure.function == "sum" else counted_by(measure, view)


def withheld(shown: Sequence[Shown], rows: Sequence[Sequence[Any]], guards: Guards) -> int:
    """How many figures of an answer are withheld: a guarded figure is null for no other reason but that there is
    nothing to make it of, which is less than five."""
    guarded = {name for name, _ in guards}
    places = [place for place, item in enumerate(shown) if item.column.name in guarded]
    return sum(row[place] is None for row in rows for place in places)
