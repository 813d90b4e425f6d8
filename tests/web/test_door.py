"""The query door over HTTP: what is shown, what is refused in which order, and what is recorded."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from served_world import XSS, World

from bus.errors import AuditUnavailable

VIEW = "/v1/views/food_business"


def test_two_departments_see_different_answers(either: World) -> None:
    """Rows, columns and masks follow the grant; null stays null; the count is of the rows one may see."""
    tax = either.get(f"{VIEW}?order=licence_number&limit=30", "tax", "levy", Prefer="count=exact")
    food = either.get(f"{VIEW}?order=licence_number&limit=30", Prefer="count=exact")
    assert {row["ward"] <= 25 for row in tax.json()} == {True}
    assert tax.json()[0]["legal_name"] == "老王饭***"
    assert "latitude" not in tax.json()[0]
    assert "account_number" not in food.json()[0]
    assert food.json()[1]["legal_name"] == XSS
    assert tax.headers["masked-columns"] == "legal_name"
    assert food.headers["content-range"] == "0-29/400"
    assert tax.headers["content-range"].startswith("0-29/")
    assert int(tax.headers["content-range"].split("/")[1]) < 400
    assert tax.status_code == food.status_code == 206


def test_every_answer_says_about_itself(world: World) -> None:
    """Request-Id, Policy-Revision, Data-Freshness, Masked-Columns; nobody else may store it, nothing is embedded."""
    headers = world.get(f"{VIEW}?limit=1").headers
    assert len(headers["request-id"]) == 32
    assert headers["policy-revision"].count(".") == 1
    sources = dict(item.split("=") for item in headers["data-freshness"].split(", "))
    assert sources.keys() == {"licence", "inspection"}
    assert all(float(seconds) >= 0 for seconds in sources.values())
    assert headers["masked-columns"] == ""
    assert headers["cache-control"] == "private, no-cache"
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("path", "department", "purpose", "status", "code"),
    [
        ("/v1/views/nowhere?x=y", "food", "inspection_planning", 404, "unknown_view"),
        ("/v1/views/hidden_sample", "food", "inspection_planning", 404, "unknown_view"),
        (f"{VIEW}?nosuch=eq.1", "weather", "levy", 403, "not_granted"),
        (f"{VIEW}?ward=broken", "weather", "levy", 403, "not_granted"),
        (f"{VIEW}?nosuch=eq.1", "tax", "inspection_planning", 403, "purpose_not_granted"),
        (VIEW, "tax", None, 403, "purpose_not_granted"),
        (VIEW, "tax", "LEVY", 403, "purpose_not_granted"),
        (VIEW, "tax", "levy,inspection_planning", 403, "purpose_not_granted"),
        (VIEW, "tax", "", 403, "purpose_not_granted"),
        ("/v1/views/resident?name=eq.x", "police", "case_investigation", 403, "channel_not_granted"),
        (f"{VIEW}?select=latitude", "tax", "levy", 403, "field_not_granted"),
        (f"{VIEW}?latitude=gt.1", "tax", "levy", 403, "field_not_granted"),
        (f"{VIEW}?legal_name=eq.x", "tax", "levy", 403, "field_not_filterable"),
        (f"{VIEW}?legal_name=like.x*", "tax", "levy", 403, "field_not_filterable"),
        (f"{VIEW}?order=legal_name", "tax", "levy", 403, "field_not_filterable"),
        (f"{VIEW}?or=(ward.eq.1,legal_name.gt.m)", "tax", "levy", 403, "field_not_filterable"),
        (f"{VIEW}?select=legal_nam", "tax", "levy", 422, "unknown_field"),
        (f"{VIEW}?nosuch=eq.1", "tax", "levy", 422, "unknown_field"),
        (f"{VIEW}?order=id;drop%20table", "tax", "levy", 422, "unknown_field"),
        (f"{VIEW}?select=ward,(select%201)", "tax", "levy", 422, "unknown_field"),
        (f"{VIEW}?a%20b=eq.1", "tax", "levy", 422, "unknown_field"),
        (f"{VIEW}?_live=eq.1", "tax", "levy", 422, "unknown_field"),
        (f"{VIEW}?ward=eq.x", "tax", "levy", 422, "bad_filter"),
        (f"{VIEW}?ward=20", "tax", "levy", 422, "bad_filter"),
        (f"{VIEW}?address=eq.a%00b", "tax", "levy", 422, "bad_filter"),
        (f"{VIEW}?address=eq.%ff", "tax", "levy", 422, "bad_filter"),
        ("/v1/views/weather_daily", "food", "open_data", 503, "view_rebuilding"),
        (f"{VIEW}?offset=1000", "food", "inspection_planning", 416, "range"),
    ],
)
def test_refusals(world: World, path: str, department: str, purpose: str | None, status: int, code: str) -> None:
    """View, grant, purpose, channel, fields, in this order; each refusal is a problem document."""
    answer = world.get(path, department, purpose)
    document = answer.json()
    assert (answer.status_code, document["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["status"] == status
    assert document["request_id"] == answer.headers["request-id"]
    assert "SELECT" not in answer.text
    assert "Traceback" not in answer.text
    if status == 403:
        owner = "data@police.example" if "resident" in path else "licence@market.example"
        assert document["contact"] == owner
    if status == 503:
        assert int(answer.headers["retry-after"]) >= 1


def test_an_unlisted_view_is_unknown_in_the_same_words(world: World) -> None:
    """A view one may not know of is refused as one that there is not."""
    hidden, none = world.get("/v1/views/hidden_sample").json(), world.get("/v1/views/hidden_simple").json()
    assert hidden["detail"].replace("sample", "simple") == none["detail"]


def test_a_misspelt_field_is_corrected(world: World) -> None:
    """The hint names the nearest field, and only fields that the caller may see."""
    assert "'legal_name'" in world.get(f"{VIEW}?select=legal_nam", "tax", "levy").json()["detail"]
    assert "latitude" not in world.get(f"{VIEW}?select=latitud", "tax", "levy").json()["detail"]


def test_identity_comes_from_the_token_only(world: World) -> None:
    """No header makes somebody else of the caller, and two tokens are none (A09)."""
    spoofed = {"X-Department": "food", "X-Forwarded-User": "food", "X-Original-URL": "/v1/views/resident"}
    assert world.get(VIEW, "weather", "levy", **spoofed).status_code == 403
    bare = world.get("/v1/views/food_business", Authorization="Bearer nonsense")
    assert (bare.status_code, bare.json()["code"]) == (401, "invalid_token")
    assert bare.headers["www-authenticate"].startswith("Bearer")


def test_a_value_is_never_sql(world: World) -> None:
    """Quotes, comments and ten thousand quotation marks are text that nothing matches (A01)."""
    for value in ("' OR 1=1--", "'; DROP TABLE v_food_business;--", "'" * 2_000, '"' * 2_000, "%25"):
        answer = world.get(f"{VIEW}?address=eq.{value}")
        assert (answer.status_code, answer.json()) == (200, [])
    assert world.get(f"{VIEW}?limit=1").status_code == 200


def test_numbers_beyond_the_database(either: World) -> None:
    """A number that no row can hold matches nothing or is refused, never a fault."""
    for value in ("9" * 39, "1e999", "-1e-999", "0." + "1" * 39):
        answer = either.get(f"/v1/views/sample?fee=eq.{value}", "lab", "levy")
        assert answer.status_code in (200, 422)
        assert answer.status_code == 422 or answer.json() == []


def test_what_leaves_for_hidden_rows(world: World) -> None:
    """Total, page and status tell nothing of rows behind the filter (A13)."""
    hidden = world.get(f"{VIEW}?licence_number=eq.30&ward=not.is.null", "tax", "levy", Prefer="count=exact")
    absent = world.get(f"{VIEW}?licence_number=eq.99999&ward=not.is.null", "tax", "levy", Prefer="count=exact")
    assert hidden.json() == absent.json() == []
    assert hidden.headers["content-range"] == absent.headers["content-range"] == "*/0"
    assert hidden.status_code == absent.status_code == 200


def test_masked_keys_do_not_order(world: World) -> None:
    """A masked key neither filters nor orders, and hashes are the same from call to call (A10)."""
    answer = world.get("/v1/views/sample", "social", "levy")
    assert answer.headers["masked-columns"] == "sample_id,seen_at"
    assert [len(row["sample_id"]) for row in answer.json()] == [32]
    assert answer.json() == world.get("/v1/views/sample", "social", "levy").json()
    assert world.get("/v1/views/sample?sample_id=eq.6", "social", "levy").json()["code"] == "field_not_filterable"


def test_limits_of_the_grant(world: World) -> None:
    """A larger limit is cut to the grant's; without one a thousand rows at most are given."""
    assert world.get("/v1/views/sample?limit=100", "social", "levy").headers["content-range"] == "0-0/*"
    assert len(world.get("/v1/views/food_business?limit=5000", "tax", "levy").json()) < 400
    assert len(world.get("/v1/views/complaint?limit=5000").json()) == 1_000
    assert len(world.get("/v1/views/complaint").json()) == 1_000
    assert world.get("/v1/views/complaint?limit=0").json() == []


def test_too_many_questions(world: World) -> None:
    """Beyond the grant's questions a minute the answer is 429 with the seconds to wait."""
    answers = [world.get("/v1/views/sample?limit=1", "weather", "levy") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].json()["code"] == "rate_limited"
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60


def test_a_crowd_is_bounded(either: World) -> None:
    """Of many questions at once each is answered or told to wait, and others get through (F25)."""

    async def ask() -> list[httpx2.Response]:
        headers = either.headers("food", "inspection_planning")
        limits = httpx2.Limits(max_connections=120)
        async with httpx2.AsyncClient(base_url=either.url, headers=headers, timeout=60, limits=limits) as client:
            return list(await asyncio.gather(*(client.get(f"{VIEW}?ward=eq.{n % 50}") for n in range(120))))

    answers = asyncio.run(ask())
    assert {answer.status_code for answer in answers} <= {200, 429}
    assert sum(answer.status_code == 200 for answer in answers) >= 20
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)
    assert either.get(f"{VIEW}?limit=1", "tax", "levy").status_code == 200


def test_a_look_up_has_no_count(world: World) -> None:
    """eq on the key is a look-up, which a look-up grant allows, and it has no total."""
    path = "/v1/views/resident?citizen_id=eq.11010519491231002X"
    answer = world.get(path, "police", "case_investigation", Prefer="count=exact")
    assert answer.json()[0]["name"] == "张伟"
    assert answer.headers["content-range"] == "0-0/*"


def test_the_end_of_the_rows(world: World) -> None:
    """A page right after the last row is empty, one beyond it is refused, HEAD counts."""
    assert world.get(f"{VIEW}?offset=400").json() == []
    assert world.get(VIEW, Range="0-1", Range_Unit="items").json() == world.get(f"{VIEW}?limit=2").json()
    assert world.get(VIEW, Range="500-501").status_code == 416


def test_explained(world: World) -> None:
    """`explain` gives the decision and not one row; a refusal explains itself."""
    document = world.get(f"{VIEW}?explain=true", "tax", "levy").json()
    assert document["grants"] == ["tax-food-business-levy"]
    assert document["masks"] == {"legal_name": {"keep_first": 3}}
    assert "latitude" not in document["columns"]
    assert world.get(f"{VIEW}?explain=true", "weather", "levy").json()["code"] == "not_granted"


def test_the_audit_entry_stands_first(world: World) -> None:
    """Who, what, why and how many rows are recorded, and no value of the question or the answer."""
    answer = world.get(f"{VIEW}?address=eq.SECRET&or=(ward.eq.7,ward.eq.8)&order=ward", "tax", "levy")
    (entry,) = [body for body in world.entries() if body.get("request_id") == answer.headers["request-id"]]
    assert entry["kind"] == "disclosure"
    assert (entry["who"], entry["view"], entry["purpose"]) == ("tax", "food_business", "levy")
    assert entry["question"]["filter"] == "address=eq, or=(ward=eq,ward=eq)"
    assert entry["masked"] == ["legal_name"]
    assert entry["rows"] == 0
    assert entry["policy_revision"] == answer.headers["policy-revision"]
    assert "SECRET" not in str(world.entries())
    refused = world.get(VIEW, "weather", "levy")
    (entry,) = [body for body in world.entries() if body.get("request_id") == refused.headers["request-id"]]
    assert (entry["kind"], entry["code"]) == ("refusal", "not_granted")


@pytest.mark.parametrize("question", ["legal_name=like.J*", "order=legal_name", "select=latitude"])
def test_probing_a_hidden_field_leaves_a_trace(world: World, question: str) -> None:
    """A refused field is in the audit log like any other refusal (A10)."""
    answer = world.get(f"/v1/views/food_business?{question}", "tax", "levy")
    assert answer.status_code == 403
    newest = world.parts.audit.recent(1)[0].body
    assert (newest["kind"], newest["request_id"]) == ("refusal", answer.headers["Request-Id"])
    assert newest["code"] == answer.json()["code"]


@pytest.mark.parametrize("question", ["wrd=eq.1", "ward=eq.x", "legal_name=eq.X", "limit=1&offset=100000"])
def test_errors_say_under_which_policy(world: World, question: str) -> None:
    """What a granted question gets for an error carries the revision too."""
    answer = world.get(f"/v1/views/food_business?{question}", "tax", "levy")
    assert answer.status_code in (403, 416, 422)
    assert answer.headers["Policy-Revision"].count(".") == 1


def test_no_audit_no_rows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the entry cannot be written, nothing is shown."""

    async def full(_: object) -> int:
        raise AuditUnavailable

    monkeypatch.setattr(world.parts.audit, "append", full)
    answer = world.get(f"{VIEW}?limit=1")
    assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")
    assert "licence_number" not in answer.text


def test_formats(world: World) -> None:
    """CSV is a download without formulas, JSON lines are lines, one object is one object, Parquet is an export."""
    csv = world.get("/v1/views/sample?sample_id=eq.2&select=label,score,fee", "lab", "levy", Accept="text/csv")
    assert csv.text == "label,score,fee\r\n'=1+1,-2.5,-0.50\r\n"
    assert csv.headers["content-disposition"] == 'attachment; filename="sample.csv"'
    lines = world.get(f"{VIEW}?limit=2", Accept="application/x-ndjson")
    assert lines.text.count("\n") == 2
    one = world.get(f"{VIEW}?licence_number=eq.3", Accept="application/vnd.pgrst.object+json")
    assert one.json()["licence_number"] == 3
    assert world.get(VIEW, Accept="image/png").json()["code"] == "not_acceptable"
    assert world.get(VIEW, Accept="application/vnd.apache.parquet").json()["code"] == "channel_not_granted"


def test_an_alias_keeps_its_mask(world: World) -> None:
    """A renamed column is masked under its new name."""
    answer = world.get(f"{VIEW}?select=ward,called:legal_name&limit=1", "tax", "levy")
    assert answer.json()[0]["called"].endswith("***")
    assert answer.headers["masked-columns"] == "called"
