"""Open data: figures of few persons are withheld, and nothing can be found out about them by asking."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from bus.access.answers import EVERY_ROW
from bus.access.decision import Allow
from bus.core.columns import Column
from bus.core.conditions import parse_condition
from bus.core.contracts import Kind
from bus.core.grants import Limits
from bus.core.views import Measure, Over, View
from bus.errors import FieldNotFilterable
from bus.sharing.aggregates.few import few
from bus.sharing.aggregates.withholding import few_counted
from bus.sharing.permitted import permit
from bus.sharing.question import parse_query
from bus.sharing.store import Rendering, base, statements
from bus.views.shapes import Shape
from bus.views.tables import row_table

OPEN = parse_condition({"field": "status", "op": "eq", "value": "open"})
MEASURES = (
    Measure("cases", "count", "case"),
    Measure("open_cases", "count", "case", None, OPEN),
    Measure("fees", "sum", "case", "fee"),
    Measure("open_fees", "sum", "case", "fee", OPEN),
    Measure("oldest", "max", "case", "fee", parse_condition({"field": "status", "op": "eq", "value": "old"})),
    Measure("shops", "count", "shop"),
)
VIEW = View(
    "by_ward", {}, "o", "aggregate", ("ward",), over=(Over("case", "case"), Over("shop", "shop")), measures=MEASURES
)


def _column(name: str, *, personal: bool = False) -> Column:
    return Column(name, Kind.INTEGER, True, {}, "open", personal)


BY_WARD = Shape(VIEW, tuple(_column(name) for name in ("ward", *(measure.name for measure in MEASURES))))
SHAPES = {
    "by_ward": BY_WARD,
    "case": Shape(View("case", {}, "o", "entity", ("number",)), (_column("number"), _column("who", personal=True))),
    "shop": Shape(View("shop", {}, "o", "entity", ("number",)), (_column("number"),)),
}


def _allow(*, open_to_all: bool) -> Allow:
    names = tuple(column.name for column in BY_WARD.columns)
    return Allow("by_ward", names, {}, EVERY_ROW, Limits(), ("g",), "d", "1.1", "query", "open_data", "tax",
                 open_to_all=open_to_all)  # fmt: skip


def _answer(question: str, *, open_to_all: bool) -> tuple[list[dict[str, Any]], int | None]:
    """The rows of the wards 1 (many cases) and 2 (few), and how much of them was withheld."""
    table = row_table(BY_WARD)
    engine = sa.create_engine("sqlite://")
    table.metadata.create_all(engine)
    rows = [
        {"ward": 1, "cases": 5, "open_cases": 4, "fees": 500, "open_fees": 400, "oldest": 90, "shops": 1},
        {"ward": 2, "cases": 2, "open_cases": 0, "fees": 200, "open_fees": None, "oldest": 90, "shops": 0},
    ]
    allow = _allow(open_to_all=open_to_all)
    asked = parse_query([tuple(part.split("=", 1)) for part in question.split("&")])  # type: ignore[misc]
    permitted = permit(asked, BY_WARD, allow, dict, few(BY_WARD, allow, SHAPES))
    hidden = {column.name: 0 for column in table.columns if column.name.startswith("_")}
    with engine.begin() as connection:
        for row in rows:
            connection.execute(
                sa.insert(table), {**hidden, **row, **{name: row["ward"] for name in hidden if "_k" in name}}
            )
        found = connection.execute(
            statements(base(table, permitted.shown, allow, Rendering("sqlite", b"")), permitted).page
        )
        answered = [dict(row) for row in found.mappings()]
    return answered, few_counted(permitted.shown, [tuple(row.values()) for row in answered])


def test_figures_of_few_persons_are_withheld() -> None:
    """Counts under five, and sums that are made of as few, or of nobody knows how many; other figures stay."""
    rows, withheld = _answer("order=ward", open_to_all=True)
    assert rows == [
        {"ward": 1, "cases": 5, "open_cases": None, "fees": 500, "open_fees": None, "oldest": None, "shops": 1},
        {"ward": 2, "cases": None, "open_cases": None, "fees": None, "open_fees": None, "oldest": None, "shops": 0},
    ]
    assert withheld == 8


def test_who_was_granted_the_view_sees_all_of_it() -> None:
    """Only what everybody may see is guarded so."""
    rows, withheld = _answer("order=ward&cases=lt.5", open_to_all=False)
    assert (rows[0]["fees"], withheld) == (200, None)


@pytest.mark.parametrize(
    "question", ["cases=eq.2", "order=open_cases", "or=(ward.eq.1,fees.gt.1)", "select=cases.sum()"]
)
def test_what_is_withheld_cannot_be_asked_for(question: str) -> None:
    """Neither a filter, an order nor a figure tells it (A10, A11)."""
    with pytest.raises(FieldNotFilterable):
        _answer(question, open_to_all=True)


def test_a_view_that_is_gone_is_taken_for_one_of_persons() -> None:
    """Where it cannot be known, figures are guarded."""
    assert "shops" in few(BY_WARD, _allow(open_to_all=True), {})


def test_figures_about_figures_of_persons_are_withheld_too() -> None:
    """A sum of counts of cases tells of the cases; one of counts of shops does not."""
    blocks = {
        name: Shape(
            View(f"{name}s_by_block", {}, "o", "aggregate", ("block",), over=(Over(name, name),)), (_column("n"),)
        )
        for name in ("case", "shop")
    }
    over = tuple(Over(shape.view.name, shape.view.name) for shape in blocks.values())
    sums = tuple(Measure(f"of_{one.name}", "sum", one.name, "n") for one in over)
    city = Shape(replace(VIEW, over=over, measures=sums), tuple(_column(measure.name) for measure in sums))
    known = {**SHAPES, **{shape.view.name: shape for shape in blocks.values()}}
    assert few(city, _allow(open_to_all=True), known) == {"of_cases_by_block": ""}
