"""What an entry says as a document."""

from __future__ import annotations

from dataclasses import asdict

from bus.audit.entries import Closing, Disclosure, Refusal
from bus.core.chain import canonical

DISCLOSURE = Disclosure(
    request_id="r",
    who="tax",
    view="food_business",
    purpose="levy",
    channel="query",
    decision_id="d",
    policy_revision="1.2",
    columns=("ward", "legal_name"),
    masked=("legal_name", "account_number"),
    condition={"and": [["ward", "gte", 1], ["ward", "lte", 25]]},
    rows=3,
    grants=("g",),
    question={"filter": "ward=eq", "order": ["ward"]},
)


def test_a_disclosure_says_all_of_itself() -> None:
    """Every member is there; masked columns are sorted, shown ones in their order."""
    body = DISCLOSURE.body()
    whole = asdict(DISCLOSURE) | {"masked": ["account_number", "legal_name"], "columns": ["ward", "legal_name"]}
    assert canonical(body) == canonical(whole)


def test_the_others_too() -> None:
    """A closing entry as it stands; a refusal with a stranger's purpose cut to an id's length."""
    closing = Closing(request_id="r", opening=1, rows=2, complete=True)
    assert closing.body() == asdict(closing)
    refusal = Refusal(
        request_id="r",
        who="tax",
        view="v",
        purpose="x" * 100,
        channel="query",
        code="not_granted",
        policy_revision="1.2",
    )
    assert refusal.body() == asdict(refusal) | {"purpose": "x" * 63}
