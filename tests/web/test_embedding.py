"""Related views beside each row: what two questions would give, each view under its own grant."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served_world import World

from bus.core.grants import parse_grant_set
from bus.views.tables import row_table

VIEW = "/v1/views/food_business"
HISTORY = "/v1/views/inspection_history"
RESULTS = ("Pass", "Fail", "Pass w/ Conditions")
YEAR = dt.date.today().year


def inspections() -> list[dict[str, Any]]:
    """None for some businesses, up to three for others, one of a business that there is not."""
    found = [(number, turn) for number in range(1, 60) for turn in range(number % 4)]
    return [
        {
            "inspection_id": 1_000 + place,
            "licence_number": number,
            "result": RESULTS[place % 3],
            "dba_name": f"老王饭店 {number}",
        }
        for place, (number, turn) in enumerate([*found, (999_999, 0)])
    ]


def grant(name: str, consumer: str, view: str, fields: list[str], **more: Any) -> dict[str, Any]:
    """A grant of this year for the purpose of levying."""
    valid = {"from": dt.date(YEAR, 1, 1), "to": dt.date(YEAR, 12, 31)}
    base = {"id": name, "consumer": consumer, "view": view, "purpose": "levy", "channels": ["query"], "fields": fields}
    return {**base, "valid": valid, "legal_basis": "Test Act 1", **more}


GRANTS = [
    grant("embed-business", "weather", "food_business", ["licence_number", "ward", "legal_name"]),
    grant(
        "embed-inspections",
        "weather",
        "inspection_history",
        ["inspection_id", "licence_number", "result", "dba_name"],
        masks={"dba_name": {"keep_first": 2}},
        rows={"field": "result", "op": "ne", "value": "Fail"},
        limits={"per_minute": 600, "rows": 40},
    ),
    grant("embed-masked", "sanitation", "food_business", ["licence_number"], masks={"licence_number": {"hash": True}}),
    grant("embed-whole", "sanitation", "inspection_history", ["inspection_id", "licence_number", "result"]),
    grant("embed-keyless", "market", "inspection_history", ["inspection_id", "result"]),
    grant("embed-all", "market", "food_business", ["licence_number", "ward"]),
]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def related(request: pytest.FixtureRequest) -> Iterator[World]:
    """The served world on each database, with inspections and some more grants while these tests run."""
    world: World = request.getfixturevalue("world" if request.param == "sqlite" else "postgresql_world")
    shape = world.parts.shapes()["inspection_history"]
    table = row_table(shape)
    blank = {column.name: None for column in shape.columns}
    hidden = {"_v1": 1, "_v2": 1, "_v3": 1, "_live": True, "_partition": 0} if "_live" in table.c else {}
    with world.views.begin() as connection:
        connection.execute(sa.insert(table), [{**blank, **row, **hidden} for row in inspections()])
    files = {"set": "embedding", "author": "li.na", "approver": "wang.wei"}
    world.parts.grants.apply(parse_grant_set({**files, "grants": GRANTS}), os_user="test")
    yield world
    world.parts.grants.apply(parse_grant_set({**files, "grants": []}), os_user="test")
    with world.views.begin() as connection:
        connection.execute(sa.delete(table))


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from([("food", "inspection_planning"), ("weather", "levy")]),
    st.sampled_from(["ward=lte.10", "licence_number=in.(3,7,8)", "licence_number=lte.25", "ward=is.null"]),
    st.sampled_from(["", "result=eq.Pass", "result=not.in.(Fail)"]),
    st.sampled_from([None, 1, 2]),
)
def test_embedded_rows_are_those_of_a_question_of_their_own(
    related: World, asker: tuple[str, str], outer: str, inner: str, each: int | None
) -> None:
    """Of each row the related ones that the asker would get by asking the other view itself, masked alike."""
    with httpx2.Client(base_url=related.url, headers=related.headers(*asker), timeout=30) as client:
        own = [f"seen.{inner}"] if inner else []
        own += [f"seen.limit={each}"] if each else []
        nested = "seen:inspection_history(licence_number,inspection_id,result,dba_name)"
        question = "&".join([outer, "order=licence_number&limit=20", f"select=licence_number,{nested}", *own])
        answer = client.get(f"{VIEW}?{question}&seen.order=result.desc")
        assert answer.status_code == 200, answer.text
        rows = client.get(f"{VIEW}?{outer}&order=licence_number&limit=20&select=licence_number").json()
        columns = "select=licence_number,inspection_id,result,dba_name"
        asked = "&".join([columns, "order=result.desc&limit=40", *filter(None, [inner])])
        pages = (client.get(f"{HISTORY}?{asked}&offset={offset}") for offset in (0, 40, 80))
        others = [row for page in pages if page.status_code != 416 for row in page.json()]
        for row in rows:
            found = [other for other in others if other["licence_number"] == row["licence_number"]]
            row["seen"] = found[:each]
        assert answer.json() == rows
        assert any(row["seen"] for row in rows)


def test_to_one(related: World) -> None:
    """The row that another names is one object, or null where there is none within the grant."""
    question = "select=licence_number,business:food_business(ward,legal_name)&order=licence_number.desc&limit=2"
    first, second = related.get(f"{HISTORY}?{question}").json()
    assert (first["licence_number"], first["business"]) == (999_999, None)
    assert second["business"] == {"ward": 59 % 50 + 1, "legal_name": "老王饭店 59"}
    every = related.get(f"{HISTORY}?select=*,food_business(ward)&limit=1").json()[0]
    assert every["food_business"].keys() == {"ward"}
    alone = related.get(f"{HISTORY}?select=food_business(ward)&limit=1").json()[0]
    assert alone.keys() == {"food_business"}


@pytest.mark.parametrize(
    ("path", "asker", "status", "code", "said"),
    [
        ("select=seen:inspection_history(result)", ("tax", "levy"), 403, "not_granted", "inspection_history"),
        ("select=seen:inspection_history(risk)", ("weather", "levy"), 403, "field_not_granted", "risk"),
        ("select=seen:inspection_history(result)&seen.dba_name=eq.x", ("weather", "levy"), 403,
         "field_not_filterable", "dba_name"),
        ("select=seen:inspection_history(result)", ("sanitation", "levy"), 403, "field_not_filterable",
         "licence_number"),
        ("select=seen:inspection_history(result)", ("market", "levy"), 403, "field_not_granted", "licence_number"),
        ("select=complaint(status)", ("food", "inspection_planning"), 422, "bad_filter", "inspection_history"),
        ("select=hidden_sample(label)", ("food", "inspection_planning"), 422, "bad_filter", "not declared"),
        ("select=nowhere(label)", ("food", "inspection_planning"), 422, "bad_filter", "not declared"),
        ("select=inspection_history!ward(result)", ("food", "inspection_planning"), 422, "bad_filter", "not declared"),
        ("select=inspection_history!inner(result)", ("food", "inspection_planning"), 422, "bad_filter", "inner"),
        ("select=inspection_history(count())", ("food", "inspection_planning"), 422, "bad_filter", "figures"),
        ("select=inspection_history(food_business(ward))", ("food", "inspection_planning"), 422, "bad_filter",
         "further"),
        ("select=count(),inspection_history(result)", ("food", "inspection_planning"), 422, "bad_filter", "one by one"),
        ("select=inspection_history(nosuch)", ("food", "inspection_planning"), 422, "unknown_field", "nosuch"),
        ("select=inspection_history()", ("food", "inspection_planning"), 422, "bad_filter", "columns"),
        ("select=" + "a(" * 500 + ")" * 500, ("food", "inspection_planning"), 422, "bad_filter", "further"),
    ],
)  # fmt: skip
def test_what_is_refused(related: World, path: str, asker: tuple[str, str], status: int, code: str, said: str) -> None:
    """Neither a view, a column nor a join that its own grant would refuse; no relation that nobody declared (A10)."""
    answer = related.get(f"{VIEW}?{path}", *asker)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert said in answer.json()["detail"]


def test_the_refusal_of_an_embedded_view_is_recorded_of_that_view(related: World) -> None:
    """Who probes a view by embedding it leaves the same trace as by asking it."""
    answer = related.get(f"{VIEW}?select=inspection_history(result)", "tax", "levy")
    (entry,) = [body for body in related.entries() if body.get("request_id") == answer.headers["Request-Id"]]
    assert (entry["kind"], entry["view"], entry["code"]) == ("refusal", "inspection_history", "not_granted")


def test_each_view_is_recorded_and_explained(related: World) -> None:
    """An entry for each with its own grant, columns and number of rows; masked columns are told with their place."""
    question = "licence_number=in.(3,7)&select=ward,seen:inspection_history(dba_name,result)"
    answer = related.get(f"{VIEW}?{question}", "weather", "levy")
    assert answer.headers["Masked-Columns"] == "seen.dba_name"
    inner, outer = [body for body in related.entries() if body.get("request_id") == answer.headers["Request-Id"]]
    assert (outer["view"], outer["columns"], outer["rows"]) == ("food_business", ["ward"], 2)
    assert (inner["view"], inner["grants"], inner["columns"], inner["masked"]) == (
        "inspection_history", ["embed-inspections"], ["dba_name", "result"], ["dba_name"],
    )  # fmt: skip
    assert inner["rows"] == sum(len(row["seen"]) for row in answer.json())
    assert inner["question"]["embedded_in"] == "food_business"
    explained = related.get(f"{VIEW}?{question}&explain=true", "weather", "levy").json()
    assert explained["embedded"]["seen"]["grants"] == ["embed-inspections"]


def test_embedded_rows_are_bounded(related: World) -> None:
    """More related rows than the grant's limit are refused with the way out, which helps; tables are no place for
    rows in rows; pages go on."""
    question = "order=licence_number&select=licence_number,seen:inspection_history(result)"
    many = related.get(f"{VIEW}?{question}", "weather", "levy")
    assert (many.status_code, many.json()["code"]) == (422, "bad_filter")
    assert "seen.limit" in many.json()["detail"]
    page = related.get(f"{VIEW}?{question}&limit=20&seen.limit=1", "weather", "levy")
    assert page.status_code == 200
    cursor = page.headers["Next-Cursor"]
    following = related.get(f"{VIEW}?{question}&limit=20&seen.limit=1&cursor={cursor}", "weather", "levy").json()
    assert [row["licence_number"] for row in following] == list(range(21, 41))
    for accept in ("text/csv", "application/vnd.apache.parquet"):
        flat = related.get(f"{VIEW}?{question}&limit=1", Accept=accept)
        assert flat.status_code in (403, 406), flat.text
    lines = related.get(f"{VIEW}?{question}&limit=2", Accept="application/x-ndjson")
    assert lines.text.count("\n") == 2
    past = related.get(f"{HISTORY}?select=food_business(ward)&as_of=2026-01-01")
    assert (past.status_code, past.json()["code"]) == (422, "bad_filter")
