"""One condition, five evaluators: OPA row by row, OPA's filter in SQL on both databases, the same filter as a stream
predicate, and the reference."""

from __future__ import annotations

import itertools
import urllib.request
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from access_worlds import KINDS, NOW, grant, grant_set
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from opa_process import Opa
from strategies import CONDITIONS, ROWS, VALUES

from bus.access.answers import EVERY_ROW, NO_ROW, And, Comparison, Filter, Not, Or, parse_filter
from bus.access.decision import Allow
from bus.access.facts import atom_fact, exact, refuse_inexact, request_input
from bus.access.filters import where
from bus.access.identity import Subject
from bus.access.opa import UCAST
from bus.access.predicates import predicate
from bus.core.conditions import OPERATORS, Atom, Condition, check, matches, parse_condition
from bus.core.contracts import Kind
from bus.core.grants import Limits
from bus.errors import BadFilter, ConditionTooWide, PolicyError
from bus.views.values import sql_type

NUMBERS = itertools.count()
ONE_BY_ONE = """package one_by_one
allowed := [number |
    some number, row in input.rows
    data.bus.access.include with input as object.union(input.request, {"row": row})
]
"""


@pytest.fixture(scope="module")
def opa(shared_opa: Opa) -> Opa:
    """OPA with one more rule beside the bundle: many rows in one question, each decided alone."""
    request = urllib.request.Request(f"{shared_opa.url}/v1/policies/one_by_one", ONE_BY_ONE.encode(), method="PUT")
    urllib.request.urlopen(request, timeout=30).close()
    return shared_opa


@pytest.fixture(scope="module")
def table(views_engine: sa.Engine) -> Iterator[sa.Table]:
    columns = (sa.Column(name, sql_type(kind, 2)) for name, kind in KINDS.items())
    made = sa.Table(f"v_agree_{next(NUMBERS)}", sa.MetaData(), sa.Column("_n", sa.Integer), *columns)
    made.create(views_engine)
    yield made
    made.drop(views_engine)


def ask(opa: Opa, path: str, body: Any, accept: str = "application/json") -> Any:
    request = urllib.request.Request(opa.url + path, orjson.dumps(body), {"Accept": accept}, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return orjson.loads(answer.read())


def facts(rows: Any) -> dict[str, Any]:
    (made,) = grant_set(grant(rows=rows)).grants
    arguments = {"purpose": "levy", "channel": "query", "at": NOW, "grants": [made]}
    return request_input(Subject("tax"), "business", KINDS, **arguments)


def row_fact(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if value is None else atom_fact(Atom(name, "eq", value))["value"] for name, value in row.items()}


def compiled(opa: Opa, request: Any) -> Filter:
    body = {"input": request, "unknowns": ["input.row"]}
    return parse_filter(ask(opa, "/v1/compile/bus/access/include", body, UCAST), KINDS)


def by_opa(opa: Opa, request: Any, rows: list[dict[str, Any]]) -> set[int]:
    body = {"input": {"request": request, "rows": [row_fact(row) for row in rows]}}
    return set(ask(opa, "/v1/data/one_by_one/allowed", body)["result"])


def allow(rows: Filter) -> Allow:
    return Allow("business", tuple(KINDS), {}, rows, Limits(), ("g",), "d", "1.1", "query", "levy", "tax")


def by_stream(rows: list[dict[str, Any]], filter_: Filter) -> set[int]:
    names = sorted(KINDS)
    shown = predicate(filter_, names)
    return {number for number, row in enumerate(rows) if shown([row[name] for name in names])}


def by_sql(engine: sa.Engine, table: sa.Table, rows: list[dict[str, Any]], filter_: Filter) -> set[int]:
    with engine.connect() as connection:
        connection.execute(table.insert(), [{**row, "_n": number} for number, row in enumerate(rows)])
        found = set(connection.execute(sa.select(table.c["_n"]).where(where(allow(filter_), table))).scalars())
        connection.rollback()
    return found


def by_reference(rows: list[dict[str, Any]], document: Any) -> set[int]:
    clauses = check(parse_condition(document), KINDS).clauses
    return {number for number, row in enumerate(rows) if matches(clauses, row)}


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=CONDITIONS, rows=st.lists(ROWS, min_size=1, max_size=12))
def test_every_evaluator_shows_what_opa_allows_row_by_row(
    opa: Opa, views_engine: sa.Engine, table: sa.Table, document: Any, rows: list[dict[str, Any]]
) -> None:
    """Rows of SQL = rows of the stream = rows that OPA allows one by one = rows of the reference."""
    try:
        request = facts(document)
    except ConditionTooWide:
        assume(False)
    expected = by_reference(rows, document)
    filter_ = compiled(opa, request)
    assert by_opa(opa, request, rows) == expected
    assert by_sql(views_engine, table, rows, filter_) == expected
    assert by_stream(rows, filter_) == expected


@pytest.mark.parametrize("kind", sorted({*KINDS.values()}))
@pytest.mark.parametrize("op", OPERATORS)
def test_every_operator_on_every_kind_compiles(
    opa: Opa, views_engine: sa.Engine, table: sa.Table, op: str, kind: Kind
) -> None:
    """No atom of core.conditions is refused by the Compile API, and none disagrees on a few values and NULL."""
    if op in ("prefix", "not_prefix") and kind is not Kind.TEXT:
        return
    field = next(name for name, of in KINDS.items() if of is kind)
    values = SAMPLES[kind]
    rows = [dict.fromkeys(KINDS) | {field: value} for value in (None, *values)]
    written = {"not_in": "in", "not_prefix": "prefix", "present": "missing"}
    document: Any = {"field": field, "op": written.get(op, op)}
    if document["op"] == "in":
        document["value"] = list(values[:2])
    elif document["op"] != "missing":
        document["value"] = values[0]
    if op in written:
        document = {"not": document}
    assert {atom.op for clause in parse_condition(document).clauses for atom in clause} == {op}
    request, expected = facts(document), by_reference(rows, document)
    filter_ = compiled(opa, request)
    assert by_opa(opa, request, rows) == expected
    assert by_sql(views_engine, table, rows, filter_) == expected
    assert by_stream(rows, filter_) == expected


SAMPLES: dict[Kind, tuple[Any, ...]] = {
    kind: tuple(dict.fromkeys(value for value in examples))
    for kind, examples in {
        Kind.TEXT: ("a%", "axb", "A%b", "", "é"),
        Kind.INTEGER: (0, -1, 2**53),
        Kind.NUMBER: (0.1, -1.5, 1e300),
        Kind.DECIMAL: (Decimal("0.10"), Decimal("-3.25"), Decimal("0.01")),
        Kind.BOOLEAN: (True, False),
        Kind.DATE: (NOW.date(), NOW.date().replace(year=999)),
        Kind.TIMESTAMP: (NOW, NOW.replace(microsecond=1)),
    }.items()
}


def test_every_row_and_no_row(opa: Opa, views_engine: sa.Engine, table: sa.Table) -> None:
    """`rows: [[]]` is every row and `rows: []` is none, in OPA and in SQL; `allow_all` is true for the first only."""
    rows: list[dict[str, Any]] = [dict.fromkeys(KINDS), dict.fromkeys(KINDS)]
    for clauses, expected, filter_, allow_all in (([[]], {0, 1}, EVERY_ROW, True), ([], set(), NO_ROW, False)):
        request = facts(None)
        request["grants"][0]["rows"] = clauses
        assert compiled(opa, request) == filter_
        assert by_opa(opa, request, rows) == expected
        assert by_sql(views_engine, table, rows, filter_) == expected
        assert by_stream(rows, filter_) == expected
        assert ask(opa, "/v1/data/bus/access/verdict", {"input": request})["result"]["allow_all"] is allow_all


@pytest.mark.parametrize(
    "rows",
    [
        And(()),
        Or(()),
        Comparison("ward", "like", "a"),
        Comparison("ward", "in", ()),
        Comparison("ward", "lt", None),
        Comparison("nobody", "eq", 1),
        Comparison("_seq", "eq", 1),
        Not(Comparison("ward", "eq", None)),
    ],
)
def test_what_has_no_meaning_shows_nothing(table: sa.Table, rows: Filter) -> None:
    """Neither evaluator makes "every row" of an empty, unknown or foreign condition."""
    with pytest.raises(PolicyError):
        where(allow(rows), table)
    with pytest.raises(PolicyError):
        predicate(rows, [*KINDS, "_seq"])


def test_a_row_of_another_form_is_refused_by_the_stream() -> None:
    """A value of a type that the filter cannot compare, or a row that is too short, is an error and no row."""
    shown = predicate(Comparison("ward", "lt", 3), ["name", "ward"])
    for row in (["a", "2"], ["a"]):
        with pytest.raises(PolicyError):
            shown(row)


def test_a_row_from_the_client_changes_nothing(opa: Opa) -> None:
    """An input that already holds a row is compiled as if it did not (E3): our unknowns win."""
    request = facts({"field": "ward", "op": "eq", "value": 1})
    assert compiled(opa, {**request, "row": {"ward": 1}}) == compiled(opa, request)


@settings(max_examples=100, deadline=None)
@given(value=st.integers() | st.floats(allow_nan=False) | st.decimals(allow_nan=False, places=6))
def test_numbers_that_opa_would_change_are_refused(opa: Opa, value: Any) -> None:
    """A number either comes back from the Compile API as it went, or is refused before it goes."""
    kind = {int: Kind.INTEGER, float: Kind.NUMBER}.get(type(value), Kind.DECIMAL)
    if not exact(value):
        condition = Condition(((Atom("n", "eq", value),),))
        with pytest.raises(BadFilter):
            refuse_inexact(condition)
        return
    request = facts(None)
    request["grants"][0]["rows"] = [[atom_fact(Atom("n", "eq", value))]]
    body = {"input": request, "unknowns": ["input.row"]}
    answer = parse_filter(ask(opa, "/v1/compile/bus/access/include", body, UCAST), {"n": kind})
    assert answer.items[1].value == value  # type: ignore[union-attr]


@settings(max_examples=50, deadline=None)
@given(value=VALUES[Kind.TEXT] | st.text(max_size=50))
def test_text_comes_back_as_it_went(opa: Opa, value: str) -> None:
    """Any text at all, whatever OPA's JSON does with it."""
    request = facts({"field": "name", "op": "eq", "value": value})
    assert compiled(opa, request).items[1].value == value  # type: ignore[union-attr]
