"""A view's own rules beside the grants: they take away and never add."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from access_worlds import KINDS, decider, grant, grant_set, shape
from opa_process import POLICIES, Opa, running_opa

from bus.access.answers import EVERY_ROW, NO_ROW, And, Comparison, Filter, parse_verdict
from bus.access.bundle import build_bundle
from bus.access.decision import Allow, Decision, Deny
from bus.access.identity import Subject
from bus.access.store import GrantStore
from bus.errors import NotGranted, PolicyError, PurposeNotGranted

RULES = {
    "own_ward": """
default allow := false
allow if is_string(input.subject.officer)
include if {
    allow
    input.row.ward != null
    input.row.ward == input.subject.attributes.ward
}
hint := "Name the officer."
""",
    "all_open": "allow := true\nallow_all := true\ninclude := true\n",
    "half_said": "allow := true\ninclude := true\n",
    "no_rows": "allow := true\n",
    "too_many": "allow := true\nallow_all := true\ninclude if input.row.ward == 1\n",
    "no_answer": 'allow := "true"\ninclude := true\nallow_all := true\n',
    "uncompilable": 'allow := true\ninclude if regex.match("^a", input.row.name)\n',
    "other_fields": "allow := true\ninclude if input.row.secret == 1\n",
}


@pytest.fixture(scope="module")
def ruled_opa(
    opa_binary: Path, tmp_path_factory: pytest.TempPathFactory, bundle_keys: tuple[bytes, bytes]
) -> Iterator[Opa]:
    """OPA with the bus's rules, and rules of single views beside them."""
    policies = tmp_path_factory.mktemp("policies")
    shutil.copytree(POLICIES, policies, dirs_exist_ok=True)
    for view, rules in RULES.items():
        (policies / "bus" / "views" / f"{view}.rego").write_text(f"package bus.views.{view}\n{rules}")
    folder = tmp_path_factory.mktemp("ruled_opa")
    with running_opa(opa_binary, folder, build_bundle(policies, 1, bundle_keys[0]), bundle_keys[1]) as (opa, _):
        yield opa


@pytest.fixture
def store(governance: sa.Engine) -> GrantStore:
    return GrantStore(governance)


def decide(opa: Opa, store: GrantStore, view: str, subject: Subject, purpose: str = "levy") -> Decision:
    async def run() -> Decision:
        return await decider(opa.url, store).decide(subject, shape(view, KINDS), purpose, "query")

    return asyncio.run(run())


def granted(store: GrantStore, view: str, rows: Any = None) -> None:
    store.apply(grant_set(grant(view=view, rows=rows)), os_user="root")


def test_what_the_views_rule_takes_away(ruled_opa: Opa, store: GrantStore) -> None:
    """Rows are those that the grant and the view's rule both allow."""
    rows = {"field": "name", "op": "missing"}
    granted(store, "own_ward", rows)
    allow = decide(ruled_opa, store, "own_ward", Subject("tax", "zhao.min", attributes={"ward": 3}))
    assert isinstance(allow, Allow)
    own = And((Comparison("ward", "ne", None), Comparison("ward", "eq", 3)))
    assert allow.filter == And((Comparison("name", "eq", None), own))
    nowhere = decide(ruled_opa, store, "own_ward", Subject("tax", "zhao.min"))
    assert isinstance(nowhere, Allow)
    assert nowhere.filter == NO_ROW


def test_who_the_views_rule_refuses_is_told(ruled_opa: Opa, store: GrantStore) -> None:
    """Though a grant covers the request: which rule, whose, and its hint."""
    granted(store, "own_ward")
    deny = decide(ruled_opa, store, "own_ward", Subject("tax", attributes={"ward": 3}))
    assert isinstance(deny, Deny)
    assert isinstance(deny.error, NotGranted)
    assert "Name the officer." in deny.error.detail
    assert deny.error.members["rule"] == "bus.views.own_ward: allow"
    assert deny.error.members["contact"] == "data@market.example"


@pytest.mark.parametrize("rows", [None, {"field": "ward", "op": "missing"}])
def test_a_rule_that_allows_everything_adds_nothing(ruled_opa: Opa, store: GrantStore, rows: Any) -> None:
    """The grant alone says what is shown, and who has none is refused."""
    granted(store, "all_open", rows)
    allow = decide(ruled_opa, store, "all_open", Subject("tax"))
    assert isinstance(allow, Allow)
    expected: Filter = EVERY_ROW if rows is None else Comparison("ward", "eq", None)
    assert allow.filter == expected
    for subject, purpose, error in ((Subject("food"), "levy", NotGranted), (Subject("tax"), "x", PurposeNotGranted)):
        deny = decide(ruled_opa, store, "all_open", subject, purpose)
        assert isinstance(deny, Deny)
        assert isinstance(deny.error, error)


@pytest.mark.parametrize("view", ["half_said", "too_many", "uncompilable", "other_fields"])
def test_two_answers_that_disagree_show_nothing(ruled_opa: Opa, store: GrantStore, view: str) -> None:
    """Every row without `allow_all`, `allow_all` with a filter, what cannot be a filter, and fields of nowhere."""
    granted(store, view)
    deny = decide(ruled_opa, store, view, Subject("tax"))
    assert isinstance(deny, Deny)
    assert isinstance(deny.error, PolicyError)


def test_rules_that_do_not_say_yes_refuse(ruled_opa: Opa, store: GrantStore) -> None:
    """No row where no row is included; nothing at all where `allow` is anything but true."""
    granted(store, "no_rows")
    allow = decide(ruled_opa, store, "no_rows", Subject("tax"))
    assert isinstance(allow, Allow)
    assert allow.filter == NO_ROW
    granted(store, "no_answer")
    deny = decide(ruled_opa, store, "no_answer", Subject("tax"))
    assert isinstance(deny, Deny)
    assert isinstance(deny.error, NotGranted)


@pytest.mark.parametrize(
    "narrowing",
    [
        None,
        {},
        {"ruled": False, "allow": True, "allow_all": False, "hint": ""},
        {"ruled": True, "allow": False, "allow_all": True, "hint": ""},
        {"ruled": "false", "allow": False, "allow_all": False, "hint": ""},
        {"ruled": True, "allow": 1, "allow_all": False, "hint": ""},
        {"ruled": False, "allow": False, "allow_all": False, "hint": "x" * 501},
        {"ruled": False, "allow": False, "allow_all": False, "hint": "", "more": True},
    ],
)
def test_an_ill_formed_answer_is_none(narrowing: Any) -> None:
    """Anything that the rules cannot have said is an error, never "not narrowed"."""
    result = {"allow": True, "allow_all": True, "grants": ["g"], "channels": ["query"], "reason": "ok"}
    with pytest.raises(PolicyError):
        parse_verdict({"result": {**result, "narrowing": narrowing}}, "rules")
    with pytest.raises(PolicyError):
        parse_verdict({"result": result}, "rules")


@pytest.mark.parametrize(
    ("channel", "officer", "allowed"),
    [
        ("lookup", None, True),
        ("query", None, False),
        ("query", "zhao.min", True),
        ("stream", "zhao.min", False),
        ("export", "zhao.min", False),
    ],
)
def test_residents_leave_one_at_a_time(
    shared_opa: Opa, store: GrantStore, channel: str, officer: str | None, allowed: bool
) -> None:
    """The demo's own rule, under a grant of every channel."""
    channels = ["lookup", "query", "stream", "export"]
    store.apply(grant_set(grant(view="resident", channels=channels, consumer="police")), os_user="root")

    async def run() -> Decision:
        asked = decider(shared_opa.url, store)
        return await asked.decide(Subject("police", officer), shape("resident"), "levy", channel)

    assert isinstance(asyncio.run(run()), Allow if allowed else Deny)
