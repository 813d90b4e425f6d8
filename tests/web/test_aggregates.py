"""Figures over the rows that one may see: exact where one may fetch them, else those of few rows are withheld."""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served_world import World

from bus.access.answers import EVERY_ROW
from bus.access.decision import Allow
from bus.core.grants import Limits, parse_grant_set
from bus.errors import BadFilter
from bus.sharing.permitted import permit
from bus.sharing.question import Embedded, Query

VIEW = "/v1/views/food_business"
SAMPLE = "/v1/views/sample"
YEAR = dt.date.today().year
FOLDS = {
    "count": len,
    "sum": lambda values: sum(values) if values else None,
    "avg": lambda values: sum(values) / len(values) if values else None,
    "min": lambda values: min(values, default=None),
    "max": lambda values: max(values, default=None),
}
FIGURES = ["n:count()", "sum:police_district.sum()", "avg:police_district.avg()", "named:legal_name.count()",
           "first:address.min()", "last:last_inspection_date.max()", "north:latitude.max()"]  # fmt: skip


def grant(name: str, consumer: str, view: str, **more: Any) -> dict[str, Any]:
    valid = {"from": dt.date(YEAR, 1, 1), "to": dt.date(YEAR, 12, 31)}
    base = {"id": name, "consumer": consumer, "view": view, "purpose": "employment_support", "channels": ["aggregate"]}
    return {**base, "valid": valid, "legal_basis": "Test Act 1", **more}


GRANTS = [
    grant(
        "figures-business",
        "weather",
        "food_business",
        fields=["licence_number", "ward", "status", "police_district", "latitude", "legal_name",
                "last_inspection_date"],
        masks={"legal_name": {"keep_first": 3}},
        rows={"field": "ward", "op": "lte", "value": 25},
        limits={"per_minute": 600, "per_day": 10_000},
    ),
    grant("figures-budget", "weather", "sample", fields=["sample_id", "score", "fee"], limits={"per_day": 3},
          aggregates={"k": 2}),
    grant("figures-resident", "tax", "resident", fields=["citizen_id", "region_code", "birth_date"]),
]  # fmt: skip
GUARDED = ("weather", "employment_support")


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def granted(request: pytest.FixtureRequest) -> Iterator[World]:
    """The served world on each database, with grants of figures while these tests run."""
    world: World = request.getfixturevalue("world" if request.param == "sqlite" else "postgresql_world")
    files = {"set": "figures", "author": "li.na", "approver": "wang.wei"}
    world.parts.grants.apply(parse_grant_set({**files, "grants": GRANTS}), os_user="test")
    yield world
    world.parts.grants.apply(parse_grant_set({**files, "grants": []}), os_user="test")


def fold(rows: Sequence[Mapping[str, Any]], groups: Sequence[str], figures: Sequence[str]) -> list[dict[str, Any]]:
    """The figures in plain Python, groups with a missing value last."""
    by_group: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_group[tuple(row[name] for name in groups)].append(row)
    if not groups and not by_group:
        by_group[()] = []
    ordered = sorted(by_group, key=lambda key: [(value is None, value or 0) for value in key])
    return [dict(zip(groups, key, strict=True)) | dict(map(_figure(by_group[key]), figures))
            for key in ordered]  # fmt: skip


def _figure(rows: Sequence[Mapping[str, Any]]) -> Any:
    def of(text: str) -> tuple[str, Any]:
        name, _, figure = text.partition(":")
        field, _, function = figure.rpartition(".")
        values = [row[field] for row in rows if row[field] is not None] if field else rows
        return name, FOLDS[function.removesuffix("()")](values)

    return of


def close(found: Any, wanted: Any) -> bool:
    return math.isclose(found, wanted, rel_tol=1e-12) if isinstance(wanted, float) else found == wanted


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from([("food", "inspection_planning"), ("tax", "levy")]),
    st.lists(st.sampled_from(["ward", "police_district", "last_result"]), unique=True, max_size=2),
    st.lists(st.sampled_from(FIGURES), unique=True, min_size=1, max_size=4),
    st.sampled_from(["", "ward=gt.10", "last_result=eq.Fail", "or=(ward.is.null,ward.lt.4)", "ward=eq.1000"]),
)
def test_figures_equal_a_fold_of_the_rows(
    granted: World, asker: tuple[str, str], groups: list[str], figures: list[str], question: str
) -> None:
    """Who may fetch the rows gets what it could compute from them: the row filter is always inside."""
    if asker[0] == "tax":
        figures = [text for text in figures if "latitude" not in text and "legal_name" not in text] or ["n:count()"]
    asked = "&".join(filter(None, [question, f"select={','.join([*groups, *figures])}"]))
    with httpx2.Client(base_url=granted.url, headers=granted.headers(*asker), timeout=30) as client:
        answer = client.get(f"{VIEW}?{asked}")
        assert answer.status_code == 200, answer.text
        rows = client.get(f"{VIEW}?{question}&limit=1000").json()
    wanted = fold(rows, groups, figures)
    assert [row.keys() for row in answer.json()] == [row.keys() for row in wanted]
    for found, row in zip(answer.json(), wanted, strict=True):
        assert all(close(found[name], value) for name, value in row.items()), (found, row)
    assert "Suppressed" not in answer.headers


def test_every_kind_of_number(granted: World) -> None:
    """Decimals keep their digits, in sums as well; a column without values has no sum; an order may name a figure."""
    answer = granted.get(f"{SAMPLE}?select=sum:fee.sum(),avg:fee.avg(),low:fee.min(),parts.count()", "lab", "levy")
    assert '"sum":12345678901240.55' in answer.text
    assert answer.json() == [
        {"sum": 12345678901240.55, "avg": pytest.approx(12345678901240.55 / 3), "low": -0.5, "count": 1}
    ]
    (nothing,) = granted.get(f"{SAMPLE}?select=score.sum(),score.avg(),n:count()&score=is.null", "lab", "levy").json()
    assert nothing == {"sum": None, "avg": None, "n": 1}
    ordered = granted.get(f"{VIEW}?select=ward,n:count()&order=n.desc,ward&limit=2").json()
    assert [row["n"] for row in ordered] == [44, 8]
    page = granted.get(f"{VIEW}?select=ward,n:count()&limit=2&offset=1", Prefer="count=exact")
    assert page.headers["Content-Range"] == "1-2/51"
    table = granted.get(f"{VIEW}?select=ward,n:count()&limit=1", Accept="text/csv")
    assert table.text == "ward,n\r\n1,8\r\n"


@pytest.mark.parametrize(
    ("path", "asker", "status", "code"),
    [
        (f"{VIEW}?select=legal_name,count()", ("tax", "levy"), 403, "field_not_filterable"),
        (f"{VIEW}?select=legal_name.count()", ("tax", "levy"), 403, "field_not_filterable"),
        (f"{VIEW}?select=legal_name.min()", ("tax", "levy"), 403, "field_not_filterable"),
        (f"{VIEW}?select=count()&legal_name=eq.x", ("tax", "levy"), 403, "field_not_filterable"),
        (f"{VIEW}?select=latitude.max()", ("tax", "levy"), 403, "field_not_granted"),
        (f"{VIEW}?select=latitude,count()", ("tax", "levy"), 403, "field_not_granted"),
        (f"{VIEW}?select=nosuch.sum()", ("tax", "levy"), 422, "unknown_field"),
        (f"{VIEW}?select=status.sum()", ("tax", "levy"), 422, "bad_filter"),
        (f"{VIEW}?select=ward.median()", ("tax", "levy"), 422, "bad_filter"),
        (f"{VIEW}?select=sum()", ("tax", "levy"), 422, "bad_filter"),
        (f"{VIEW}?select=ward.sum(),status.count(),police_district.sum()", ("tax", "levy"), 422, "bad_filter"),
        (f"{VIEW}?select=*,count()", ("tax", "levy"), 422, "bad_filter"),
        (f"{VIEW}?select=ward,count()&order=status", ("tax", "levy"), 422, "bad_filter"),
        (f"{VIEW}?select=count()&export=true", ("tax", "levy"), 403, "channel_not_granted"),
        (f"{VIEW}?select=count()", ("social", "employment_support"), 403, "channel_not_granted"),
        (f"{VIEW}?select=count()", ("police", "levy"), 403, "not_granted"),
        ("/v1/views/resident?select=count()", ("police", "case_investigation"), 403, "channel_not_granted"),
        (f"{VIEW}?limit=1", GUARDED, 403, "channel_not_granted"),
        (f"{VIEW}?licence_number=eq.1", GUARDED, 403, "channel_not_granted"),
        (f"{VIEW}?select=legal_name,count()", GUARDED, 403, "field_not_filterable"),
        (f"{VIEW}?select=licence_number.max()", GUARDED, 403, "suppressed"),
        (f"{VIEW}?select=status.min()", GUARDED, 403, "suppressed"),
        (f"{VIEW}?select=ward,s:police_district.sum()&order=s", GUARDED, 422, "bad_filter"),
    ],
)
def test_what_is_refused(granted: World, path: str, asker: tuple[str, str], status: int, code: str) -> None:
    """Masked columns are neither grouped nor counted (A10); who may ask for figures gets no rows, and no figure that is
    one row's own (A11)."""
    answer = granted.get(path, *asker)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_figures_of_few_rows_are_withheld(granted: World) -> None:
    """Groups of fewer than five are one row of nulls, told in a header; counts are multiples of five, averages have
    three digits, sums are made of these (A11, A12)."""
    figures = "n:count(),s:police_district.sum(),a:latitude.avg(),seen:last_inspection_date.max()"
    answer = granted.get(f"{VIEW}?select=ward,{figures}&licence_number=lte.230", *GUARDED)
    rows = granted.get(f"{VIEW}?licence_number=lte.230&limit=1000").json()
    *shown, rest = answer.json()
    assert set(rest.values()) == {None}
    for found in shown:
        own = [row for row in rows if row["ward"] == found["ward"]]
        dates = [row["last_inspection_date"] for row in own if row["last_inspection_date"]]
        assert found["n"] == 5 * ((len(own) + 2) // 5) >= 5
        assert found["a"] == float(f"{sum(row['latitude'] for row in own) / len(own):.3g}")
        average = float(f"{sum(row['police_district'] for row in own) / len(own):.3g}")
        assert found["s"] == float(f"{average * found['n']:.3g}")
        assert found["seen"] == (max(dates) if len(dates) >= 5 else None)
    sizes = Counter(row["ward"] for row in rows)
    large = [ward for ward in range(1, 26) if sizes[ward] >= 5]
    assert [row["ward"] for row in shown] == large
    assert 0 < len(large) < 25
    assert int(answer.headers["Suppressed"]) == 1 + sum(row["seen"] is None for row in shown)


def test_what_is_withheld_leaves_no_trace(granted: World) -> None:
    """Few rows and none answer alike, by groups and without; neither a total nor the number of groups tells (A11)."""
    few = "licence_number=in.(1,2,3)"
    for select in ("count()", "ward,count()", "licence_number,count()", "status,n:count(),police_district.sum()"):
        both = [granted.get(f"{VIEW}?select={select}&{question}", *GUARDED, Prefer="count=exact")
                for question in (few, "licence_number=eq.99999")]  # fmt: skip
        assert both[0].json() == both[1].json()
        assert [set(row.values()) for row in both[0].json()] == [{None}]
        assert {answer.headers["Suppressed"] for answer in both} == {"1"}
        assert {answer.headers["Content-Range"] for answer in both} == {"0-0/*"}
    pages = [granted.get(f"{VIEW}?select=ward,count()&order=ward&limit=8&offset={offset}", *GUARDED).json()
             for offset in (0, 8, 16, 24)]  # fmt: skip
    assert [row["ward"] for page in pages for row in page] == [*range(1, 26), None]


def test_one_person_is_no_figure(granted: World) -> None:
    """Neither counted, grouped by what it is, nor as the smallest or largest of all."""
    assert granted.parts.issuer is not None
    token = granted.parts.issuer.token("tax", officer="zhao.min")
    headers = {"Authorization": f"Bearer {token}", "Purpose": "employment_support"}
    path = f"{granted.url}/v1/views/resident"
    for question in ("count()", "region_code,count(),n:birth_date.count()", "citizen_id,count()"):
        answer = httpx2.get(path, params={"select": question}, headers=headers)
        assert [set(row.values()) for row in answer.json()] == [{None}]
    own = httpx2.get(path, params={"select": "birth_date.min()"}, headers=headers)
    assert (own.status_code, own.json()["code"]) == (403, "suppressed")


def test_two_questions_that_differ_in_one_filter_are_marked(granted: World) -> None:
    """The audit log says of how many questions of the day another differs in one filter; it has no values (A12)."""

    def near(question: str) -> int:
        answer = granted.get(f"{VIEW}?select=count()&{question}", *GUARDED)
        (entry,) = [body for body in granted.entries() if body.get("request_id") == answer.headers["Request-Id"]]
        assert entry["question"]["figures"] == ["count(*)"]
        return int(entry["question"]["differ_in_one_filter"])

    assert near("status=eq.AAI&ward=gte.3&police_district=lte.20") == 0
    assert near("status=eq.AAI&ward=gte.3&police_district=lte.20") == 0
    assert near("status=eq.AAI&ward=gte.3&police_district=lte.19") == 2
    assert near("status=eq.AAI&ward=gte.3") == 3
    assert near("status=neq.AAI&ward=gte.4&police_district=lte.18") == 0


def test_the_budget_of_a_day(granted: World) -> None:
    """Figures that are guarded cost a part of the day's budget; then 429 with the time at which it renews."""
    path = f"{SAMPLE}?select=n:count(),s:fee.sum()"
    explained = granted.get(f"{path}&explain=true", *GUARDED).json()
    assert (explained["least_group"], explained["per_day"]) == (2, 3)
    answers = [granted.get(path, *GUARDED) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].json() == [{"n": 10, "s": 2.06e13}]
    document = answers[-1].json()
    assert (document["code"], document["renews_at"][-10:]) == ("rate_limited", "T00:00:00Z")


def test_the_portal_shows_figures_and_related_views(granted: World) -> None:
    """What "ask as" is asked may name both; a file has no rows within rows."""
    sides = "left=food&left_purpose=inspection_planning&right=tax&right_purpose=levy"
    for question in (
        "select=ward,figured:count()",
        "select=ward,inspection_history(result)",
        "select=legal_name,count()",
    ):
        page = httpx2.get(f"{granted.url}/ask", params=f"view=food_business&{sides}&rows=5&lang=en&q={quote(question)}")
        assert page.status_code == 200, page.text[:500]
        assert ("figured" in page.text) == ("figured" in question)
    asked = Query(embedded=(Embedded("seen", "inspection_history", None, Query()),), export=True)
    shape = granted.parts.shapes()["food_business"]
    allow = Allow("food_business", ("ward",), {}, EVERY_ROW, Limits(), ("g",), "d", "1.1", "export", "p", "food")
    with pytest.raises(BadFilter, match="rows within rows"):
        permit(asked, shape, allow, dict)


@pytest.mark.parametrize("question", ["limit=5", "limit=1&offset=1", "offset=99&limit=9"])
def test_few_figures_are_asked_for(granted: World, question: str) -> None:
    """A small page of figures over columns is answered like a large one; one beyond the end is refused."""
    whole = granted.get(f"{VIEW}?select=ward,n:count(),mean:police_district.avg()")
    answer = granted.get(f"{VIEW}?select=ward,n:count(),mean:police_district.avg()&{question}")
    places = dict(part.split("=") for part in question.split("&"))
    first = int(places.get("offset", 0))
    if first > len(whole.json()):
        assert (answer.status_code, answer.json()["code"]) == (416, "range")
    else:
        assert answer.json() == whole.json()[first : first + int(places["limit"])]
