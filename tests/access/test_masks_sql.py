"""Masks in SQL show what the Python reference shows, on both databases."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from access_worlds import KINDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import VALUES, masks

from bus.access.masks import shown
from bus.core.contracts import Kind
from bus.core.masks import Mask, apply_mask, consumer_key
from bus.views.values import sql_type

CHINA = dt.timezone(dt.timedelta(hours=8))
NUMBERS = itertools.count()
KEY = consumer_key(b"secret", "tax")


@pytest.fixture(scope="module")
def table(views_engine: sa.Engine) -> Iterator[sa.Table]:
    columns = (sa.Column(name, sql_type(kind, 2)) for name, kind in KINDS.items())
    made = sa.Table(f"v_masks_{next(NUMBERS)}", sa.MetaData(), sa.Column("_n", sa.Integer), *columns)
    made.create(views_engine)
    yield made
    made.drop(views_engine)


def through_sql(engine: sa.Engine, table: sa.Table, field: str, values: list[Any], mask: Mask) -> list[Any]:
    with engine.connect() as connection:
        connection.execute(table.insert(), [{"_n": n, field: value} for n, value in enumerate(values)])
        masked = shown(table.c[field], mask, KINDS[field], dialect=engine.dialect.name, key=KEY)
        found = list(connection.execute(sa.select(masked).order_by(table.c["_n"])).scalars())
        connection.rollback()
    return found


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_masks_in_sql_equal_the_reference(views_engine: sa.Engine, table: sa.Table, data: st.DataObject) -> None:
    """For every kind of column and every mask that fits it, NULL included."""
    field = data.draw(st.sampled_from(sorted(KINDS)))
    mask = data.draw(masks(KINDS[field]))
    values = data.draw(st.lists(st.none() | VALUES[KINDS[field]], min_size=1, max_size=8))
    expected = [apply_mask(value, mask, KEY) for value in values]
    assert through_sql(views_engine, table, field, values, mask) == expected


@pytest.mark.parametrize(
    ("kind", "mask", "value", "expected"),
    [
        ("name", Mask("keep_first", 3), "Lou's", "Lou***"),
        ("name", Mask("keep_first", 3), "Lou", "***"),
        ("name", Mask("keep_first", 3), "", "***"),
        ("name", Mask("keep_last", 2), "中文名字", "***名字"),
        ("name", Mask("keep_last", 4), "中文名字", "***"),
        ("name", Mask("prefix", 3), "60601", "606"),
        ("ward", Mask("round", -1), -15, -10),
        ("seen", Mask("year", True), dt.datetime(1969, 12, 31, 23, 59, tzinfo=dt.UTC), "1969"),
        ("seen", Mask("month", True), dt.datetime(2020, 1, 1, 7, tzinfo=CHINA), "2019-12"),
        ("since", Mask("month", True), dt.date(999, 7, 1), "0999-07"),
        ("fee", Mask("round", 0), Decimal("-2.50"), Decimal("-2.00")),
        ("score", Mask("round", 2), 41.87811, 41.88),
        ("name", Mask("constant", "hidden"), "x", "hidden"),
        ("name", Mask("constant", "hidden"), None, None),
    ],
)
def test_masks_by_example(
    views_engine: sa.Engine, table: sa.Table, kind: str, mask: Mask, value: Any, expected: Any
) -> None:
    """What the documents promise, literally."""
    assert apply_mask(value, mask) == expected
    assert through_sql(views_engine, table, kind, [value], mask) == [expected]


def test_a_hash_is_stable_for_a_consumer_and_of_no_use_to_another() -> None:
    """Two consumers cannot join on the same hash."""
    mask = Mask("hash", True)
    assert apply_mask("x", mask, KEY) == apply_mask("x", mask, consumer_key(b"secret", "tax"))
    assert apply_mask("x", mask, KEY) != apply_mask("x", mask, consumer_key(b"secret", "food"))
    assert apply_mask(1, mask, KEY) == apply_mask("1", mask, KEY)


def test_the_value_does_not_leave_the_database(views_engine: sa.Engine, table: sa.Table) -> None:
    """The SELECT has the mask's expression only, and the key travels as a parameter."""
    masked = shown(table.c["name"], Mask("hash", True), Kind.TEXT, dialect=views_engine.dialect.name, key=KEY)
    statement = str(sa.select(masked).compile(views_engine))
    assert KEY.hex() not in statement
    assert "AS name" in statement


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(VALUES[Kind.TEXT], min_size=1, max_size=6))
def test_a_consumer_can_join_its_own_hashes_and_no_others(
    views_engine: sa.Engine, table: sa.Table, values: list[str]
) -> None:
    """Equal values have equal hashes for one consumer, different values different ones, and no hash is another's."""
    mask = Mask("hash", True)
    own = through_sql(views_engine, table, "name", values, mask)
    assert [own[values.index(value)] for value in values] == own
    assert len(set(own)) == len(set(values))
    others = {apply_mask(value, mask, consumer_key(b"secret", "food")) for value in values}
    assert not others & set(own)
