"""The portal's page on where values come from: what a department may see of a row, with the events behind it."""

from __future__ import annotations

from urllib.parse import quote

import httpx2
import pytest
from traced_world import Traced

TERMS = {"en": "Where values come from", "zh": "数据溯源"}


def _page(traced: Traced, question: str, **headers: str) -> httpx2.Response:
    return httpx2.get(f"{traced.world.url}/lineage?{question}", headers=headers, timeout=30)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_values_stand_beside_their_events(traced: Traced, language: str) -> None:
    """Each granted field with its value, event, department and contract version; the question is in the audit log."""
    before = len(traced.world.entries())
    page = _page(traced, f"view=food_business&department=food&purpose=inspection_planning&key=20&lang={language}")
    assert page.status_code == 200
    assert TERMS[language] in page.text
    for text in ("Old Wang", "event-1", traced.place("event-1"), "event-4", "market.business_licence"):
        assert text in page.text
    assert "account_number" not in page.text
    assert [entry["question"].get("lineage", False) for entry in traced.world.entries()[before:]] == [True, False]


def test_a_masked_value_stays_masked(traced: Traced) -> None:
    """And versions that the row condition hides are not on the page."""
    page = _page(traced, "view=inspection_history&department=lab&purpose=levy&key=7&lang=en")
    assert "W***" in page.text
    assert "WANG" not in page.text
    assert traced.place("event-2") not in page.text


def test_an_aggregate_shows_what_it_counts(traced: Traced) -> None:
    """Keys only where the department may see these rows itself."""
    page = _page(traced, "view=ward_hygiene&department=lab&purpose=levy&key=3&lang=en")
    assert "<code>c1</code>" in page.text
    assert "<code>c2</code>" not in page.text
    assert "This department may not see which rows they are." in page.text


@pytest.mark.parametrize("key", ["21", "20|x", "x' OR 1=1--", "<script>alert(1)</script>", "\0"])
def test_what_is_no_key_is_told_so(traced: Traced, key: str) -> None:
    """Refused like any question; what was typed is escaped."""
    question = f"view=food_business&department=food&purpose=inspection_planning&key={quote(key)}&lang=en"
    page = _page(traced, question)
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    assert "not_found" in page.text or "bad_filter" in page.text


def test_a_refusal_and_the_form_alone(traced: Traced) -> None:
    """Not granted is shown with its rule; without a key there is only the form, and nothing is asked."""
    refused = _page(traced, "view=food_business&department=weather&purpose=levy&key=20&lang=en")
    assert "not_granted" in refused.text
    before = len(traced.world.entries())
    assert "<form" in _page(traced, "lang=en").text
    assert len(traced.world.entries()) == before
    assert _page(traced, "view=food_business&key=20", **{"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_answers_lead_to_where_they_come_from(traced: Traced) -> None:
    """Each row of "ask as" whose key is shown has the link."""
    side = "left=food&left_purpose=inspection_planning&right=weather&right_purpose=levy"
    page = httpx2.get(f"{traced.world.url}/ask?view=food_business&{side}&rows=5&lang=en", timeout=30)
    link = "/lineage?view=food_business&amp;department=food&amp;purpose=inspection_planning&amp;key=20&amp;lang=en"
    assert link in page.text
