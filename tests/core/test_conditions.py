"""Row conditions: what people write, its normal form, and what matches."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.core.conditions import (
    ALL_ROWS,
    EVERY_ROW,
    NO_ROW,
    OPERATORS,
    Atom,
    SubjectAttribute,
    Today,
    check,
    matches,
    parse_condition,
    resolve,
)
from bus.core.contracts import Kind
from bus.errors import BadFilter, ConditionTooWide

KINDS = {"ward": Kind.INTEGER, "name": Kind.TEXT, "since": Kind.DATE, "seen": Kind.TIMESTAMP, "open": Kind.BOOLEAN}
Row = dict[str, Any]


def eq(field: str, value: Any) -> dict[str, Any]:
    return {"field": field, "op": "eq", "value": value}


WRITTEN = st.recursive(
    st.builds(
        lambda field, op, value: {"field": field, "op": op, "value": [value, 2] if op == "in" else value},
        st.sampled_from("ab"),
        st.sampled_from(["eq", "ne", "lt", "lte", "gt", "gte", "in"]),
        st.integers(0, 3),
    )
    | st.sampled_from([{"field": "a", "op": "missing"}, {"field": "b", "op": "missing"}]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda items: {"all": items})
        | st.lists(inner, min_size=1, max_size=3).map(lambda items: {"any": items})
        | inner.map(lambda item: {"not": item})
    ),
    max_leaves=6,
)


def as_written(doc: dict[str, Any], row: Row, *, negated: bool = False) -> bool:
    """The meaning of a written condition, without a normal form: a comparison with null is false either way."""
    if "not" in doc:
        return as_written(doc["not"], row, negated=not negated)
    if "all" in doc or "any" in doc:
        parts = [as_written(item, row, negated=negated) for item in doc.get("all") or doc["any"]]
        return all(parts) if ("all" in doc) is not negated else any(parts)
    value = row[doc["field"]]
    if doc["op"] == "missing":
        return (value is None) is not negated
    if value is None:
        return False
    other = doc["value"]
    held = {
        "eq": lambda: value == other,
        "ne": lambda: value != other,
        "lt": lambda: value < other,
        "lte": lambda: value <= other,
        "gt": lambda: value > other,
        "gte": lambda: value >= other,
        "in": lambda: value in other,
    }[doc["op"]]()
    return bool(held) is not negated


@given(WRITTEN, st.fixed_dictionaries({"a": st.none() | st.integers(0, 3), "b": st.none() | st.integers(0, 3)}))
def test_the_normal_form_means_what_was_written(doc: dict[str, Any], row: Row) -> None:
    """However nested and negated, the or of ands matches the same rows."""
    try:
        clauses = parse_condition(doc).clauses
    except ConditionTooWide:
        return
    assert matches(clauses, row) is as_written(doc, row)


@given(WRITTEN)
def test_no_atom_is_negated_from_outside(doc: dict[str, Any]) -> None:
    """The normal form has only operators that every evaluator knows."""
    try:
        clauses = parse_condition(doc).clauses
    except ConditionTooWide:
        return
    assert {atom.op for clause in clauses for atom in clause} <= set(OPERATORS)
    assert all(clauses)


def test_no_condition_is_every_row_and_no_clause_is_none() -> None:
    """The two ends that must never be mistaken for each other."""
    assert parse_condition(None) == ALL_ROWS
    assert matches(EVERY_ROW, {})
    assert not matches(NO_ROW, {})


def test_any_of_equals_becomes_in() -> None:
    """Many alternatives on one field stay one clause."""
    doc = {"any": [eq("ward", 1), eq("ward", 2), {"field": "ward", "op": "in", "value": [2, 3]}]}
    assert parse_condition(doc).clauses == ((Atom("ward", "in", (1, 2, 3)),),)
    assert parse_condition({"any": [eq("ward", 1), eq("ward", 1)]}).clauses == ((Atom("ward", "eq", 1),),)


def test_wide_conditions_are_refused_with_the_way_out() -> None:
    """100 clauses are taken, 101 are not; a product of alternatives is counted before it is built (K7)."""
    parts = [{"field": "ward", "op": "lt", "value": n} for n in range(100)]
    assert len(parse_condition({"any": parts}).clauses) == 100
    with pytest.raises(ConditionTooWide, match="`in`"):
        parse_condition({"any": [*parts, {"field": "ward", "op": "lt", "value": 100}]})
    three = {"any": [{"field": "ward", "op": "lt", "value": n} for n in range(3)]}
    with pytest.raises(ConditionTooWide):
        parse_condition({"all": [three] * 8})
    with pytest.raises(ConditionTooWide):
        parse_condition({"all": [three] * 500})


@pytest.mark.parametrize(
    "doc",
    [
        [],
        "ward = 1",
        {},
        {"all": []},
        {"any": []},
        {"all": {}},
        {"not": []},
        {"not": None},
        {"all": [eq("ward", 1)], "any": [eq("ward", 1)]},
        {"field": "ward", "op": "eq"},
        {"field": "ward", "op": "eq", "value": None},
        {"field": "ward", "op": "eq", "value": [1]},
        {"field": "ward", "op": "in", "value": []},
        {"field": "ward", "op": "in", "value": 1},
        {"field": "ward", "op": "in", "value": [1, None]},
        {"field": "ward", "op": "in", "value": list(range(1_001))},
        {"field": "ward", "op": "missing", "value": 1},
        {"field": "ward", "op": "equals", "value": 1},
        {"field": "Ward; --", "op": "eq", "value": 1},
        {"field": "ward", "op": "eq", "value": 1, "or": 2},
        {"field": "ward", "op": "eq", "value": {"subject": "../x"}},
        {"field": "ward", "op": "eq", "value": {"subject": "ward", "x": 1}},
        {"field": "ward", "op": "eq", "value": float("nan")},
        {"field": "ward", "op": "eq", "value": float("inf")},
        {"op": "eq", "value": 1},
    ],
)
def test_what_is_not_a_condition_is_refused(doc: Any) -> None:
    """An empty list, a null, an unknown operator or member is never read as "every row"."""
    with pytest.raises(BadFilter):
        parse_condition(doc)


def test_conditions_nest_twenty_deep() -> None:
    """And no deeper."""
    doc: dict[str, Any] = eq("ward", 1)
    for _ in range(20):
        doc = {"not": doc}
    assert parse_condition(doc).clauses == ((Atom("ward", "eq", 1),),)
    with pytest.raises(BadFilter):
        parse_condition({"not": doc})


@pytest.mark.parametrize("op", [op for op in OPERATORS if op not in ("missing", "present")])
def test_a_missing_value_matches_no_comparison(op: str) -> None:
    """Neither a comparison nor its negation."""
    value: Any = ("a",) if op in ("in", "not_in") else "a"
    assert not matches(((Atom("name", op, value),),), {"name": None})
    assert not matches(((Atom("name", op, value),),), {})


def test_text_is_ordered_by_bytes() -> None:
    """As OPA, BINARY and COLLATE "C" do: capitals first, and beyond the BMP after U+FFFD."""
    assert matches(((Atom("name", "lt", "a"),),), {"name": "Z"})
    assert matches(((Atom("name", "gt", "\uffff"),),), {"name": "\U00010000"})


def test_prefix_is_literal_and_by_case() -> None:
    """No character of a prefix has a meaning of its own."""
    clauses = ((Atom("name", "prefix", "a%"),),)
    assert matches(clauses, {"name": "a%b"})
    assert not matches(clauses, {"name": "axb"})
    assert not matches(clauses, {"name": "A%b"})


def test_values_take_the_type_of_their_field() -> None:
    """Text of a file becomes dates and instants, which compare as such."""
    doc = {"all": [eq("since", "2026-01-02"), eq("seen", "2026-01-02T08:00:00+08:00")]}
    ((since, seen),) = check(parse_condition(doc), KINDS).clauses
    assert since.value == dt.date(2026, 1, 2)
    assert seen.value == dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    assert seen.as_fact()["value"] == "2026-01-02T00:00:00.000000Z"
    old = Atom("seen", "eq", dt.datetime(999, 1, 2, tzinfo=dt.UTC)).as_fact()
    assert old["value"] == "0999-01-02T00:00:00.000000Z"


@pytest.mark.parametrize(
    "doc",
    [
        eq("wards", 1),
        eq("ward", "1"),
        eq("ward", True),
        eq("ward", 1.5),
        eq("open", 1),
        eq("since", "tomorrow"),
        eq("seen", "2026-01-02T08:00:00"),
        {"field": "ward", "op": "prefix", "value": "1"},
        {"field": "ward", "op": "in", "value": [1, "2"]},
    ],
)
def test_values_of_another_type_are_refused(doc: dict[str, Any]) -> None:
    """A boolean is not a number, text is not a date, a time without a zone is not an instant."""
    with pytest.raises(BadFilter):
        check(parse_condition(doc), KINDS)


def test_a_misspelt_field_is_named_with_the_nearest() -> None:
    """The refusal helps."""
    with pytest.raises(BadFilter, match="Did you mean 'ward'"):
        check(parse_condition(eq("wards", 1)), KINDS)


def test_attributes_of_the_subject_are_put_in() -> None:
    """A clause that needs an attribute which the subject lacks is gone, the others stay."""
    mine = {"field": "ward", "op": "eq", "value": {"subject": "ward"}}
    condition = parse_condition({"any": [mine, {"field": "name", "op": "missing"}]})
    assert condition.subject_attributes == {"ward"}
    assert condition.clauses[0][0].value == SubjectAttribute("ward")
    assert resolve(condition.clauses, {"ward": 7}) == ((Atom("ward", "eq", 7),), (Atom("name", "missing"),))
    assert resolve(condition.clauses, {}) == ((Atom("name", "missing"),),)
    assert resolve(parse_condition(mine).clauses, {}) == NO_ROW


def test_days_are_counted_from_the_day_of_the_question() -> None:
    """`{today: N}` is a date, on a timestamp its first instant in UTC; unasked it stays as it is written."""
    kinds = {"since": Kind.DATE, "seen": Kind.TIMESTAMP, "name": Kind.TEXT}
    day = {"today": -30}
    written = {"all": [eq("since", day), {"field": "seen", "op": "in", "value": [{"today": 1}]}]}
    condition = check(parse_condition(written), kinds)
    assert condition.reads_the_day
    assert condition.clauses[0][0].value == Today(-30)
    (clause,) = check(condition, kinds, dt.date(2026, 5, 1)).clauses
    assert [atom.value for atom in clause] == [dt.date(2026, 4, 1), (dt.datetime(2026, 5, 2, tzinfo=dt.UTC),)]
    assert not parse_condition(eq("since", "2026-05-01")).reads_the_day
    with pytest.raises(BadFilter, match="needs a date or a timestamp"):
        check(parse_condition(eq("name", day)), kinds)


@pytest.mark.parametrize("days", [True, 1.0, "1", None, 10**6, [1]])
def test_a_day_is_a_whole_number_of_days(days: object) -> None:
    """Nothing else, and within a hundred years."""
    with pytest.raises(BadFilter, match="whole number of days"):
        parse_condition(eq("since", {"today": days}))
