"""Minimal answers: yes or no to a declared question, and nothing of the record."""

from __future__ import annotations

import datetime as dt
from typing import Any

import httpx2
import pytest
from served_world import World

from bus.sharing.client import Answered, QueryClient

PATH = "/v1/views/food_business/questions"
ASKER = ("one_stop", "service_handling")


def _ask(world: World, question: str, key: str, *asker: str, **headers: str) -> httpx2.Response:
    return world.get(f"{PATH}/{question}?{key}", *(asker or ASKER), **headers)


@pytest.mark.parametrize(
    ("question", "number", "answer"),
    [
        ("was_ever_licensed", 7, True),
        ("has_valid_licence", 7, False),
        ("was_ever_licensed", 999_999, False),
    ],
)
def test_a_question_is_answered(either: World, question: str, number: int, answer: bool) -> None:
    """Yes or no, for a missing value and for a number that nobody has as well; the record stays where it is."""
    said = _ask(either, question, f"licence_number=eq.{number}")
    assert said.status_code == 200, said.text
    assert said.json().keys() == {"view", "question", "answer", "as_of"}
    assert said.json()["answer"] is answer
    assert dt.datetime.fromisoformat(said.json()["as_of"]).tzinfo is not None
    assert said.headers["Policy-Revision"]
    assert "老王" not in said.text


@pytest.mark.parametrize(
    ("path", "asker", "status", "code"),
    [
        ("has_valid_licence?licence_number=eq.7", ("weather", "levy"), 403, "not_granted"),
        ("has_valid_licence?licence_number=eq.7", ("one_stop", "levy"), 403, "purpose_not_granted"),
        ("has_valid_licence?licence_number=eq.7", ("food", "inspection_planning"), 403, "channel_not_granted"),
        ("is_it_nice?licence_number=eq.7", ASKER, 404, "not_found"),
        ("has_valid_licence", ASKER, 422, "bad_filter"),
        ("has_valid_licence?licence_number=gt.7", ASKER, 422, "bad_filter"),
        ("has_valid_licence?licence_number=not.eq.7", ASKER, 422, "bad_filter"),
        ("has_valid_licence?licence_number=in.(7,8)", ASKER, 422, "bad_filter"),
        ("has_valid_licence?licence_number=eq.7&licence_number=eq.7", ASKER, 422, "bad_filter"),
        ("has_valid_licence?licence_number=eq.7&ward=eq.1", ASKER, 422, "bad_filter"),
        ("has_valid_licence?licence_number=eq.7&select=legal_name", ASKER, 422, "bad_filter"),
        ("has_valid_licence?licence_number=eq.seven", ASKER, 422, "bad_filter"),
        ("has_valid_licence?licence_number=eq.%ff", ASKER, 422, "bad_filter"),
    ],
)
def test_what_is_refused(world: World, path: str, asker: tuple[str, str], status: int, code: str) -> None:
    """Only a whole key, only a question that is declared and granted, for the purpose that was granted."""
    answer = world.get(f"{PATH}/{path}", *asker)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_who_may_ask_may_do_nothing_else(world: World) -> None:
    """The grant of a question gives no row, no figure, no look-up (D6)."""
    for question in ("licence_number=eq.7", "limit=1", "select=count()", "select=ward,count()"):
        answer = world.get(f"/v1/views/food_business?{question}", *ASKER)
        assert (answer.status_code, answer.json()["code"]) == (403, "channel_not_granted")


def test_a_question_that_the_grant_lacks(world: World) -> None:
    """A declared question is answered only under a grant that names it; rows beyond the grant are like none at all."""
    key = "sample_id=eq.6"
    path = "/v1/views/sample/questions"
    assert world.get(f"{path}/passed?{key}", "social", "levy").json()["code"] == "question_not_granted"
    within = world.get(f"{path}/scored?{key}", "social", "levy").json()
    beyond = world.get(f"{path}/scored?sample_id=eq.5", "social", "levy").json()
    nobody = world.get(f"{path}/scored?sample_id=eq.500", "social", "levy").json()
    assert (within["answer"], beyond["answer"], nobody["answer"]) == (True, None, None)


def test_the_audit_entry_has_neither_key_nor_answer(world: World) -> None:
    """Who asked which question, by which decision; nothing of whom it was about or what was said."""
    said = _ask(world, "was_ever_licensed", "licence_number=eq.7")
    (entry,) = [body for body in world.entries() if body.get("request_id") == said.headers["Request-Id"]]
    assert (entry["kind"], entry["who"], entry["channel"], entry["columns"]) == (
        "disclosure",
        "one_stop",
        "question",
        [],
    )
    assert entry["question"] == {"question": "was_ever_licensed", "filter": "licence_number=eq", "explained": False}
    assert "answer" not in str(entry)


def test_explained(world: World) -> None:
    """The decision and the question in words, without its answer and without counting against the day."""
    document: dict[str, Any] = _ask(world, "has_valid_licence", "licence_number=eq.7&explain=true").json()
    assert document["grants"] == ["one-stop-food-business-licence"]
    assert document["limits"] == {"per_minute": 60, "per_day": 2000}
    assert document["title"]["en"].endswith("?")
    assert "answer" not in document


def test_guessing_is_bounded(world: World) -> None:
    """Beyond the questions a day the answer is 429 with the time at which they renew; a restart forgets nothing."""
    path = "/v1/views/sample/questions/scored?sample_id=eq.6"
    answers = [world.get(path, "tax", "levy") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    document = answers[-1].json()
    assert document["code"] == "rate_limited"
    assert document["renews_at"].endswith("T00:00:00Z")
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 86_400


def test_the_client_asks(world: World) -> None:
    """`QueryClient.ask` gives the answer as a value and raises refusals."""
    issuer = world.parts.issuer
    assert issuer is not None
    with QueryClient(world.url, lambda: issuer.token("one_stop")) as client:
        key = {"licence_number": 7}
        said = client.ask("food_business", "was_ever_licensed", purpose="service_handling", key=key)
        assert (said.answer, said.as_of[-1]) == (True, "Z")
        with pytest.raises(Answered, match="may not read"):
            client.ask("food_business", "was_ever_licensed", purpose="levy", key=key)
