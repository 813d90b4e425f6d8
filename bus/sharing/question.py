"""A question as it was asked: PostgREST's query parameters and headers, read strictly.

Nothing is guessed: a parameter that is neither known nor a filter, or stands twice, is refused.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bus.core.views import View
from bus.errors import BadFilter, RangeBeyondEnd
from bus.sharing.filters import MAX_FILTERS, Comparison, Filter, parse_filter, parse_group
from bus.sharing.selecting import Chosen, Figure, Nested, not_a_field, parse_select, plain
from bus.views.derived.history import NOW, Moment

DEFAULT_ROWS: Final = 1_000
MAX_COLUMNS: Final = 1_000
MAX_OFFSET: Final = 2**53
_GROUPS: Final = ("or", "and", "not.or", "not.and")
_SINGLE: Final = ("select", "order", "limit", "offset", "explain", "as_of", "valid_at", "cursor", "export")
_RANGE: Final = re.compile(r"(?:items=)?([0-9]{1,16})-([0-9]{0,16})")
_INSTANT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2}))?"
)
_DATE_LENGTH: Final = 10
_FIELD: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_DIRECTIONS: Final = ("asc", "desc")
_NULLS: Final = ("nullsfirst", "nullslast")


@dataclass(frozen=True, slots=True)
class Order:
    """One ordering. Nulls come last ascending and first descending unless said otherwise, as in PostgreSQL."""

    field: str
    descending: bool = False
    nulls_first: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A question in form: ``select`` None is every granted column, ``limit`` None the default. With ``figures`` the
    columns of ``select`` are what is grouped by. ``embedded``: questions to related views, asked beside each row.
    ``question``: the declared question that is asked instead of rows.

    ``count``: the total was asked for. ``explain``: the decision without rows. ``moment``: what a history view is to
    be read as of. ``cursor``: where the page begins, see `cursors`. ``export``: all rows, as a file.
    """

    select: tuple[Chosen, ...] | None = None
    filters: tuple[Filter, ...] = ()
    order: tuple[Order, ...] = ()
    limit: int | None = None
    offset: int = 0
    count: bool = False
    explain: bool = False
    moment: Moment = NOW
    cursor: str | None = None
    export: bool = False
    figures: tuple[Figure, ...] = ()
    embedded: tuple[Embedded, ...] = ()
    question: str = ""

    def channel(self, view: View) -> str:
        """``lookup``: eq on every key column and no other filter; ``export``: as a file; ``aggregate``: figures;
        ``question``: yes or no; any other is ``query``."""
        if self.export:
            return "export"
        if self.question or self.figures:
            return "question" if self.question else "aggregate"
        if self.embedded:
            return "query"
        plain = [item for item in self.filters if isinstance(item, Comparison)]
        exact = len(plain) == len(self.filters) and all(item.op == "eq" and not item.negated for item in plain)
        return "lookup" if exact and sorted(item.field for item in plain) == sorted(view.key) else "query"


@dataclass(frozen=True, slots=True)
class Embedded:
    """A question to a related view, for each row. ``by``: the column that leads there, where it was said."""

    name: str
    view: str
    by: str | None
    query: Query


def parse_query(params: Sequence[tuple[str, str]], headers: Mapping[str, str] | None = None) -> Query:
    """The question that the parameters and the headers ``Prefer`` and ``Range`` state.

    ``headers``: names in lower case. Raises `BadFilter`, `UnknownField` and `RangeBeyondEnd`.
    """
    headers = headers or {}
    single = _single(params)
    selected = parse_select(single.get("select"), MAX_COLUMNS)
    embedded, params = _embedded(selected.nested, params)
    limit, offset = _window(single, headers.get("range"))
    if offset and "cursor" in single:
        raise BadFilter(why="a page begins at a cursor or at an offset, not at both.", field="cursor")
    return Query(
        select=selected.chosen,
        filters=_filters(params),
        order=_order(single.get("order")),
        limit=limit,
        offset=offset,
        count=_counts(headers.get("prefer", "")),
        explain=_flag(single.get("explain"), "explain"),
        moment=Moment(_instant(single.get("as_of"), "as_of"), _instant(single.get("valid_at"), "valid_at")),
        cursor=single.get("cursor"),
        export=_flag(single.get("export"), "export"),
        figures=selected.figures,
        embedded=embedded,
    )


def _embedded(
    nested: Sequence[Nested], params: Sequence[tuple[str, str]]
) -> tuple[tuple[Embedded, ...], Sequence[tuple[str, str]]]:
    """The questions to related views, with their own parameters (``alias.order=…``), and the parameters left over."""
    own: dict[str, list[tuple[str, str]]] = {item.name: [] for item in nested}
    rest = []
    for name, value in params:
        alias, dot, member = name.partition(".")
        if dot and alias in own:
            own[alias].append((member, value))
        else:
            rest.append((name, value))
    return tuple(_embed(item, own[item.name]) for item in nested), rest


def _embed(item: Nested, params: Sequence[tuple[str, str]]) -> Embedded:
    if item.by in ("inner", "left"):
        raise BadFilter(why=f"'!{item.by}' is not offered: rows without a counterpart stay.", field="select")
    if not item.select.strip() or any(name == "select" for name, _ in params):
        raise BadFilter(why=f"'{item.name}' names its columns in brackets, as in {item.view}(a,b).", field="select")
    inner = parse_select(item.select, MAX_COLUMNS)
    if inner.nested or inner.figures:  # looked at before anything is read again, so that no question nests deep
        raise BadFilter(why=f"'{item.name}' takes columns, neither figures nor further views.", field="select")
    query = parse_query([*params, ("select", item.select)])
    if replace(query, select=None, filters=(), order=(), limit=None) != Query():
        raise BadFilter(why=f"'{item.name}' takes columns, filters, order and limit.", field="select")
    return Embedded(item.name, item.view, item.by, query)


def _single(params: Sequence[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in params:
        if name not in _SINGLE:
            continue
        if name in found:
            raise BadFilter(why=f"the parameter '{name}' stands twice.", field=name)
        found[name] = value
    return found


def _filters(params: Sequence[tuple[str, str]]) -> tuple[Filter, ...]:
    asked = [(name, value) for name, value in params if name not in _SINGLE]
    if len(asked) > MAX_FILTERS:
        raise BadFilter(why=f"at most {MAX_FILTERS} filters are taken.")
    return tuple(parse_group(name, value) if name in _GROUPS else _filter(name, value) for name, value in asked)


def _filter(name: str, value: str) -> Filter:
    if not _FIELD.fullmatch(name):
        raise not_a_field(name)
    return parse_filter(name, value)


def _whole(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 16 or int(text) > MAX_OFFSET:
        raise BadFilter(why=f"'{name}' is a whole number from 0, received '{text[:40]}'.", field=name)
    return int(text)


def _window(single: Mapping[str, str], header: str | None) -> tuple[int | None, int]:
    """Limit and offset: of the parameters if they are there, else of the ``Range`` header."""
    if "limit" in single or "offset" in single or header is None:
        limit = _whole(single["limit"], "limit") if "limit" in single else None
        return limit, _whole(single.get("offset", "0"), "offset")
    found = _RANGE.fullmatch(header.strip())
    if found is None:
        return None, 0  # RFC 9110, 14.2: a range in a unit that is not known is ignored
    first, last = int(found[1]), found[2]
    if last and int(last) < first:
        raise RangeBeyondEnd("The range ends before it begins. Write it as `Range: 0-99`.")
    return (int(last) - first + 1 if last else None), min(first, MAX_OFFSET)


def _counts(prefer: str) -> bool:
    preferences = {part.strip().lower() for part in re.split("[,;]", prefer)}
    return not preferences.isdisjoint({"count=exact", "count=planned", "count=estimated"})


def _flag(text: str | None, name: str) -> bool:
    if text not in (None, "true", "false"):
        raise BadFilter(why=f"'{name}' is true or false, received '{text[:40]}'.", field=name)
    return text == "true"


def _instant(text: str | None, name: str) -> dt.datetime | None:
    """RFC 3339, or a date, which means its start in UTC."""
    if text is None:
        return None
    try:
        if not _INSTANT.fullmatch(text):
            raise ValueError(text)
        whole = f"{text}T00:00:00Z" if len(text) == _DATE_LENGTH else text
        return dt.datetime.fromisoformat(whole.upper()).astimezone(dt.UTC)
    except (ValueError, OverflowError) as error:
        why = f"'{name}' is an instant as 2026-01-31T08:00:00Z (in a URL, + is written %2B) or a date, which means its "
        raise BadFilter(why=f"{why}start in UTC; received '{text[:40]}'.", field=name) from error


def _listed(text: str, limit: int = MAX_COLUMNS) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    if len(items) > limit:
        raise BadFilter(why=f"at most {limit} columns can be named.")
    return items


def _refuse_twice(items: Sequence[str], where: str) -> None:
    seen: set[str] = set()
    for item in items:
        if item in seen:
            raise BadFilter(why=f"'{item}' stands twice in '{where}'.", field=item)
        seen.add(item)


def _ordering(item: str) -> Order:
    field, *words = item.split(".")
    name = plain(field)

    def take(known: tuple[str, ...]) -> str | None:
        return words.pop(0) if words and words[0] in known else None

    descending = take(_DIRECTIONS) == "desc"
    nulls = take(_NULLS)
    if words:
        raise BadFilter(
            why=f"an order is field.asc or field.desc, then .nullsfirst or .nullslast; received '{item[:60]}'.",
            field=name,
        )
    return Order(name, descending, descending if nulls is None else nulls == "nullsfirst")


def _order(text: str | None) -> tuple[Order, ...]:
    if not text:
        return ()
    orders = tuple(_ordering(item) for item in _listed(text, 20))
    _refuse_twice([order.field for order in orders], "order")
    return orders
