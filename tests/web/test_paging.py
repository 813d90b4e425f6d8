"""Pages by cursor: each row once and in order, and cursors that nobody else can use or read."""

from __future__ import annotations

import base64

import httpx2
import pytest
from exported_world import ask, give
from served_world import World

from tests.conftest import eventually

VIEW = "/v1/views/food_business"
FOOD = ("food", "inspection_planning")
SAMPLE = "/v1/views/sample"
NUMBERS = "/v1/views/food_business?select=licence_number"


def _pages(world: World, path: str, department: str, purpose: str) -> list[list[dict[str, object]]]:
    """The pages that lead one to the next."""
    pages = []
    following: str | None = path
    while following:
        answer = ask(world, following, department, purpose)
        assert answer.status_code == 200, answer.text
        pages.append(answer.json())
        link = answer.headers.get("link")
        following = None if link is None else link.removeprefix("<").removesuffix('>; rel="next"')
        assert (link is None) == ("next-cursor" not in answer.headers)
        assert len(pages) < 500
    return pages


@pytest.mark.parametrize(
    "order",
    [
        "",
        "sample_id.desc",
        "label",
        "label.desc",
        "label.nullsfirst",
        "label.desc.nullslast",
        "passed.desc,score",
        "taken_on.nullsfirst,seen_at.desc,fee.desc.nullslast",
        "fee",
        "seen_at,taken_on.desc",
        "score.desc.nullsfirst,label",
    ],
)
def test_pages_hold_each_row_once_and_in_order(either: World, order: str) -> None:
    """Whatever the order and whatever is null in it, the pages together are the answer."""
    question = (
        f"{SAMPLE}?select=label,sample_id,score&order={order}" if order else f"{SAMPLE}?select=label,sample_id,score"
    )
    whole = ask(either, question, "lab", "levy").json()
    assert len(whole) == 8
    pages = _pages(either, f"{question}&limit=3", "lab", "levy")
    assert [len(page) for page in pages] == [3, 3, 2]
    assert [row for page in pages for row in page] == whole
    assert [row for page in _pages(either, f"{question}&limit=1", "lab", "levy") for row in page] == whole


def test_pages_of_many_rows_under_a_row_condition(either: World) -> None:
    """The condition of the grant, filters and columns that are not shown hold on every page; a full last page has no
    successor."""
    question = f"{NUMBERS}&ward=gte.10&order=ward.desc,legal_name.desc"
    refused = ask(either, question, "tax", "levy")
    assert refused.json()["code"] == "field_not_filterable"
    question = f"{NUMBERS}&ward=gte.10&order=ward.desc"
    whole = ask(either, question, "tax", "levy").json()
    pages = _pages(either, f"{question}&limit=8", "tax", "levy")
    assert [row for page in pages for row in page] == whole
    last = ask(either, f"{question}&limit={len(whole)}", "tax", "levy")
    assert "next-cursor" not in last.headers


def test_pages_where_the_key_is_hidden(either: World) -> None:
    """Who does not see the key gets pages when it asks for them, in an order that says nothing of the key."""
    fields = ["label", "score", "passed"]
    give(
        either, {"id": "no-key", "channels": ["query"], "fields": fields, "limits": {"per_minute": 600, "rows": 1_000}}
    )
    plain = ask(either, f"{SAMPLE}?limit=3", "lab", "case_investigation")
    assert "next-cursor" not in plain.headers
    pages = _pages(either, f"{SAMPLE}?limit=3&cursor=start", "lab", "case_investigation")
    assert [len(page) for page in pages] == [3, 3, 2]
    rows = [row for page in pages for row in page]
    whole = ask(either, SAMPLE, "lab", "case_investigation").json()
    assert sorted(map(str, rows)) == sorted(map(str, whole))
    assert set(rows[0]) == set(fields)
    ordered = _pages(either, f"{SAMPLE}?limit=2&order=passed.desc&cursor=start", "lab", "case_investigation")
    assert [row["passed"] for page in ordered for row in page] == [None] * 5 + [True, True, False]


def _cursor(world: World, path: str, department: str, purpose: str) -> str:
    cursor = ask(world, path, department, purpose).headers["next-cursor"]
    assert cursor
    return cursor


def test_a_cursor_is_for_one_question_of_one_asker(either: World) -> None:
    """Another asker, purpose, view, filter, order, select or grant, and the cursor is refused (A13)."""
    give(
        either,
        {"id": "first", "channels": ["query"]},
        {"id": "second", "consumer": "market", "channels": ["query"]},
    )
    asked = f"{SAMPLE}?limit=2&order=label"
    cursor = _cursor(either, asked, "lab", "levy")
    assert ask(either, f"{asked}&cursor={cursor}", "lab", "levy").status_code == 200
    assert ask(either, f"{asked.replace('limit=2', 'limit=5')}&cursor={cursor}", "lab", "levy").status_code == 200
    for path, department, purpose in (
        (asked, "lab", "case_investigation"),
        (asked, "market", "case_investigation"),
        (f"{SAMPLE}?limit=2&order=label.desc", "lab", "levy"),
        (f"{SAMPLE}?limit=2", "lab", "levy"),
        (f"{asked}&sample_id=gt.1", "lab", "levy"),
        (f"{asked}&select=label", "lab", "levy"),
        (f"{VIEW}?limit=2", "food", "inspection_planning"),
    ):
        answer = ask(either, f"{path}&cursor={cursor}", department, purpose)
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_cursor"), path
    own = _cursor(either, asked, "lab", "case_investigation")
    give(either, {"id": "first", "channels": ["query"], "rows": {"field": "sample_id", "op": "gt", "value": 1}})
    narrowed = ask(either, f"{asked}&cursor={own}", "lab", "case_investigation")
    assert narrowed.json()["code"] == "bad_cursor"


def test_a_cursor_cannot_be_forged_or_read(world: World) -> None:
    """A changed, cut, empty or made-up cursor is refused, and none shows what it holds."""
    asked = f"{SAMPLE}?limit=1&order=label"
    cursor = _cursor(world, asked, "lab", "levy")
    held = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    assert b"label" not in held
    assert b"sample" not in held
    swapped = ("A" if cursor[20] != "A" else "B").join((cursor[:20], cursor[21:]))
    for forged in (swapped, cursor[:-4], "", "AAAA", "start2", "\u00e9", "x" * 5_000, cursor + "=", cursor + "!"):
        answer = httpx2.get(
            f"{world.url}{SAMPLE}",
            params={"limit": "1", "order": "label", "cursor": forged},
            headers=world.headers("lab", "levy"),
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_cursor"), forged
    both = ask(world, f"{asked}&cursor={cursor}&offset=1", "lab", "levy")
    assert (both.status_code, both.json()["code"]) == (422, "bad_filter")


def test_an_answer_that_did_not_change(either: World) -> None:
    """With the entity tag of an answer it is not sent again while view, decision and question are the same; that is
    recorded too; the tag is another for another asker, format or state of the view."""
    first = ask(either, f"{VIEW}?limit=5", *FOOD)
    tag = first.headers["etag"]
    assert tag.startswith('W/"')
    assert first.headers["cache-control"] == "private, no-cache"
    again = ask(either, f"{VIEW}?limit=5", *FOOD, If_None_Match=f'"other", {tag}')
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == tag
    entry = either.parts.audit.recent(1)[0].body
    assert (entry["request_id"], entry["rows"], entry["question"]["unchanged"]) == (
        again.headers["request-id"],
        0,
        True,
    )
    assert ask(either, f"{VIEW}?limit=6", *FOOD, If_None_Match=tag).status_code == 200
    assert ask(either, f"{VIEW}?limit=5", *FOOD, If_None_Match=tag, Accept="text/csv").status_code == 200
    assert ask(either, f"{VIEW}?limit=5", "tax", "levy", If_None_Match=tag).status_code == 200
    denied = ask(either, f"{VIEW}?limit=5", "weather", "levy", If_None_Match=tag)
    assert denied.status_code == 403
    with either.views.begin() as connection:
        connection.exec_driver_sql("UPDATE view SET seq = seq + 1 WHERE name = 'food_business'")
    eventually(lambda: ask(either, f"{VIEW}?limit=5", *FOOD, If_None_Match=tag).status_code == 200)


def test_answers_about_persons_are_not_kept(world: World) -> None:
    """What has a personal column is not to be stored by anybody."""
    answer = ask(world, "/v1/views/resident?citizen_id=eq.11010519491231002X", "police", "case_investigation")
    assert answer.headers["cache-control"] == "no-store"
