"""The portal's "ask as": one question put to the query door as two departments, side by side.

Demonstration only. It goes the way of every question: a short token is issued and verified, the decision,
the masks and the audit entry are those of `/v1/views`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qsl

from bus.core.columns import Column
from bus.core.events import record_key
from bus.errors import BadFilter, BusError
from bus.sharing.query import Answer, Query, parse_query
from bus.web.parts import Parts

LIFETIME_S: Final = 30
MAX_QUESTION: Final = 2_000
ROWS: Final = (5, 10, 25, 50)
HEADERS: Final = {"prefer": "count=exact"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One value; ``kind`` is shown, masked, absent (not granted) or blank."""

    kind: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Side:
    """What one department got: an answer, or the error that refused it."""

    department: str
    purpose: str
    answer: Answer | None = None
    error: BusError | None = None
    columns: Sequence[Column] = field(default=())
    key: Sequence[str] = ()

    @property
    def row_keys(self) -> list[str | None]:
        """Of each row its key as text, to ask further about it; None where a part of it is not shown as it is."""
        places = [place for name in self.key for place, column in enumerate(self.columns) if column.name == name]
        rows = ([row[place] for place in places] for row in self.table)
        whole = len(places) == len(self.key) > 0
        return [
            record_key("" if cell.value is None else cell.value for cell in cells)
            if whole and all(cell.kind in ("shown", "blank") for cell in cells)
            else None
            for cells in rows
        ]

    @property
    def absent(self) -> list[Column]:
        """Columns of the view that the grant leaves out."""
        granted = set(self.answer.decision.columns) if self.answer else set()
        return [column for column in self.columns if column.name not in granted]

    @property
    def masked(self) -> list[Column]:
        """Columns that were shown in part."""
        masks = self.answer.decision.masks if self.answer else {}
        return [column for column in self.columns if column.name in masks]

    @property
    def table(self) -> list[list[Cell]]:
        """The rows with a cell for every column of ``columns``, so that two sides line up."""
        if self.answer is None:
            return []
        places = {shown.name: place for place, shown in enumerate(self.answer.shown)}
        masks = self.answer.decision.masks
        return [[_cell(column.name, row, places, masks) for column in self.columns] for row in self.answer.rows]


def _cell(name: str, row: Sequence[Any], places: dict[str, int], masks: Any) -> Cell:
    if name not in places:
        return Cell("absent")
    value = row[places[name]]
    if value is None:
        return Cell("blank")
    return Cell("masked" if name in masks else "shown", value)


def aligned(sides: Sequence[Side], key: Sequence[str]) -> list[Side]:
    """The sides with their columns in one order: the key, then what one side is denied or shown in part, then the
    rest, so that differences are seen first."""
    special = {column.name for side in sides if side.answer for column in (*side.masked, *side.absent)}

    def place(column: Column) -> int:
        return 0 if column.name in key else 1 if column.name in special else 2

    return [replace(side, columns=sorted(side.columns, key=place)) for side in sides]


def question(text: str, rows: int) -> Query:
    """The question in the address form ``ward=eq.20&order=ward.desc``, of at most ``rows`` rows.

    Raises what `parse_query` raises.
    """
    if len(text) > MAX_QUESTION:
        raise BadFilter(why=f"the question is longer than {MAX_QUESTION} characters.")
    try:
        params = parse_qsl(text.strip().lstrip("?"), keep_blank_values=True, strict_parsing=bool(text.strip()))
    except ValueError as error:
        raise BadFilter(why="the question is written as in an address: ward=eq.20&order=ward.desc.") from error
    params = [(name.strip(), value.strip()) for name, value in params if name not in ("limit", "explain")]
    return parse_query([*params, ("limit", str(rows))], HEADERS)


async def ask(parts: Parts, *, department: str, purpose: str, view: str, text: str, rows: int, request_id: str) -> Side:
    """One side: a token for the department, then the door. Errors are what it got, not what went wrong here."""
    if parts.issuer is None:
        raise TypeError("only a demonstration can ask as a department")
    try:
        token = parts.issuer.token(department, lifetime_s=LIFETIME_S)
        subject = parts.verifier.subject(f"Bearer {token}")
        answer = await parts.door.answer(
            subject, view, lambda: question(text, rows), purpose or None, request_id=request_id
        )
    except BusError as error:
        return Side(department, purpose, error=error)
    key = parts.shapes()[view].view.key
    return Side(department, purpose, answer=answer, columns=_columns(parts, view, answer), key=key)


def _columns(parts: Parts, view: str, answer: Answer) -> list[Column]:
    """The view's columns, or the chosen ones where the question chose."""
    columns = {column.name: column for column in parts.shapes()[view].columns}
    if len(answer.shown) < len(answer.decision.columns):
        return [
            columns.get(shown.column.name, shown.column) for shown in answer.shown if shown.name == shown.column.name
        ]
    return list(columns.values())
