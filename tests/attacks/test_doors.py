"""Known attacks at every door over HTTP, each with the exact refusal: SQL in values and names, foreign purposes and
headers, masks, hidden rows, wrong answers of OPA."""

from __future__ import annotations

import http.client
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
import sqlalchemy as sa
from exported_world import ask, give
from served_world import SAMPLES, World

from bus.access.opa import _CANARY, OpaClient

VIEW, SAMPLE = "/v1/views/food_business", "/v1/views/sample"
PURPOSE = "employment_support"
QUESTION = f"{VIEW}/questions/was_ever_licensed?licence_number=eq.7"
_NEW = count(90_000)
ROWS = {"not": {"field": "ward", "op": "gt", "value": 25}}
DOORS = [
    f"{VIEW}?limit=3", f"{VIEW}?licence_number=eq.1", f"{VIEW}?select=ward,count()", f"{VIEW}?cursor=start&limit=1",
    f"{VIEW}?export=true", f"{VIEW}?explain=true", f"{VIEW}?select=ward,seen:inspection_history(result)", QUESTION,
    f"{VIEW}?doing_business_as=plfts.deli",
]  # fmt: skip
"""One address for each way to ask the view."""


@pytest.fixture(scope="module")
def doors(attacked: World) -> World:
    """One department that may use every door, with a masked column and hidden rows."""
    _grant(attacked, per_minute=100_000)
    return attacked


def _grant(world: World, *, per_minute: int) -> None:
    """Other grants are asked about anew, whatever was decided before."""
    limits = {"per_minute": per_minute, "rows": 1_000}
    common = {"purpose": PURPOSE, "limits": limits}
    give(
        world,
        {**common, "id": "doors", "view": "food_business", "masks": {"legal_name": {"keep_first": 3}}, "rows": ROWS,
         "fields": ["licence_number", "legal_name", "doing_business_as", "ward", "status"],
         "channels": ["query", "lookup", "aggregate", "export", "question"], "questions": ["was_ever_licensed"]},
        {**common, "id": "doors-inside", "view": "inspection_history", "fields": ["licence_number", "result"],
         "channels": ["query"]},
        {**common, "id": "doors-sample", "view": "sample", "channels": ["query", "aggregate", "export"],
         "masks": {"label": {"hash": True}, "fee": {"round": 1}}},
        name="doors",
    )  # fmt: skip


@contextmanager
def statements() -> Iterator[list[str]]:
    """The text of every statement that the databases are given meanwhile."""
    seen: list[str] = []

    def note(_: Any, __: Any, text: str, *___: Any) -> None:
        if "food_business" in text:
            seen.append(text)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


@pytest.mark.parametrize("form", ["status=eq.{}", "or=(status.eq.{})", "status=in.({})", "doing_business_as=plfts.{}",
                                  "select=count()&status=neq.{}", "export=true&status=eq.{}",
                                  "cursor=start&limit=2&status=neq.{}"])  # fmt: skip
def test_sql_in_a_value_is_a_value(doors: World, form: str) -> None:
    """The statement is the same as for a harmless value, whatever the value is; NUL is refused (A01)."""
    texts = set()
    for value in ("harmless", "'OR1=1--", "'; DROP TABLE food_business;--", '"' * 2_000, "1)UNION(SELECT", "%_\\"):
        plain = quote(value if "plfts" not in form else value.replace(" ", "")[:90])
        with statements() as seen:
            answer = ask(doors, f"{VIEW}?{form.format(plain)}", "lab", PURPOSE)
        if "(" in form and set(value) & set('()"') and "count" not in form:
            assert answer.status_code in (200, 422)  # brackets and quotes are the dialect's own here
            continue
        assert answer.status_code in (200, 206), answer.text
        if "neq" not in form and "export" not in form:
            assert answer.json() == []
        texts.add("\n".join(seen))
    assert len(texts) == 1
    nul = ask(doors, f"{VIEW}?{form.format('a%00b')}", "lab", PURPOSE)
    assert (nul.status_code, nul.json()["code"]) == (422, "bad_filter")


@pytest.mark.parametrize(
    "name", ["id;drop table x", "(select 1)", "ward--", "ward,1", "_live", "rowid", "ward'", "wärd"]
)
@pytest.mark.parametrize("form", [
    "order={0}.desc", "select=ward,{0}", "{0}=eq.1", "or=({0}.eq.1)", "select=a:{0}", "select={0}.max()",
    "select=ward,s:inspection_history({0})", "select=ward,s:inspection_history(result)&s.{0}=eq.1",
    "export=true&select={0}",
])  # fmt: skip
def test_sql_in_a_name_is_no_name(doors: World, form: str, name: str) -> None:
    """Only a view's own fields are names, at every place where one may stand (A02)."""
    answer = ask(doors, f"{VIEW}?{form.format(quote(name))}", "lab", PURPOSE)
    assert answer.status_code == 422
    assert answer.json()["code"] in ("unknown_field", "bad_filter")
    if "or=" not in form and "," not in name and "(" not in name:
        assert answer.json()["code"] == "unknown_field", answer.text


@pytest.mark.parametrize("value", ["%25", "_", "5%25", "50%25_off%25", "50x_off", "*"])
def test_wildcards_are_themselves(doors: World, value: str) -> None:
    """A search term and `eq` know no wildcards; a grant's prefix with `%` is literal (A04)."""
    named = ask(doors, f"{VIEW}?doing_business_as=eq.{value}", "lab", PURPOSE)
    sought = ask(doors, f"{VIEW}?doing_business_as=plfts.{value}", "lab", PURPOSE)
    assert (named.json(), sought.json()) == ([], [])
    prefixed = ask(doors, f"{SAMPLE}?select=label", "social", "levy").json()
    assert prefixed == [{"label": row["label"]} for row in SAMPLES if str(row["label"]).startswith("50%")]


def _raw(world: World, path: str, *headers: tuple[str, bytes]) -> tuple[int, dict[str, Any]]:
    """Asks with headers as bytes, which may stand twice."""
    connection = http.client.HTTPConnection(world.url.removeprefix("http://"), timeout=30)
    connection.putrequest("GET", path)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    with connection.getresponse() as answer:
        found = answer.status, json.loads(answer.read())
    connection.close()
    return found


@pytest.mark.parametrize("path", DOORS)
def test_another_purpose_is_no_purpose(doors: World, path: str) -> None:
    """Case, width, blanks, lists and a second header: the one granted id is meant, or nothing (A08)."""
    token = ("Authorization", doors.headers("lab")["Authorization"].encode())
    right = ("Purpose", PURPOSE.encode())
    wide = "".join(chr(ord(char) + 0xFEE0) for char in PURPOSE)
    variants = [PURPOSE.upper(), wide, f"{PURPOSE}\u200b", f"{PURPOSE},{PURPOSE}", f"['{PURPOSE}']", "*", "",
                "open_data", "levied"]  # fmt: skip
    for wrong in [[("Purpose", text.encode())] for text in variants] + [[], [right, right]]:
        status, document = _raw(doors, path, token, *wrong)
        assert (status, document["code"]) == (403, "purpose_not_granted"), wrong


@pytest.mark.parametrize("path", DOORS)
def test_no_header_makes_somebody_else(doors: World, path: str) -> None:
    """Claims of another identity or address change nothing; two tokens are none; a certificate that no proxy vouches
    for is refused (A09)."""
    token, purpose = doors.headers("weather")["Authorization"].encode(), ("Purpose", PURPOSE.encode())
    claims = [("X-Department", b"lab"), ("X-Forwarded-User", b"lab"), ("X-Original-URL", b"/v1/open/ward_hygiene"),
              ("X-Forwarded-For", b"127.0.0.1"), ("X-HTTP-Method-Override", b"POST"), ("Forwarded", b"for=lab"),
              ("Cookie", b"session=lab; bus_session=lab")]  # fmt: skip
    status, document = _raw(doors, path, ("Authorization", token), purpose, *claims)
    assert (status, document["code"]) == (403, "not_granted")
    for tokens in ([], [token, doors.headers("lab")["Authorization"].encode()], [b"Basic bGFiOmxhYg=="]):
        status, document = _raw(doors, path, *(("Authorization", one) for one in tokens), purpose, *claims)
        assert (status, document["code"]) == (401, "invalid_token")
    status, document = _raw(
        doors, path, ("Authorization", token), purpose, ("X-Forwarded-Client-Cert", b"URI=dept://lab/1")
    )
    assert (status, document["status"]) == (400, 400)
    status, document = _raw(doors, f"http://evil.example{path}", ("Authorization", token), purpose, ("Host", b"evil"))
    assert (status, document["code"]) == (400, "bad_host")


def test_every_address_needs_a_token(doors: World) -> None:
    """Whatever is added below `/v1`: without a token only open data answers, and nothing is told before (A19)."""
    paths = httpx2.get(f"{doors.url}/openapi.json").json()["paths"]
    asked = [path for path in paths if path.startswith("/v1/") and not path.startswith("/v1/open/")]
    assert {f"{VIEW.replace('food_business', '{view}')}/{end}" for end in ("lineage", "freshness")} <= set(asked)
    for path in asked:
        for method in set(paths[path]) & {"get", "post", "put", "delete"}:
            address = path.replace("{", "").replace("}", "")
            answer = httpx2.request(method, doors.url + address, headers={"Purpose": "levy"})
            served = answer.status_code != 503 or not path.endswith(("/changes", "/subscription"))
            assert not served or (answer.status_code, answer.json()["code"]) == (401, "invalid_token"), path


@pytest.mark.parametrize("masked", ["label", "fee"])
@pytest.mark.parametrize("question", [
    "{0}=eq.x", "{0}=is.null", "{0}=like.a*", "{0}=plfts.a", "or=(sample_id.eq.1,not.and({0}.gt.1))", "order={0}",
    "order={0}&cursor=start&limit=1", "select={0}.count()", "select=a:{0}.min()", "select=sample_id.sum(),x:{0}.sum()",
    "select={0},count()", "select=a:{0},count()", "select=count()&{0}=neq.a", "export=true&order={0}",
    "export=true&{0}=gt.1", "explain=true&{0}=eq.1",
])  # fmt: skip
def test_a_masked_column_tells_nothing(doors: World, masked: str, question: str) -> None:
    """It cannot be filtered, searched, ordered, counted, grouped, summed or paged by, in any door (A10)."""
    answer = ask(doors, f"{SAMPLE}?{question.format(masked)}", "lab", PURPOSE)
    assert (answer.status_code, answer.json()["code"]) == (403, "field_not_filterable"), answer.text
    assert "contact" in answer.json()


@pytest.mark.parametrize("members", [{"masks": {"sample_id": {"hash": True}}}, {"fields": ["label", "score"]}])
def test_the_order_of_rows_tells_nothing_of_a_hidden_key(doors: World, members: dict[str, Any]) -> None:
    """Where the key is masked or left out its keyed hash orders, in answers, by offset and in files (A10)."""
    hidden = {"id": "hidden-key", "view": "sample", "purpose": "service_handling", "channels": ["query", "export"]}
    give(doors, {**hidden, "limits": {"per_minute": 100_000, "rows": 1_000}, **members}, name="hidden-key")

    def told(question: str) -> list[Any]:
        asker = ("lab", "service_handling")
        answer = ask(doors, f"{SAMPLE}?select=label&{question}", *asker, Accept="application/x-ndjson")
        assert answer.status_code in (200, 206), answer.text
        return [json.loads(line)["label"] for line in answer.text.splitlines()]

    by_key, whole = [row["label"] for row in SAMPLES], told("limit=100")
    assert sorted(map(str, whole)) == sorted(map(str, by_key))
    assert whole != by_key
    assert told("export=true") == whole
    assert [told(f"limit=1&offset={place}")[0] for place in range(len(whole))] == whole
    assert told("order=score.desc.nullslast&limit=1") == ["' OR 1=1--"]


@pytest.mark.parametrize("form", ["licence_number=eq.{}&status=not.is.null", "select=count()&licence_number=eq.{}",
                                  "licence_number=eq.{}", "export=true&licence_number=eq.{}",
                                  "cursor=start&limit=1&licence_number=eq.{}", "offset=1&licence_number=eq.{}",
                                  "select=ward,seen:inspection_history(result)&licence_number=eq.{}",
                                  "select=ward,n:count()&licence_number=eq.{}"])  # fmt: skip
def test_a_hidden_row_is_like_none(doors: World, form: str) -> None:
    """Body, status, totals, pages and tags' presence are those of a row that there is not (A13)."""
    told = []
    for number in (30, 999_999):
        answer = ask(doors, f"{VIEW}?{form.format(number)}", "lab", PURPOSE, Prefer="count=exact")
        kept = {name: answer.headers.get(name) for name in ("content-range", "next-cursor", "link", "export-rows",
                                                            "suppressed", "masked-columns")}  # fmt: skip
        body = answer.json() if answer.headers["content-type"].endswith("json") else answer.text
        if answer.status_code >= 400:
            body = body["detail"]
        told.append((answer.status_code, kept, body, "etag" in answer.headers))
    assert told[0] == told[1]


def _wrong(source: random.Random) -> Any:
    """An answer that OPA should not give, or not to this question. (`{}` alone is how it says: no row.)"""
    allow = {"allow": True, "allow_all": True, "grants": ["doors"], "channels": ["query"], "reason": "ok"}
    return source.choice([
        None, [], 1, "true", True, {"result": True}, {"result": {}}, {"result": None}, {"result": "true"},
        {"result": allow}, {"result": {**allow, "narrowing": {}}}, {"result": {"query": {}}}, {"result": {"query": []}},
        {"result": {"query": {"type": "compound", "operator": "or", "value": []}}}, {"result": {"query": None}},
        {"result": {"query": {"type": "field", "operator": "ne", "field": "row.nosuch", "value": 1}}},
        {"result": {"query": {"type": "field", "operator": "is", "field": "row.ward", "value": 1}}},
        {"result": {"allow": source.choice([1, "true", None, [True]])}}, {"result": [allow]}, {"allow": True},
    ])  # fmt: skip


@pytest.mark.parametrize("call", ["/v1/data/", "/v1/compile/"])
def test_a_wrong_answer_of_opa_opens_no_door(
    doors: World, monkeypatch: pytest.MonkeyPatch, full_length: bool, call: str
) -> None:
    """Whichever of its two answers is wrong, every door answers 403 or 503 and shows nothing (F18)."""
    source, real, told = random.Random(3), OpaClient._post, list[Any]()

    async def post(opa: OpaClient, path: str, body: Any, accept: str) -> Any:
        if path == _CANARY or body["input"].get("view") == "canary" or call not in path:
            return await real(opa, path, body, accept)
        told.append(_wrong(source))
        return told[-1]

    monkeypatch.setattr(OpaClient, "_post", post)
    for _ in range(600 if full_length else 3):
        _grant(doors, per_minute=next(_NEW))
        for path in DOORS:
            answer = ask(doors, path, "lab", PURPOSE)
            assert answer.status_code in (403, 429, 503), (path, told[-1:], answer.text)
            assert "Deli" not in answer.text
    assert len(told) >= 3
    monkeypatch.undo()
    assert [ask(doors, path, "lab", PURPOSE).status_code for path in DOORS[:1]] in ([200], [206])
