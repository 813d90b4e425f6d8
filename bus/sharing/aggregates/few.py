"""Figures of an aggregate view that everybody may see: those of few persons are withheld.

A measure over a view of persons (one with a personal column) is shown where it counts at least five of them. A sum, a
smallest or a largest value says nothing of how many it is made of: it goes by the count of the same rows, if the view
has one, and is withheld if not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bus.access.decision import Allow
from bus.sharing.aggregates.persons import LEAST, counted_by, measures_of_persons
from bus.views.catalogue import Shape

__all__ = ["LEAST", "NONE", "few"]
NONE: Final[Mapping[str, str]] = {}


def few(shape: Shape, allow: Allow, shapes: Mapping[str, Shape]) -> Mapping[str, str]:
    """Of each column that may be withheld the column that counts its rows; empty text where there is none."""
    if not allow.open_to_all or shape.view.kind != "aggregate":
        return NONE
    return {
        measure.name: counted_by(measure, shape.view) or "" for _, measure in measures_of_persons(shape.view, shapes)
    }
