"""What the decider says, on a real OPA with the bus's own signed rules."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from access_worlds import KINDS, NOW, decider, grant, grant_set, publish_rules, shape
from opa_process import Opa

from bus.access.answers import EVERY_ROW, NO_ROW, And, Comparison, Filter, Or
from bus.access.decision import Allow, Decision, Deny
from bus.access.identity import PUBLIC_SUBJECT, Subject
from bus.access.store import GrantStore
from bus.core.contracts import Kind
from bus.errors import (
    ChannelNotGranted,
    DatabaseUnavailable,
    NotGranted,
    PolicyError,
    PolicyStale,
    PolicyUnavailable,
    PurposeNotGranted,
    UnknownView,
)

TAX = Subject("tax", "zhang.san")


@pytest.fixture
def store(governance: sa.Engine) -> GrantStore:
    return GrantStore(governance)


def decide(
    opa: Opa,
    store: GrantStore,
    subject: Subject = TAX,
    purpose: str | None = "levy",
    channel: str = "query",
    *,
    now: dt.datetime = NOW,
    view: Any = None,
) -> Decision:
    async def run() -> Decision:
        return await decider(opa.url, store, now=now).decide(subject, view or shape(), purpose, channel)

    return asyncio.run(run())


def test_a_grant_allows_its_columns_rows_and_masks(shared_opa: Opa, store: GrantStore) -> None:
    """An allow says exactly what the grant says, in the view's order."""
    store.apply(grant_set(grant(fields=["ward", "licence", "name"])), os_user="root")
    allow = decide(shared_opa, store)
    assert isinstance(allow, Allow)
    assert allow.columns == ("licence", "name", "ward")
    assert set(allow.masks) == {"name"}
    assert allow.filter == And((Comparison("ward", "ne", None), Comparison("ward", "lte", 25)))
    assert allow.policy_revision == "1.1"
    assert allow.grant_ids == ("tax-business",)


@pytest.mark.parametrize(
    ("subject", "purpose", "channel", "error"),
    [
        (Subject("weather"), "levy", "query", NotGranted),
        (Subject("weather"), None, "stream", NotGranted),
        (TAX, None, "query", PurposeNotGranted),
        (TAX, "LEVY", "query", PurposeNotGranted),
        (TAX, "lеvy", "query", PurposeNotGranted),
        (TAX, "levy ", "query", PurposeNotGranted),
        (TAX, "", "query", PurposeNotGranted),
        (TAX, "audit", "stream", PurposeNotGranted),
        (TAX, "levy", "stream", ChannelNotGranted),
        (TAX, "levy", "export", ChannelNotGranted),
    ],
)
def test_refusals_come_in_the_documented_order(
    shared_opa: Opa, store: GrantStore, subject: Subject, purpose: str | None, channel: str, error: type
) -> None:
    """Grant first, then purpose, then channel; each names the owner and its contact."""
    store.apply(grant_set(grant()), os_user="root")
    deny = decide(shared_opa, store, subject, purpose, channel)
    assert isinstance(deny, Deny)
    assert type(deny.error) is error
    assert deny.error.members["owner"] == "market"
    assert deny.error.members["contact"] == "data@market.example"
    assert "data@market.example" in deny.error.detail


def test_a_query_grant_includes_look_ups_but_not_the_other_way(shared_opa: Opa, store: GrantStore) -> None:
    """Whoever may query may look up one row; whoever may look up may not query."""
    store.apply(grant_set(grant()), os_user="root")
    assert isinstance(decide(shared_opa, store, channel="lookup"), Allow)
    store.apply(grant_set(grant(channels=["lookup"])), os_user="root")
    assert isinstance(decide(shared_opa, store, channel="lookup"), Allow)
    deny = decide(shared_opa, store, channel="query")
    assert isinstance(deny, Deny)
    assert deny.error.members["granted"] == "lookup"


def test_a_grant_that_names_the_look_up_decides_it(shared_opa: Opa, store: GrantStore) -> None:
    """Beside a query grant of the same purpose, the look-up grant decides look-ups and nothing else."""
    narrow = grant(id="tax-lookup", channels=["lookup"], fields=["licence"], masks={})
    store.apply(grant_set(grant(), narrow), os_user="root")
    looked_up, queried = decide(shared_opa, store, channel="lookup"), decide(shared_opa, store)
    assert isinstance(looked_up, Allow)
    assert isinstance(queried, Allow)
    assert (looked_up.grant_ids, queried.grant_ids) == (("tax-lookup",), ("tax-business",))


def test_no_condition_is_every_row(shared_opa: Opa, store: GrantStore) -> None:
    """A grant without `rows` allows every row, by both of OPA's answers."""
    store.apply(grant_set(grant(rows=None)), os_user="root")
    allow = decide(shared_opa, store)
    assert isinstance(allow, Allow)
    assert allow.filter == EVERY_ROW


def test_a_condition_on_an_attribute_that_the_subject_lacks_is_no_row(shared_opa: Opa, store: GrantStore) -> None:
    """With no clause left there is no row, and with the attribute there is its row."""
    store.apply(grant_set(grant(rows={"field": "ward", "op": "eq", "value": {"subject": "ward"}})), os_user="root")
    without, having = decide(shared_opa, store), decide(shared_opa, store, Subject("tax", attributes={"ward": 7}))
    assert isinstance(without, Allow)
    assert isinstance(having, Allow)
    assert without.filter == NO_ROW
    assert having.filter == And((Comparison("ward", "ne", None), Comparison("ward", "eq", 7)))


def test_grants_hold_on_both_their_days(shared_opa: Opa, store: GrantStore) -> None:
    """From the first instant of the first day to the last of the last, in UTC."""
    store.apply(grant_set(grant(valid={"from": "2026-03-01", "to": "2026-03-02"})), os_user="root")

    def at(text: str) -> type:
        return type(decide(shared_opa, store, now=dt.datetime.fromisoformat(text)))

    assert at("2026-02-28T23:59:59+00:00") is Deny
    assert at("2026-03-01T00:00:00+00:00") is Allow
    assert at("2026-03-02T23:59:59+00:00") is Allow
    assert at("2026-03-03T00:00:00+00:00") is Deny
    assert at("2026-03-03T01:00:00+08:00") is Allow


def test_a_revocation_is_effective_with_its_return(shared_opa: Opa, store: GrantStore) -> None:
    """The same decider, with its cache, refuses the next question."""
    store.apply(grant_set(grant()), os_user="root")

    async def run() -> tuple[Decision, Decision, Decision]:
        asked = decider(shared_opa.url, store)
        first = await asked.decide(TAX, shape(), "levy", "query")
        again = await asked.decide(TAX, shape(), "levy", "query")
        store.revoke("tax-business", "li.na", "no longer needed")
        return first, again, await asked.decide(TAX, shape(), "levy", "query")

    first, again, last = asyncio.run(run())
    assert isinstance(first, Allow)
    assert isinstance(again, Allow)
    assert first.decision_id != again.decision_id
    assert isinstance(last, Deny)
    assert isinstance(last.error, NotGranted)


def test_what_everybody_may_read_a_department_may_read_too(shared_opa: Opa, store: GrantStore) -> None:
    """Open data is granted to `public`; a department's own grant goes first."""
    public = grant(id="open", consumer="public", purpose="open_data", fields=["ward"], masks={}, rows=None)
    store.apply(grant_set(public, name="open"), os_user="root")
    for subject in (PUBLIC_SUBJECT, Subject("weather")):
        allow = decide(shared_opa, store, subject, "open_data")
        assert isinstance(allow, Allow)
        assert allow.columns == ("ward",)
    assert isinstance(decide(shared_opa, store, Subject("weather"), "levy"), Deny)
    store.apply(grant_set(grant(purpose="open_data")), os_user="root")
    own = decide(shared_opa, store, TAX, "open_data")
    assert isinstance(own, Allow)
    assert own.grant_ids == ("tax-business",)


@pytest.mark.parametrize("guard", [{"classification": "conditional"}, {"personal": True}], ids=str)
def test_open_data_that_is_open_no_longer(shared_opa: Opa, store: GrantStore, guard: dict[str, Any]) -> None:
    """A column whose contract became stricter, or whose declassification ended, is left out of what everybody sees at
    once; a grant whose rows are chosen by it shows nothing. A department's own grant goes on."""

    def guarded(column: str) -> Any:
        columns = tuple(replace(found, **guard) if found.name == column else found for found in shape().columns)
        return replace(shape(), columns=columns)

    public = grant(id="open", consumer="public", purpose="open_data", masks={})
    store.apply(grant_set(public, grant()), os_user="root")

    async def run() -> list[Decision]:
        asked = decider(shared_opa.url, store)
        everybody = (PUBLIC_SUBJECT, "open_data", "query")
        views = (shape(), guarded("name"), guarded("ward"), shape())
        found = [await asked.decide(everybody[0], view, *everybody[1:]) for view in views]
        return [*found, await asked.decide(TAX, guarded("name"), "levy", "query")]

    before, without, closed, again, own = asyncio.run(run())
    assert isinstance(before, Allow)
    assert before.columns == ("licence", "name", "ward")
    assert isinstance(without, Allow)
    assert without.columns == ("licence", "ward")
    assert isinstance(closed, Deny)
    assert isinstance(again, Allow)
    assert isinstance(own, Allow)
    assert "name" in own.columns


def test_an_unlisted_view_does_not_show_that_it_is_there(shared_opa: Opa, store: GrantStore) -> None:
    """Who has no grant on it gets the same answer as for a view that does not exist."""
    deny = decide(shared_opa, store, view=shape(listed=False))
    assert isinstance(deny, Deny)
    assert isinstance(deny.error, UnknownView)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": {"field": "gone", "op": "eq", "value": 1}},
        {"rows": {"field": "ward", "op": "eq", "value": "seven"}},
        {"masks": {"ward": {"keep_first": 1}}},
    ],
)
def test_a_grant_that_does_not_fit_the_view_shows_nothing(
    shared_opa: Opa, store: GrantStore, change: dict[str, Any]
) -> None:
    """A condition or mask on what the view does not have is an error, never ignored."""
    store.apply(grant_set(grant(**change)), os_user="root")
    deny = decide(shared_opa, store)
    assert isinstance(deny, Deny)
    assert isinstance(deny.error, PolicyError)


def test_columns_that_the_view_lost_are_not_granted(shared_opa: Opa, store: GrantStore) -> None:
    """A grant on a column that is gone allows the others."""
    store.apply(grant_set(grant(rows=None, masks={})), os_user="root")
    allow = decide(shared_opa, store, view=shape(kinds={"licence": Kind.INTEGER, "other": Kind.TEXT}))
    assert isinstance(allow, Allow)
    assert allow.columns == ("licence",)


def test_decisions_are_remembered_by_all_that_goes_into_them(
    shared_opa: Opa, store: GrantStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same question asks OPA once; another attribute, purpose, channel or column kind asks again."""
    store.apply(grant_set(grant(rows=None, masks={})), os_user="root")

    async def run() -> list[int]:
        asked = decider(shared_opa.url, store)
        calls = 0
        real = asked._engine.ask

        async def counting(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            return await real(*args)

        monkeypatch.setattr(asked._engine, "ask", counting)
        counts = []
        other = shape(kinds={**KINDS, "ward": Kind.TEXT})
        for question in (
            (TAX, shape(), "levy", "query"),
            (TAX, shape(), "levy", "query"),
            (Subject("tax", "li.si"), shape(), "levy", "query"),
            (Subject("tax", attributes={"ward": 1}), shape(), "levy", "query"),
            (Subject("tax", attributes={"ward": True}), shape(), "levy", "query"),
            (TAX, shape(), "other", "query"),
            (TAX, shape(), "levy", "lookup"),
            (TAX, other, "levy", "query"),
        ):
            await asked.decide(*question)
            counts.append(calls)
        return counts

    assert asyncio.run(run()) == [1, 1, 2, 3, 4, 5, 6, 7]


def test_without_opa_nothing_is_shown(store: GrantStore) -> None:
    """A refused connection is 503, within half a second."""
    store.apply(grant_set(grant()), os_user="root")

    async def run() -> tuple[Decision, float]:
        asked = decider("http://127.0.0.1:9", store)
        loop = asyncio.get_running_loop()
        started = loop.time()
        return await asked.decide(TAX, shape(), "levy", "query"), loop.time() - started

    deny, seconds = asyncio.run(run())
    assert isinstance(deny, Deny)
    assert isinstance(deny.error, PolicyUnavailable)
    assert seconds < 0.5


def test_rules_older_than_what_was_published_are_stale_after_their_age(shared_opa: Opa, governance: sa.Engine) -> None:
    """Newer rules get ten minutes to reach OPA; then older ones show nothing."""
    import time

    for age, expected in ((30, Allow), (601, Deny)):
        published = dt.datetime.fromtimestamp(time.time() - age, dt.UTC)
        store = GrantStore(governance, clock=lambda at=published: at)
        store.apply(grant_set(grant()), os_user="root")
        publish_rules(store, f"one {age}", published)
        publish_rules(store, f"two {age}", published)
        decision = decide(shared_opa, store)
        assert type(decision) is expected
    assert isinstance(decision, Deny)
    assert isinstance(decision.error, PolicyStale)


def test_without_the_governance_database_nothing_is_shown(shared_opa: Opa, store: GrantStore) -> None:
    """A database that fails is 503, not an old answer."""

    async def run() -> Decision:
        asked = decider(shared_opa.url, store)
        store.apply(grant_set(grant()), os_user="root")
        assert isinstance(await asked.decide(TAX, shape(), "levy", "query"), Allow)
        with store.engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE access_revisions"))
        return await asked.decide(TAX, shape(), "levy", "query")

    deny = asyncio.run(run())
    assert isinstance(deny, Deny)
    assert isinstance(deny.error, DatabaseUnavailable)


def test_a_suspended_department_reads_nothing(shared_opa: Opa, store: GrantStore) -> None:
    """Neither by its own grant nor by what everybody may read."""
    public = grant(id="open", consumer="public", purpose="open_data", rows=None)
    store.apply(grant_set(grant(consumer="sleepy"), public), os_user="root")
    for purpose in ("levy", "open_data"):
        deny = decide(shared_opa, store, Subject("sleepy"), purpose)
        assert isinstance(deny, Deny)
        assert isinstance(deny.error, NotGranted)


def test_the_register_goes_before_the_token(shared_opa: Opa, store: GrantStore) -> None:
    """A condition on an attribute reads what the department's register says, with or without a token that says
    otherwise; what the register does not say, the token may."""
    mine = {"field": "ward", "op": "eq", "value": {"subject": "ward"}}
    named = {"field": "name", "op": "eq", "value": {"subject": "name"}}
    store.apply(grant_set(grant(consumer="south", rows={"any": [mine, named]})), os_user="root")
    ward, name = Comparison("ward", "eq", 7), Comparison("name", "eq", "Yu")
    for attributes, expected in (({}, {ward}), ({"ward": 8}, {ward}), ({"ward": 8, "name": "Yu"}, {ward, name})):
        allow = decide(shared_opa, store, Subject("south", attributes=attributes))
        assert isinstance(allow, Allow)
        assert _values(allow.filter) == expected


def test_rows_of_the_last_thirty_days(shared_opa: Opa, store: GrantStore) -> None:
    """A condition on the day means other rows tomorrow, by one decider and its cache."""
    store.apply(grant_set(grant(rows={"field": "since", "op": "gte", "value": {"today": -30}})), os_user="root")
    clock = [dt.datetime(2026, 5, 1, 23, 59, 59, tzinfo=dt.UTC)]

    async def run() -> list[set[Comparison]]:
        asked = decider(shared_opa.url, store)
        asked._clock = lambda: clock[0]
        found = []
        for at in (clock[0], clock[0] + dt.timedelta(seconds=1)):
            clock[0] = at
            allow = await asked.decide(TAX, shape(), "levy", "query")
            assert isinstance(allow, Allow)
            found.append(_values(allow.filter))
        return found

    expected = [dt.date(2026, 4, 1), dt.date(2026, 4, 2)]
    assert asyncio.run(run()) == [{Comparison("since", "gte", day)} for day in expected]


def _values(rows: Filter) -> set[Comparison]:
    """The comparisons with a value in a filter."""
    if isinstance(rows, Comparison):
        return set() if rows.value is None else {rows}
    assert isinstance(rows, And | Or)
    return set().union(*map(_values, rows.items))
