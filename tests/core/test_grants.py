"""Grants: two people answer for each, and no two could answer one request."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from bus.core.grants import Limits, parse_grant_set, same_person
from bus.core.masks import Mask
from bus.errors import FourEyes, GrantConflict, InvalidDeclaration


def grant(**changes: Any) -> dict[str, Any]:
    made = {
        "id": "tax-levy",
        "consumer": "tax",
        "view": "food_business",
        "purpose": "levy",
        "channels": ["query", "lookup"],
        "fields": ["licence_number", "legal_name"],
        "masks": {"legal_name": {"keep_first": 3}},
        "valid": {"from": "2026-01-01", "to": "2026-12-31"},
        "limits": {"per_minute": 60},
        "legal_basis": "Levy Act 4",
    } | changes
    return {name: value for name, value in made.items() if value is not ...}


def document(*grants: Any, **changes: Any) -> dict[str, Any]:
    return {"author": "li.na@governance", "approver": "wang.wei@governance", "grants": list(grants)} | changes


def test_a_grant_is_read_whole() -> None:
    """Every member arrives, channels in their fixed order, limits with their defaults."""
    read = parse_grant_set(document(grant()), "tax")
    (only,) = read.grants
    assert (read.name, only.set) == ("tax", "tax")
    assert (only.author, only.approver) == ("li.na@governance", "wang.wei@governance")
    assert only.channels == ("lookup", "query")
    assert only.masks == {"legal_name": Mask("keep_first", 3)}
    assert only.limits == Limits(per_minute=60, rows=1_000)
    assert (only.valid_from, only.valid_to) == (dt.date(2026, 1, 1), dt.date(2026, 12, 31))


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("li.na", "Li.Na", True),
        ("li.na ", " li.na", True),
        ("ｌｉ．ｎａ", "li.na", True),
        ("straße", "STRASSE", True),
        ("ﬁona", "fiona", True),
        ("li.na", "wang.wei", False),
        ("李娜", "李那", False),
    ],
)
def test_one_person_in_two_spellings_is_one_person(first: str, second: str, same: bool) -> None:
    """Case, width, ligatures and spaces around do not make another person."""
    assert same_person(first, second) is same
    if same:
        with pytest.raises(FourEyes):
            parse_grant_set(document(grant(), author=first, approver=second))
    else:
        parse_grant_set(document(grant(), author=first, approver=second))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"id": "Tax Levy"}, "id"),
        ({"id": ...}, "id"),
        ({"consumer": 'a"; allow := true'}, "consumer"),
        ({"consumer": "a" * 64}, "consumer"),
        ({"view": "../x"}, "view"),
        ({"purpose": ["levy"]}, "purpose"),
        ({"purpose": ...}, "purpose"),
        ({"channels": []}, "channels"),
        ({"channels": "query"}, "channels"),
        ({"channels": ["querry"]}, "Did you mean 'query'"),
        ({"fields": []}, "fields"),
        ({"fields": ...}, "fields"),
        ({"masks": {"ward": {"keep_first": 3}}}, "not among"),
        ({"masks": {"legal_name": {"blur": 3}}}, "not a mask"),
        ({"masks": {"legal_name": {"keep_first": -1}}}, "from 0"),
        ({"masks": {"legal_name": {"keep_first": True}}}, "whole number"),
        ({"masks": {"legal_name": {"keep_first": 1, "hash": True}}}, "needs one of"),
        ({"rows": {"all": []}}, "at least one"),
        ({"rows": []}, "mapping"),
        ({"valid": ...}, "valid"),
        ({"valid": {"from": "2026-01-01"}}, "valid"),
        ({"valid": {"from": "2026-02-30", "to": "2026-03-01"}}, "not a date"),
        ({"valid": {"from": "2026-03-02", "to": "2026-03-01"}}, "before it begins"),
        ({"valid": {"from": "2026-01-01", "to": "2027-01-03"}}, "a year"),
        ({"limits": {"per_minute": 0}}, "from 1"),
        ({"limits": {"rows": True}}, "from 1"),
        ({"limits": {"rows_per_day": 1}}, "limits"),
        ({"legal_basis": " "}, "legal_basis"),
        ({"priority": 1}, "not known"),
    ],
)
def test_a_grant_that_is_not_clear_is_refused(changes: dict[str, Any], problem: str) -> None:
    """The refusal names what is wrong."""
    with pytest.raises(InvalidDeclaration, match=problem):
        parse_grant_set(document(grant(**changes)))


def test_all_problems_are_named_at_once() -> None:
    """An author sees everything in one go."""
    with pytest.raises(InvalidDeclaration) as raised:
        parse_grant_set(document(grant(id="A", channels=[], legal_basis=""), approver=""))
    assert len(raised.value.members["problems"]) == 4


@pytest.mark.parametrize(
    "doc", [None, [], "x", {}, document("x"), {**document(grant()), "extra": 1}, document(grant(), grant())]
)
def test_a_file_that_is_no_grant_file_is_refused(doc: Any) -> None:
    """Whatever YAML gave."""
    with pytest.raises(InvalidDeclaration):
        parse_grant_set(doc)


@pytest.mark.parametrize(
    ("changes", "conflict"),
    [
        ({}, True),
        ({"channels": ["query"]}, True),
        ({"channels": ["stream"]}, False),
        ({"purpose": "audit"}, False),
        ({"consumer": "food"}, False),
        ({"view": "complaint"}, False),
        ({"valid": {"from": "2026-12-31", "to": "2027-06-30"}}, True),
        ({"valid": {"from": "2027-01-01", "to": "2027-06-30"}}, False),
    ],
)
def test_two_grants_that_could_answer_one_request_conflict(changes: dict[str, Any], conflict: bool) -> None:
    """Same consumer, view, purpose, a shared channel and a shared day, no less."""
    doc = document(grant(), grant(id="second", **changes))
    if conflict:
        with pytest.raises(GrantConflict, match="tax-levy and second"):
            parse_grant_set(doc)
    else:
        parse_grant_set(doc)


def test_two_streams_of_a_consumer_on_a_view_conflict_whatever_their_purposes() -> None:
    """A stream is one topic, read for one purpose."""
    first = grant(channels=["query", "stream"])
    second = grant(id="second", channels=["query", "stream"], purpose="audit")
    with pytest.raises(GrantConflict, match="tax-levy and second"):
        parse_grant_set(document(first, second))
    parse_grant_set(document(first, {**second, "channels": ["query"]}))
    parse_grant_set(document(first, {**second, "valid": {"from": "2027-01-01", "to": "2027-06-30"}}))


def test_a_grant_holds_on_both_its_days_in_utc() -> None:
    """Whatever time zone the clock is in."""
    (only,) = parse_grant_set(document(grant())).grants
    china = dt.timezone(dt.timedelta(hours=8))
    assert only.active(dt.datetime(2026, 12, 31, 23, 59, tzinfo=dt.UTC))
    assert not only.active(dt.datetime(2027, 1, 1, 0, 0, tzinfo=dt.UTC))
    assert only.active(dt.datetime(2027, 1, 1, 7, 59, tzinfo=china))
