"""What a declassification must say before it is signed."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from bus.core.columns import Column, Influence
from bus.core.contracts import Kind
from bus.core.declassifications import check_declassification, parse_declassification
from bus.core.problems import Problems
from bus.errors import FourEyes, InvalidDeclaration

TODAY = dt.date(2026, 5, 1)
DOC: dict[str, Any] = {
    "view": "business",
    "field": "name",
    "source": "market.licence.name",
    "from": "conditional",
    "to": "open",
    "legal_basis": "Open Government Information Regulation, Article 13",
    "officer": "zhao.min@market",
    "approver": "wang.wei@governance",
    "valid_until": "2026-12-31",
}
MADE = (Influence("market.licence", "name", "market", "conditional", True, "value"),)
COLUMNS = {"name": Column("name", Kind.TEXT, True, {}, "conditional", True, made_of=MADE)}


def found(**changes: Any) -> list[str]:
    """The problems with the document after the changes, against the view."""
    problems = Problems("x")
    try:
        check_declassification(parse_declassification({**DOC, **changes}), COLUMNS, TODAY, problems)
    except InvalidDeclaration as refused:
        return list(refused.members["problems"])
    return problems.found


def test_a_sound_one() -> None:
    """It comes back as it was written, dates as dates or text."""
    assert found() == found(valid_until=dt.date(2026, 12, 31)) == []
    assert parse_declassification(DOC).document() == DOC


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"view": None}, "view: is needed"),
        ({"legal_basis": "  "}, "legal_basis: is needed"),
        ({"from": "secret"}, "from: 'secret' is not one of open"),
        ({"officer": "zhao.min"}, "officer: 'zhao.min' is not `name@department`"),
        ({"officer": "zhao.min@"}, "officer: 'zhao.min@' is not `name@department`"),
        ({"officer": "zhao.min@food"}, "is not of market, which owns market.licence.name"),
        ({"approver": "wang.wei@market"}, "approver: 'wang.wei@market' is not of governance"),
        ({"valid_until": "soon"}, "valid_until: 'soon' is not a date"),
        ({"valid_until": "2026-04-30"}, "valid_until: 2026-04-30 is over"),
        ({"valid_until": "2027-06-01"}, "for a year at most"),
        ({"field": "nam"}, "has no field 'nam'. Did you mean 'name'?"),
        ({"source": "food.inspection.name"}, "is not made of 'food.inspection.name'"),
        ({"from": "restricted"}, "is conditional, not restricted"),
        ({"to": "conditional"}, "conditional is not more open than conditional"),
        ({"to": "restricted"}, "restricted is not more open"),
        ({"legal_bases": "x"}, "Did you mean 'legal_basis'?"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_refused(changes: dict[str, Any], problem: str) -> None:
    """Each mistake is named; nothing is signed then."""
    assert any(problem in text for text in found(**changes)), found(**changes)


def test_two_people() -> None:
    """However the name is written, one person does not do for both."""
    for officer in (" Wang.Wei @market", "wang.wei@market", "ｗang.wei@market"):
        with pytest.raises(FourEyes, match="approve"):
            found(officer=officer)


def test_a_view_that_is_not_there() -> None:
    """It must be declared first, as guarded as it is."""
    problems = Problems("x")
    check_declassification(parse_declassification(DOC), None, TODAY, problems)
    assert "without `class`" in problems.found[0]
