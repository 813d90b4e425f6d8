"""The dialect: what a question says, and that everything else is refused."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from postgrest.utils import sanitize_param

from bus.core.contracts import Kind
from bus.core.views import View
from bus.errors import BadFilter, BusError, RangeBeyondEnd, UnknownField
from bus.sharing.filters import Comparison, Group, parse_filter, parse_group, shape_of
from bus.sharing.question import Order, Query, parse_query
from bus.sharing.selecting import Chosen
from bus.sharing.values import like_pattern, typed_value
from bus.views.derived.history import Moment

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def test_a_whole_question() -> None:
    """Every member of a question arrives in its place."""
    query = parse_query(
        [
            ("select", "legal_name,where:ward"),
            ("ward", "eq.20"),
            ("result", 'not.in.(Fail,"a,b")'),
            ("or", "(a.eq.1,not.and(b.is.null,c.like.x*))"),
            ("order", "ward.desc.nullslast,legal_name"),
            ("limit", "50"),
            ("offset", "10"),
        ],
        {"prefer": "return=minimal, count=exact"},
    )
    assert query == Query(
        select=(Chosen("legal_name", "legal_name"), Chosen("ward", "where")),
        filters=(
            Comparison("ward", "eq", ("20",)),
            Comparison("result", "in", ("Fail", "a,b"), negated=True),
            Group(
                True,
                (
                    Comparison("a", "eq", ("1",)),
                    Group(
                        False,
                        (Comparison("b", "is", ("null",)), Comparison("c", "like", ("x*",))),
                        negated=True,
                    ),
                ),
            ),
        ),
        order=(Order("ward", True, False), Order("legal_name")),
        limit=50,
        offset=10,
        count=True,
    )


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_in_reads_what_the_client_writes(values: list[str]) -> None:
    """Any list of texts survives the way from PostgREST's client into `in`, inside a group as well."""
    written = ",".join(sanitize_param(value) for value in values)
    if written == "":  # one empty text: PostgREST too cannot tell it from no item
        return
    assert parse_filter("name", f"in.({written})").values == tuple(values)
    group = parse_group("or", f"(name.in.({written}),x.eq.1)")
    assert group.items[0] == Comparison("name", "in", tuple(values))


@given(TEXTS)
def test_eq_takes_its_value_as_it_is(value: str) -> None:
    """Outside groups quotes and brackets of a value mean themselves."""
    assert parse_filter("name", f"eq.{value}") == Comparison("name", "eq", (value,))


def status_of(read: Callable[[], object]) -> int:
    """What reading comes to: 200, or the status of its refusal."""
    try:
        read()
    except BusError as error:
        return error.status
    return 200


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Whatever stands in a filter is read or refused, never a fault."""
    for read in (
        lambda: parse_filter("a", text),
        lambda: parse_group("or", text),
        lambda: parse_query([("order", text)]),
    ):
        assert status_of(read) in (200, 422)


def test_orders_put_nulls_where_postgresql_does() -> None:
    """Ascending nulls come last and descending first, unless it is said."""
    orders = parse_query([("order", "a,b.desc,c.asc.nullsfirst,d.nullsfirst")]).order
    assert [order.nulls_first for order in orders] == [False, True, True, True]


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-31", dt.datetime(2026, 1, 31, tzinfo=dt.UTC)),
        ("2026-01-31T08:00:00Z", dt.datetime(2026, 1, 31, 8, tzinfo=dt.UTC)),
        ("2026-01-31t08:00:00.25z", dt.datetime(2026, 1, 31, 8, 0, 0, 250_000, tzinfo=dt.UTC)),
        ("2026-01-31 08:00:00+08:00", dt.datetime(2026, 1, 31, tzinfo=dt.UTC)),
    ],
)
def test_a_moment_is_an_instant_or_a_days_start(text: str, instant: dt.datetime) -> None:
    """RFC 3339 with an offset; a date means its start in UTC; either time may be given alone."""
    assert parse_query([("as_of", text)]).moment == Moment(as_of=instant)
    assert parse_query([("valid_at", text), ("as_of", text)]).moment == Moment(instant, instant)
    assert not parse_query([]).moment


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ward", "20"),
        ("ward", "eq"),
        ("ward", "equals.20"),
        ("ward", "in.20"),
        ("ward", "in.(1,2"),
        ("ward", 'in.("1'),
        ("ward", "in.(1)x"),
        ("or", "(a.eq.1"),
        ("or", "()"),
        ("or", "(" * 12 + "a.eq.1" + ")" * 12),
        ("order", "a.up"),
        ("order", "a,a"),
        ("order", "a.asc.desc"),
        ("limit", "-1"),
        ("limit", "ten"),
        ("limit", "9" * 20),
        ("offset", "1.5"),
        ("select", "a,a"),
        ("explain", "yes"),
        ("as_of", ""),
        ("as_of", "now"),
        ("as_of", "2026-02-30"),
        ("as_of", "2026-01-01T00:00:00"),
        ("as_of", "2026-01-01T00:00:00 01:00"),
        ("as_of", "2026-01-01T00:00:60Z"),
        ("as_of", "2026-01-01\x00"),
        ("as_of", "２０２６-01-01"),
        ("as_of", "0001-01-01T00:00:00+14:00"),
        ("valid_at", "20260101"),
        ("valid_at", "2026-W01-1"),
        ("valid_at", "'; DROP TABLE h_inspection_history;--"),
        ("ward", "in.(" + "1," * 1_001 + "1)"),
    ],
)
def test_bad_forms_are_refused(name: str, value: str) -> None:
    """A malformed member is a bad filter that says what is expected."""
    with pytest.raises(BadFilter) as caught:
        parse_query([(name, value)])
    assert len(caught.value.detail) > 25


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("order", "id;drop table x"),
        ("order", "lower(name)"),
        ("select", "name,(select 1)"),
        ("select", "name::text"),
        ("select", "ward.count()::text"),
        ("select", "...other(a)"),
        ("select", "(select 1)(a)"),
        ("select", "a:(select 1)"),
        ("inspections.ward", "eq.1"),
        ("a b", "eq.1"),
        ("a->>b", "eq.1"),
        ("_live", "eq.1"),
        ("order", "_v1"),
    ],
)
def test_only_ids_name_fields(name: str, value: str) -> None:
    """What is not an id is no field, whatever SQL it holds (A02)."""
    with pytest.raises(UnknownField):
        parse_query([(name, value)])


def test_a_parameter_stands_once() -> None:
    """A second limit, order or select is refused, a second filter on a field narrows."""
    for name in ("limit", "order", "select", "offset"):
        with pytest.raises(BadFilter, match="twice"):
            parse_query([(name, "1"), (name, "1")])
    assert len(parse_query([("ward", "gte.1"), ("ward", "lte.5")]).filters) == 2


def test_many_parameters_are_refused() -> None:
    """More filters or columns than anybody needs are refused (A22)."""
    with pytest.raises(BadFilter):
        parse_query([("ward", "eq.1")] * 101)
    with pytest.raises(BadFilter):
        parse_query([("select", ",".join(f"f{number}" for number in range(1_001)))])


def test_ranges() -> None:
    """The header Range counts unless limit or offset are given; another unit is ignored; backwards is refused."""
    assert (parse_query([], {"range": "10-19"}).offset, parse_query([], {"range": "10-19"}).limit) == (10, 10)
    assert parse_query([], {"range": "5-"}) == Query(offset=5)
    assert parse_query([("limit", "3")], {"range": "10-19"}) == Query(limit=3)
    assert parse_query([], {"range": "bytes=0-5"}) == Query()
    with pytest.raises(RangeBeyondEnd):
        parse_query([], {"range": "9-3"})


@pytest.mark.parametrize(
    ("params", "channel"),
    [
        ([("a", "eq.1"), ("b", "eq.2")], "lookup"),
        ([("b", "eq.2"), ("a", "eq.1"), ("limit", "1"), ("select", "c")], "lookup"),
        ([("a", "eq.1")], "query"),
        ([("a", "eq.1"), ("b", "eq.2"), ("c", "eq.3")], "query"),
        ([("a", "eq.1"), ("b", "not.eq.2")], "query"),
        ([("a", "eq.1"), ("b", "in.(2)")], "query"),
        ([("a", "eq.1"), ("b", "eq.2"), ("b", "eq.3")], "query"),
        ([("a", "eq.1"), ("or", "(b.eq.2)")], "query"),
        ([], "query"),
    ],
)
def test_a_look_up_is_eq_on_the_whole_key_and_nothing_else(params: list[tuple[str, str]], channel: str) -> None:
    """The channel follows from the filters alone."""
    assert parse_query(params).channel(View("v", {}, "o", "entity", ("a", "b"))) == channel


def test_values_take_the_type_of_their_field() -> None:
    """Texts become what the column holds."""
    assert typed_value("-20", Kind.INTEGER, "f") == -20
    assert typed_value("1e3", Kind.NUMBER, "f") == 1000.0
    assert typed_value("12345678901234567.89", Kind.DECIMAL, "f") == Decimal("12345678901234567.89")
    assert typed_value("2026-01-31", Kind.DATE, "f") == dt.date(2026, 1, 31)
    assert typed_value("2026-01-31T08:00:00+08:00", Kind.TIMESTAMP, "f") == dt.datetime(2026, 1, 31, tzinfo=dt.UTC)
    assert typed_value("true", Kind.BOOLEAN, "f") is True


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1.5", Kind.INTEGER),
        ("1_000", Kind.INTEGER),
        ("٣", Kind.INTEGER),
        (str(2**63), Kind.INTEGER),
        ("", Kind.INTEGER),
        ("nan", Kind.NUMBER),
        ("1e999", Kind.NUMBER),
        ("Infinity", Kind.DECIMAL),
        ("2026-13-01", Kind.DATE),
        ("2026-01-31T08:00:00", Kind.TIMESTAMP),
        ("1", Kind.BOOLEAN),
        ("a\x00b", Kind.TEXT),
        ("\ud800", Kind.TEXT),
        ("x", Kind.BYTES),
        ("[]", Kind.NESTED),
    ],
)
def test_values_of_another_type_are_refused(text: str, kind: Kind) -> None:
    """What the column cannot hold is refused before any SQL is built."""
    with pytest.raises(BadFilter):
        typed_value(text, kind, "f")


def test_patterns() -> None:
    """`*` and `%` are any text, `_` one character, `\\` makes the next one itself."""
    assert like_pattern("a*b%c_d", "f") == "a%b%c_d"
    assert like_pattern("100\\%\\*\\_\\\\", "f") == "100\\%*\\_\\\\"
    assert like_pattern("***", "f") == "%"
    for bad in ("a\\", "%x" * 9, "x" * 300):
        with pytest.raises(BadFilter):
            like_pattern(bad, "f")


def test_the_shape_of_filters_has_no_values() -> None:
    """What goes into the audit log tells which question, not whom it was about."""
    filters = parse_query([("citizen_id", "eq.SECRET"), ("or", "(a.in.(SECRET,2),b.is.null)")]).filters
    assert shape_of(filters) == "citizen_id=eq, or=(a=in/2,b=is)"
