"""Which figures of an aggregate view are about persons, and which column says of how many of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bus.core.grants import LEAST_GROUP
from bus.core.views import Measure, View
from bus.views.catalogue import Shape

LEAST: Final = LEAST_GROUP


def measures_of_persons(view: View, shapes: Mapping[str, Shape]) -> list[tuple[int, Measure]]:
    """The figures about persons, each with its place among all figures of the view."""
    persons = {over.name for over in view.over if about_persons(over.view, shapes)}
    return [(place, measure) for place, measure in enumerate(view.measures) if measure.over in persons]


def about_persons(view: str, shapes: Mapping[str, Shape], seen: frozenset[str] = frozenset()) -> bool:
    """Whether the rows of a view are of persons, or figures about such rows. A view that is not there counts as one."""
    shape = shapes.get(view)
    if shape is None or view in seen:
        return True
    if any(column.personal for column in shape.columns):
        return True
    return any(about_persons(over.view, shapes, seen | {view}) for over in shape.view.over)


def counted_by(measure: Measure, view: View) -> str | None:
    """The figure that says of how many rows this one is, or of how many at least (different values are of as many rows
    or more): itself, or a count of the same rows; None where the view has none."""
    if measure.function in ("count", "distinct"):
        return measure.name
    same = (one.name for one in view.measures if one.function == "count" and _rows(one) == _rows(measure))
    return next(same, None)


def _rows(measure: Measure) -> tuple[object, ...]:
    return measure.over, measure.where and measure.where.clauses
