"""Histories at the query door: as of an instant, valid at an instant, within grants, masks and limits."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from traced_world import Traced

VIEW = "/v1/views/inspection_history"


def _results(
    traced: Traced, question: str, department: str = "food", purpose: str = "inspection_planning"
) -> list[str]:
    answer = traced.world.get(f"{VIEW}?{question}", department, purpose)
    assert answer.status_code == 200, answer.text
    return [f"{row['inspection_id']} {row['result']}" for row in answer.json()]


@pytest.mark.parametrize(
    ("question", "rows"),
    [
        ("order=inspection_id", ["7 Fail", "9 Out of Business"]),
        ("as_of=2026-01-02", []),
        ("as_of=2026-01-03", ["7 Pass"]),
        ("as_of=2026-01-04T23:59:59.999Z", ["7 Pass", "8 Fail"]),
        ("as_of=2026-01-05", ["7 Fail", "8 Fail"]),
        ("as_of=2026-01-07T08:00:00%2B08:00", ["7 Fail"]),
        ("as_of=9999-12-31", ["7 Fail", "9 Out of Business"]),
        ("valid_at=2025-06-01", ["7 Fail", "8 Fail", "9 Out of Business"]),
        ("valid_at=2025-05-31T23:59:59Z", []),
        ("valid_at=2025-06-01&as_of=2026-01-04", ["7 Pass", "8 Fail"]),
        ("as_of=2026-01-05&result=eq.Fail&inspection_id=in.(8,9)", ["8 Fail"]),
        ("as_of=2026-01-05&order=inspection_id.desc&limit=1", ["8 Fail"]),
        ("as_of=2026-01-05&or=(inspection_id.eq.7,result.eq.Pass)", ["7 Fail"]),
        ("as_of=2026-01-05&inspection_id=eq.8", ["8 Fail"]),
    ],
)
def test_a_question_about_another_moment(traced: Traced, question: str, rows: list[str]) -> None:
    """Every filter, order and limit is of the rows as they were."""
    assert _results(traced, question) == rows


def test_the_grants_condition_and_masks_hold_for_the_past(traced: Traced) -> None:
    """A row is shown as of a moment if the grant's condition held for it as it was then; masked columns stay masked."""
    ask = {"department": "lab", "purpose": "levy"}
    assert _results(traced, "as_of=2026-01-04T12:00:00Z", **ask) == ["8 Fail"]
    assert _results(traced, "as_of=2026-01-05", **ask) == ["7 Fail", "8 Fail"]
    answer = traced.world.get(f"{VIEW}?as_of=2026-01-05&select=dba_name", "lab", "levy", Prefer="count=exact")
    assert [row["dba_name"] for row in answer.json()] == ["W***", "=***"]
    assert answer.headers["content-range"] == "0-1/2"
    assert answer.headers["masked-columns"] == "dba_name"
    for question in ("as_of=2026-01-05&dba_name=eq.WANG", "as_of=2026-01-05&select=risk"):
        assert traced.world.get(f"{VIEW}?{question}", "lab", "levy").status_code == 403


def test_the_moment_is_recorded_and_explained(traced: Traced) -> None:
    """Audit entry and explanation name it in UTC; now is not named."""
    question = "as_of=2026-01-05T08:00:00%2B08:00&valid_at=2026-01-01"
    explained = traced.world.get(f"{VIEW}?{question}&explain=true").json()
    assert explained["as_of"] == "2026-01-05T00:00:00Z"
    assert explained["valid_at"] == "2026-01-01T00:00:00Z"
    recorded = traced.world.entries()[-1]["question"]
    assert (recorded["as_of"], recorded["valid_at"]) == (explained["as_of"], explained["valid_at"])
    assert "as_of" not in traced.world.get(f"{VIEW}?explain=true").json()


def test_other_views_say_which_keep_their_history(traced: Traced) -> None:
    """Views that do not are refused by name, to those who may ask them at all."""
    for view, time in (("food_business", "as_of"), ("complaint", "valid_at")):
        answer = traced.world.get(f"/v1/views/{view}?{time}=2026-01-01")
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_filter")
        assert "inspection_history" in answer.json()["detail"]
    assert traced.world.get("/v1/views/food_business?as_of=2026-01-01", "weather", "levy").status_code == 403


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01", "2026-01-01T00:00:00", "2026-01-01'--", "2026-01-01\0", "1 OR 1=1", "-1"]
)
def test_what_is_no_instant_is_refused(traced: Traced, text: str) -> None:
    """Nothing of it reaches the database."""
    for name in ("as_of", "valid_at"):
        answer = traced.world.get(f"{VIEW}?{name}={quote(text)}")
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_filter")
    assert traced.world.get(f"{VIEW}?as_of=2026-01-01&as_of=2026-01-02").status_code == 422
