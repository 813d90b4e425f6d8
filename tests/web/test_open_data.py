"""Open data: for everybody, without a token, and nothing about few persons."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx2
import pytest
from exported_world import ask, give
from served_world import World

from consumers import open_data

WARDS = "/v1/open/ward_hygiene"
DISTRICTS = "/v1/open/persons_by_district"
EVERYBODY = {
    "id": "public-persons",
    "consumer": "public",
    "view": "persons_by_district",
    "purpose": "open_data",
    "channels": ["query"],
    "fields": ["district", "persons", "tests", "most"],
}


def test_everybody_reads_open_data(either: World) -> None:
    """The dialect and the formats of the query door, under the grants of everybody; any page may read it, any cache
    keep it for a moment; it is recorded like every disclosure."""
    answer = ask(either, f"{WARDS}?failed=gte.49&order=ward.desc", Prefer="count=exact")
    assert [row["ward"] for row in answer.json()] == [50, 49]
    assert answer.headers["content-range"] == "0-1/2"
    assert answer.headers["cache-control"] == "public, max-age=60"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "authorization" not in answer.headers["vary"].lower()
    assert "suppressed" not in answer.headers
    entry = next(body for body in either.entries() if body.get("request_id") == answer.headers["request-id"])
    assert (entry["who"], entry["purpose"], entry["rows"]) == ("public", "open_data", 2)
    known = {"If_None_Match": answer.headers["etag"]}
    again = ask(either, f"{WARDS}?failed=gte.49&order=ward.desc", Prefer="count=exact", **known)
    assert again.status_code == 304
    csv = ask(either, f"{WARDS}?ward=eq.7&select=ward,failed", Accept="text/csv")
    assert csv.text == "ward,failed\r\n7,7\r\n"
    following = ask(either, f"{WARDS}?limit=20").headers["link"]
    assert following.startswith("</v1/open/ward_hygiene?limit=20&cursor=")


def test_a_token_or_purpose_makes_no_difference(world: World) -> None:
    """Everybody is the same here: neither a department's token nor a bad one, nor another purpose, changes anything."""
    plain = ask(world, f"{WARDS}?ward=eq.7").json()
    for headers in (world.headers("food", "inspection_planning"), {"Authorization": "Bearer x", "Purpose": "levy"}):
        assert httpx2.get(f"{world.url}{WARDS}?ward=eq.7", headers=headers).json() == plain


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/open/food_business", 403, "not_granted"),
        ("/v1/open/resident?citizen_id=eq.11010519491231002X", 403, "not_granted"),
        ("/v1/open/hidden_sample", 404, "unknown_view"),
        ("/v1/open/nowhere", 404, "unknown_view"),
        (f"{WARDS}?nosuch=eq.1", 422, "unknown_field"),
        (f"{WARDS}?cursor=AAAA", 422, "bad_cursor"),
        (f"{WARDS}?export=true", 403, "channel_not_granted"),
    ],
)
def test_refusals_without_a_token(world: World, path: str, status: int, code: str) -> None:
    """What is not open is refused as everywhere, and a view that is not listed stays unknown."""
    answer = ask(world, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_figures_about_few_persons_are_withheld(either: World) -> None:
    """Counts under five are null, and what is made of them; how many is said; no filter or order tells them; for who
    asks with a token for the same purpose as well."""
    give(either, EVERYBODY, name="public-persons")
    answer = ask(either, f"{DISTRICTS}?order=district")
    assert answer.json() == [
        {"district": "east", "persons": 40, "tests": 90, "most": 7},
        {"district": "north", "persons": 5, "tests": 6, "most": 2},
        {"district": "south", "persons": None, "tests": None, "most": None},
        {"district": "west", "persons": None, "tests": None, "most": None},
    ]
    assert answer.headers["suppressed"] == "6"
    for question in ("persons=lt.5", "persons=eq.4", "tests=eq.9", "order=persons", "order=persons.desc.nullslast"):
        refused = ask(either, f"{DISTRICTS}?{question}")
        assert (refused.status_code, refused.json()["code"]) == (403, "field_not_filterable")
    same = ask(either, "/v1/views/persons_by_district?order=district", "food", "open_data")
    assert (same.json(), same.headers["suppressed"]) == (answer.json(), "6")
    pages = ask(either, f"{DISTRICTS}?order=district.desc&limit=1")
    assert pages.headers["suppressed"] == "3"


def test_a_citizens_program_prints_the_wards(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """The example needs neither a token nor the bus's own library, and says plainly when it is refused."""
    assert open_data.main(world.url) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("{")]  # the server's log
    assert len(lines) > 10
    assert lines[0].split() == ["ward", "complaints", "open_complaints", "passed", "conditional", "failed"]
    assert open_data.main(world.url, "food_business") == 1
    assert "licence@market.example" in capsys.readouterr().err
    source = Path(open_data.__file__).read_text()
    assert "import bus" not in source
    assert sys.modules["consumers.open_data"] is open_data


def test_an_address_that_asks_too_often_waits_alone(world: World) -> None:
    """Questions are counted by address; who has a token is not held up by them."""
    answers = [ask(world, f"{WARDS}?limit=1") for _ in range(125)]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert ask(world, "/v1/views/ward_hygiene?limit=1", "food", "open_data").status_code == 200
