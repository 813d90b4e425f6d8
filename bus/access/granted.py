"""What one grant comes to on the columns that a view has now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bus.core.columns import Column
from bus.core.grants import PUBLIC, Grant
from bus.core.guards import is_open
from bus.core.masks import Mask, check_mask
from bus.core.views import View
from bus.errors import BadFilter, PolicyError


class Shape(Protocol):
    """A view with its columns."""

    @property
    def view(self) -> View: ...
    @property
    def columns(self) -> Sequence[Column]: ...


def may_show(grant: Grant, column: Column) -> bool:
    """Whether the grant shows the column: to everybody only while it is open (a declassification may have ended)."""
    return column.name in grant.fields and (grant.consumer != PUBLIC or is_open(column))


def least_group(grant: Grant, shape: Shape) -> int | None:
    """None where the consumer may page through the rows: their counts tell nothing more. What everybody may page
    through is withheld all the same where the rows are of persons."""
    of_persons = grant.consumer == PUBLIC and any(column.personal for column in shape.columns)
    return None if "query" in grant.channels and not of_persons else grant.least_group


def may_ask(grant: Grant, shape: Shape, name: str) -> bool:
    """Whether the view declares the question; to everybody it answers from open fields only."""
    question = shape.view.question(name)
    if question is None or grant.consumer != PUBLIC:
        return question is not None
    return all(is_open(column) for column in shape.columns if column.name in question.where.fields)


def tells_too_much(grant: Grant, shape: Shape) -> bool:
    """Whether everybody would learn what is not open from which rows there are."""
    if grant.consumer != PUBLIC:
        return False
    return any(column.name in grant.rows.fields and not is_open(column) for column in shape.columns)


def masks(grant: Grant, columns: Sequence[Column]) -> dict[str, Mask]:
    """The masks of the shown columns. Raises `PolicyError` where one does not fit its column (any more)."""
    found = {column.name: grant.masks[column.name] for column in columns if column.name in grant.masks}
    try:
        for column in columns:
            if column.name in found:
                check_mask(found[column.name], column.name, column.kind)
    except BadFilter as error:
        raise PolicyError() from error
    return found
