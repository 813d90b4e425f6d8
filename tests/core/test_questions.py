"""Questions that a view declares, and grants of questions and figures."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from bus.core.columns import Column
from bus.core.contracts import Kind
from bus.core.grants import Grant, parse_grant_set
from bus.core.problems import Problems
from bus.core.questions import check_questions, read_questions
from bus.core.views import View
from bus.errors import InvalidDeclaration

TITLE = {"zh": "有效吗？", "en": "Is it valid?"}
WHERE = {"field": "until", "op": "gte", "value": {"today": 0}}


def problems_with(doc: Any) -> list[str]:
    """What is wrong with the questions of a view of a licence number and a date."""
    problems = Problems("view")
    view = View("v", {}, "o", "entity", ("number",), questions=read_questions(doc, problems))
    columns = [
        Column("number", Kind.INTEGER, False, {}, "open", False),
        Column("until", Kind.DATE, True, {}, "open", False),
    ]
    check_questions(view, columns, problems)
    return problems.found


def test_a_question_is_read() -> None:
    """Its words, its condition, and what a key without a row is answered."""
    for written, unknown in (("no", False), (None, None), ("null", None), (False, False)):
        (question,) = read_questions({"valid": {"title": TITLE, "where": WHERE, "unknown": written}}, Problems("view"))
        assert (question.name, question.title, question.unknown) == ("valid", TITLE, unknown)
        assert question.where.fields == ("until",)
    assert problems_with({"valid": {"title": TITLE, "where": WHERE}}) == []


@pytest.mark.parametrize(
    ("doc", "problem"),
    [
        ([], "mapping"),
        ({"Valid?": {"title": TITLE, "where": WHERE}}, "not an id"),
        ({"valid": TITLE}, "is not known here"),
        ({"valid": {"title": {"en": "Is it?"}, "where": WHERE}}, "title"),
        ({"valid": {"title": TITLE}}, "needs `where`"),
        ({"valid": {"title": TITLE, "where": {"any": []}}}, "at least one"),
        ({"valid": {"title": TITLE, "where": WHERE, "unknown": "yes"}}, "unknown"),
        ({"valid": {"title": TITLE, "where": {"field": "nosuch", "op": "missing"}}}, "nosuch"),
        ({"valid": {"title": TITLE, "where": {"field": "until", "op": "eq", "value": 1}}}, "until"),
        (
            {"valid": {"title": TITLE, "where": {"field": "number", "op": "eq", "value": {"subject": "n"}}}},
            "each asker",
        ),
    ],
)
def test_what_is_wrong_is_named(doc: Any, problem: str) -> None:
    """Each mistake is one line that says where."""
    found = problems_with(doc)
    assert found
    assert any(problem in text for text in found), found


def grant(**changes: Any) -> Grant:
    doc = {
        "id": "g",
        "consumer": "tax",
        "view": "v",
        "purpose": "levy",
        "channels": ["query"],
        "fields": ["number"],
        "valid": {"from": dt.date(2026, 1, 1), "to": dt.date(2026, 12, 31)},
        "legal_basis": "Act 1",
    } | changes
    kept = {name: value for name, value in doc.items() if value is not ...}
    return parse_grant_set({"author": "li.na", "approver": "wang.wei", "grants": [kept]}).grants[0]


def test_grants_of_less_than_rows() -> None:
    """A grant of questions needs no fields; one of figures withholds those of fewer than five rows, or than it says."""
    asked = grant(channels=["question"], questions=["valid"], fields=..., limits={"per_day": 7})
    assert (asked.fields, asked.questions, asked.limits.per_day) == ((), ("valid",), 7)
    assert (grant(channels=["aggregate"]).least_group, grant().questions) == (5, ())
    assert grant(channels=["aggregate"], aggregates={"k": 11}).least_group == 11


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": ["question"]},
        {"channels": ["question"], "questions": []},
        {"channels": ["question", "lookup"], "questions": ["valid"], "fields": ...},
        {"questions": ["valid"]},
        {"fields": ...},
        {"aggregates": {"k": 5}},
        {"channels": ["aggregate"], "aggregates": {"k": 1}},
        {"channels": ["aggregate"], "aggregates": {"k": True}},
        {"channels": ["aggregate"], "aggregates": {"least": 5}},
        {"channels": ["aggregate"], "aggregates": 5},
        {"channels": ["aggregate"], "fields": ...},
        {"limits": {"per_day": 0}},
    ],
)
def test_grants_that_say_too_little_or_too_much(changes: dict[str, Any]) -> None:
    """Members of another channel, and a `k` that would guard nobody, are refused."""
    with pytest.raises(InvalidDeclaration):
        grant(**changes)
