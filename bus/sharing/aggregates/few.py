"""Figures of an aggregate view that everybody may see: those of few persons are withheld.

A measure over a view of persons (one with a personal column) is shown where it counts at least five of them. A sum, a
smallest or a largest value says nothing of how many it is made of: it goes by the count of the same rows, if the view
has one, and is withheld if not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bus.access.decision import Allow
from bus.core.grants import LEAST_GROUP
from bus.core.views import Measure, View
from bus.views.catalogue import Shape

LEAST: Final = LEAST_GROUP
NONE: Final[Mapping[str, str]] = {}


def few(shape: Shape, allow: Allow, shapes: Mapping[str, Shape]) -> Mapping[str, str]:
    """Of each column that may be withheld the column that counts its rows; empty text where there is none."""
    if not allow.open_to_all or shape.view.kind != "aggregate":
        return NONE
    persons = {over.name for over in shape.view.over if _of_persons(over.view, shapes)}
    return {measure.name: _count_of(measure, shape.view) for measure in shape.view.measures if measure.over in persons}


def _of_persons(view: str, shapes: Mapping[str, Shape]) -> bool:
    """Whether the rows of a view are of persons; one that is not there any more is taken for such."""
    return view not in shapes or any(column.personal for column in shapes[view].columns)


def _count_of(measure: Measure, view: View) -> str:
    """The count of the rows that a measure is made of."""
    if measure.function in ("count", "distinct"):
        return measure.name
    same = (one.name for one in view.measures if one.function == "count" and _rows(one) == _rows(measure))
    return next(same, "")


def _rows(measure: Measure) -> tuple[object, ...]:
    return measure.over, measure.where and measure.where.clauses
