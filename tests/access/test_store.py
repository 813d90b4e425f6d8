"""Grants in the governance database, on both: all or nothing, effective with the return, every change recorded."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from access_worlds import NOW, grant, grant_set, publish_rules
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.access.store import CHANGES, Change, GrantStore
from bus.core.grants import GrantSet
from bus.errors import BadFilter, DatabaseUnavailable, GrantConflict, NotFound
from bus.infra.database import open_database, write

NONE: tuple[str, ...] = ()


@pytest.fixture
def store(database_url: str) -> Iterator[GrantStore]:
    engine = open_database(database_url, "governance")
    yield GrantStore(engine)
    engine.dispose()


def changes(store: GrantStore) -> list[tuple[Any, ...]]:
    with store.engine.connect() as connection:
        query = sa.select(CHANGES.c.revision, CHANGES.c.change, CHANGES.c.grant_id, CHANGES.c.by, CHANGES.c.reason)
        return [tuple(row) for row in connection.execute(query.order_by(CHANGES.c.sequence))]


def ids(store: GrantStore, consumer: str = "tax", view: str = "business", at: dt.datetime = NOW) -> list[str]:
    return [made.id for made in store.active(consumer, view, at)]


def test_applying_a_set_replaces_it(store: GrantStore) -> None:
    """What was added, changed and revoked is told and recorded; applying it again changes nothing."""
    assert store.apply(grant_set(grant(), grant(id="two", purpose="audit")), os_user="root") == Change(
        ("tax-business", "two"), NONE, NONE
    )
    again = grant_set(grant(fields=["ward"], masks={}), grant(id="three", purpose="research"))
    assert store.apply(again, os_user="anna") == Change(("three",), ("tax-business",), ("two",))
    assert store.apply(again, os_user="anna") == Change(NONE, NONE, NONE)
    assert store.revision() == 2
    assert ids(store) == ["tax-business", "three"]
    assert changes(store) == [
        (1, "added", "tax-business", "root", ""),
        (1, "added", "two", "root", ""),
        (2, "revoked", "two", "anna", "gone from its set"),
        (2, "added", "three", "anna", ""),
        (2, "changed", "tax-business", "anna", ""),
    ]


def test_a_grant_comes_back_as_it_went(store: GrantStore) -> None:
    """Dates, conditions, masks and limits survive the database, also as YAML's own dates."""
    rows = {"field": "since", "op": "gte", "value": dt.date(2026, 1, 1)}
    valid = {"from": dt.date(2026, 1, 1), "to": dt.date(2026, 12, 31)}
    made = grant_set(grant(rows=rows, valid=valid, limits={"rows": 5}))
    store.apply(made, os_user="root")
    (back,) = store.all()
    assert back == store.get("tax-business")
    for name in ("consumer", "channels", "fields", "masks", "valid_from", "valid_to", "limits", "author", "approver"):
        assert getattr(back, name) == getattr(made.grants[0], name)
    assert back.rows.clauses[0][0].as_fact() == made.grants[0].rows.clauses[0][0].as_fact()


def test_sets_do_not_overlap_each_other(store: GrantStore) -> None:
    """A set that conflicts with another changes nothing at all."""
    store.apply(grant_set(grant()), os_user="root")
    fine = grant(id="fine", consumer="food")
    with pytest.raises(GrantConflict, match="tax-business and other"):
        store.apply(grant_set(fine, grant(id="other"), name="second"), os_user="root")
    with pytest.raises(GrantConflict, match="tax/tax-business"):
        store.apply(grant_set(grant(consumer="food"), name="second"), os_user="root")
    assert [made.id for made in store.all()] == ["tax-business"]
    assert store.revision() == 1
    store.apply(grant_set(fine, name="second"), os_user="root")
    assert len(store.all()) == 2


def test_a_revocation_is_recorded_with_who_and_why(store: GrantStore) -> None:
    """And is effective for the next reader at once; revoking twice is refused."""
    store.apply(grant_set(grant()), os_user="root")
    assert ids(store) == ["tax-business"]
    store.revoke("tax-business", "li.na", "purpose ended")
    assert ids(store) == []
    assert changes(store)[-1] == (2, "revoked", "tax-business", "li.na", "purpose ended")
    for call in (lambda: store.revoke("tax-business", "li.na", "again"), lambda: store.get("tax-business")):
        with pytest.raises(NotFound):
            call()


def test_another_process_sees_a_change_at_once(store: GrantStore) -> None:
    """Two stores on one database do not keep what the other changed."""
    other = GrantStore(store.engine)
    store.apply(grant_set(grant()), os_user="root")
    assert ids(other) == ["tax-business"]
    store.revoke("tax-business", "li.na", "x")
    assert ids(other) == []


def test_grants_of_others_are_not_read(store: GrantStore) -> None:
    """By consumer, view and day."""
    made = grant_set(grant(), grant(id="food", consumer="food"), grant(id="next", view="complaint"))
    store.apply(made, os_user="root")
    assert ids(store) == ["tax-business"]
    assert ids(store, "food") == ["food"]
    assert ids(store, view="complaint") == ["next"]
    assert ids(store, "weather") == []
    assert ids(store, at=dt.datetime(2027, 1, 1, tzinfo=dt.UTC)) == []


def test_unchanged_grants_are_not_read_again(store: GrantStore) -> None:
    """A decision costs one read of the revisions; after a change of another pair's grants this one's are compared with
    what is known of them, and made anew only where they differ."""
    store.apply(grant_set(grant()), os_user="root")
    first = store.pair("tax", "business", store.revision())
    assert store.pair("tax", "business", store.revision()) is first
    store.apply(grant_set(grant(id="food", consumer="food"), name="food"), os_user="root")
    assert store.pair("tax", "business", store.revision()) is first
    store.apply(grant_set(grant(limits={"rows": 1})), os_user="root")
    assert store.pair("tax", "business", store.revision()).digest != first.digest


STREAM = {"channels": ["query", "stream"]}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["stream", "query", "both", "gone"])), max_size=12))
def test_streamed_grants_follow_every_change(sqlite_url: str, steps: list[tuple[str, str]]) -> None:
    """Whatever is applied and revoked in between, what is kept is what a store that begins now reads."""
    engine = open_database(f"{sqlite_url}-{uuid.uuid4().hex}", "governance")
    store = GrantStore(engine)
    for name, what in steps:
        channels = {"stream": ["stream"], "query": ["query"], "both": ["query", "stream"]}.get(what)
        made = [] if channels is None else [grant(id=name, consumer=f"c_{name}", channels=channels)]
        store.apply(grant_set(*made, name=name), os_user="root")
        held = store.streamed()
        assert held == GrantStore(engine).streamed()
        assert held == tuple(one for one in store.all() if "stream" in one.channels)
    engine.dispose()


def test_streamed_grants_are_the_same_until_one_changes(store: GrantStore) -> None:
    """A change of a grant without a stream costs one look at the record of changes; what another process changes is
    seen."""
    store.apply(grant_set(grant(**STREAM)), os_user="root")
    first = store.streamed()
    assert [one.id for one in first] == ["tax-business"]
    GrantStore(store.engine).apply(grant_set(grant(id="food", consumer="food"), name="food"), os_user="root")
    assert store.streamed() is first
    GrantStore(store.engine).revoke("tax-business", "li.na", "x")
    assert store.streamed() == ()


def test_tables_of_an_earlier_version(store: GrantStore) -> None:
    """Without the column and the indexes they are brought up to date, and what they hold is looked at."""
    store.apply(grant_set(grant(**STREAM), grant(id="food", consumer="food")), os_user="root")
    with write(store.engine) as connection:
        for name in ("access_grants_streamed", "access_grants_view"):
            connection.execute(sa.text(f"DROP INDEX {name}"))
        connection.execute(sa.text("ALTER TABLE access_grants DROP COLUMN streamed"))
    later = GrantStore(store.engine)
    assert [one.id for one in later.streamed()] == ["tax-business"]
    names = {index["name"] for index in sa.inspect(store.engine).get_indexes("access_grants")}
    assert {"access_grants_pair", "access_grants_streamed", "access_grants_view"} <= names


def test_grants_are_found_by_consumer_and_view(store: GrantStore) -> None:
    """And in portions, by id."""
    made = [grant(id=name, consumer=f"c_{name}", view=view) for name, view in (("a", "x"), ("b", "y"), ("c", "x"))]
    store.apply(grant_set(*made), os_user="root")
    assert [one.id for one in store.all(view="x")] == ["a", "c"]
    assert [one.id for one in store.all(consumer="c_b")] == ["b"]
    assert [one.id for one in store.all(after="a", limit=1)] == ["b"]
    assert store.consumers() == (("c_a", 1), ("c_b", 1), ("c_c", 1))


@pytest.mark.parametrize("value", [2**53 + 1, -(2**60)])
def test_numbers_that_opa_would_round_are_refused_when_applied(store: GrantStore, value: int) -> None:
    """The author hears of it, not the consumer."""
    with pytest.raises(BadFilter, match="digits"):
        store.apply(grant_set(grant(rows={"field": "ward", "op": "eq", "value": value})), os_user="root")
    assert store.all() == ()


def test_two_at_once_leave_one_whole_set(store: GrantStore) -> None:
    """Concurrent applies follow one another: the revision counts both, and the last one stands whole."""

    def five(name: str) -> GrantSet:
        return grant_set(*(grant(id=f"{name}{n}", purpose=f"p{n}", fields=[name], masks={}) for n in range(5)))

    sets = [five("a"), five("b")]
    threads = [threading.Thread(target=store.apply, args=(made,), kwargs={"os_user": "root"}) for made in sets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.revision() == 2
    assert len({made.fields for made in store.all()}) == 1
    assert len(store.all()) == 5


def test_rules_have_revisions_of_their_own(store: GrantStore) -> None:
    """Raising one does not raise the other."""
    assert publish_rules(store, "aa") == 1
    assert publish_rules(store, "bb") == 2
    revisions = store.revisions()
    assert (revisions.rules, revisions.grants) == (2, 0)


def test_a_database_that_is_gone_says_so(store: GrantStore) -> None:
    """Never an empty answer."""
    store.engine = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:9/none")
    with pytest.raises(DatabaseUnavailable):
        store.revision()
