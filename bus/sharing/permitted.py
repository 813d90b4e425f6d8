"""What of a question may be answered: every field it names is held against the grant.

Its result is the only thing `store.py` builds SQL from, so no name or text of a request reaches SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bus.access.decision import Allow
from bus.core import names
from bus.core.columns import Column
from bus.core.contracts import Kind
from bus.core.masks import Mask
from bus.errors import BadFilter, FieldNotFilterable, FieldNotGranted, UnknownField
from bus.sharing.aggregates.few import NONE
from bus.sharing.aggregates.figures import Measured, measured
from bus.sharing.filters import Comparison, Filter, Group, comparisons
from bus.sharing.question import DEFAULT_ROWS, Order, Query
from bus.sharing.searching import terms as searching
from bus.sharing.selecting import Chosen, Figure
from bus.sharing.values import like_pattern, typed_value
from bus.views.catalogue import Shape
from bus.views.derived.history import NOW, Moment

_IS: Final = ("null", "not_null", "true", "false")
_PATTERN: Final = ("like", "ilike")


@dataclass(frozen=True, slots=True)
class Shown:
    """One column of an answer: the view's column, its name in the answer, its mask if it has one. ``counted``: the
    column that says of how many it is, for one that is withheld where they are few; empty: always."""

    column: Column
    name: str
    mask: Mask | None
    counted: str | None = None


@dataclass(frozen=True, slots=True)
class Permitted:
    """A question whose fields are granted and whose values have the types of their fields. With ``figures`` the
    columns ``shown`` are the groups, and an order names something of the answer. ``least_group``: figures of fewer rows
    are withheld; None: exact."""

    shown: tuple[Shown, ...]
    filters: tuple[Filter, ...]
    order: tuple[Order, ...]
    limit: int
    offset: int
    count: bool
    moment: Moment = NOW
    figures: tuple[Measured, ...] = ()
    least_group: int | None = None

    @property
    def answered(self) -> tuple[Shown, ...]:
        """The columns of the answer: those asked for, then the figures."""
        return (*self.shown, *(Shown(item.shown, item.name, None) for item in self.figures))

    @property
    def masked(self) -> tuple[str, ...]:
        """The names of the masked columns of the answer, sorted."""
        return tuple(sorted(shown.name for shown in self.shown if shown.mask is not None))


Contact = Callable[[], Mapping[str, str]]


def permit(query: Query, shape: Shape, allow: Allow, contact: Contact, few: Mapping[str, str] = NONE) -> Permitted:
    """The question as far as the grant goes. ``contact``: gives owner and contact, for refusals; ``few``: see
    `aggregates.few`.

    Raises `UnknownField` (422), `FieldNotGranted` and `FieldNotFilterable` (403), `BadFilter` (422).
    """
    return _Check(shape, allow, contact, few).permitted(query)


def joinable(shape: Shape, allow: Allow, fields: Iterable[str], contact: Contact) -> tuple[Column, ...]:
    """The columns, if rows may be joined by them: granted and not masked.

    Raises `FieldNotGranted` and `FieldNotFilterable` (403).
    """
    check = _Check(shape, allow, contact)
    return tuple(check.open(field) for field in fields)


class _Check:
    def __init__(self, shape: Shape, allow: Allow, contact: Contact, few: Mapping[str, str] = NONE) -> None:
        self._view = shape.view
        self._columns = {column.name: column for column in shape.columns}
        self._allow, self._contact, self._few = allow, contact, few

    def permitted(self, query: Query) -> Permitted:
        if query.figures:
            return self._summarised(query)
        if query.export and query.embedded:
            raise BadFilter(why="a file has no rows within rows. Export each view for itself.", field="select")
        every = tuple(Chosen(name, name) for name in self._allow.columns)
        chosen = every if query.select is None else query.select
        self._refuse_unknown(item.field for item in chosen)
        self._refuse_unknown(item.field for item in comparisons(query.filters))
        self._refuse_unknown(order.field for order in query.order)
        shown = tuple(self._shown(item) for item in chosen)
        filters = tuple(self._typed(item) for item in query.filters)
        limit = min(query.limit if query.limit is not None else DEFAULT_ROWS, self._allow.limits.rows)
        count = query.count and self._allow.channel != "lookup"
        return Permitted(shown, filters, self._order(query.order), limit, query.offset, count, query.moment)

    def _shown(self, item: Chosen) -> Shown:
        return Shown(self._granted(item.field), item.name, self._allow.masks.get(item.field), self._few.get(item.field))

    def _summarised(self, query: Query) -> Permitted:
        """Figures by groups: nothing masked may be grouped by, counted or summed."""
        if query.export or query.cursor is not None:
            raise BadFilter(why="figures are one answer, without `export` and `cursor`.", field="select")
        groups, exact = query.select or (), self._allow.least_group is None
        self._refuse_unknown(item.field for item in groups)
        self._refuse_unknown(item.field for item in query.figures if item.field)
        self._refuse_unknown(item.field for item in comparisons(query.filters))
        shown = tuple(Shown(self._grouped(item.field), item.name, None) for item in groups)
        return Permitted(
            shown,
            tuple(self._typed(item) for item in query.filters),
            _figures_order(query, groups, exact=exact),
            min(query.limit if query.limit is not None else DEFAULT_ROWS, self._allow.limits.rows),
            query.offset,
            query.count and exact,
            query.moment,
            tuple(self._measured(item, exact=exact) for item in query.figures),
            self._allow.least_group,
        )

    def _grouped(self, field: str) -> Column:
        column = self.open(field)
        if column.kind in (Kind.NESTED, Kind.BYTES):
            raise BadFilter(why=f"'{field}' cannot be grouped by.", field=field)
        return column

    def _measured(self, item: Figure, *, exact: bool) -> Measured:
        column = self.open(item.field) if item.field else None
        return measured(item.function, column, item.name, key=self._view.key, exact=exact)

    def _refuse_unknown(self, fields: Iterable[str]) -> None:
        for field in fields:
            if field not in self._columns:
                hint = names.nearest(field, self._allow.columns)
                raise UnknownField(field=field, view=self._view.name, hint=hint)

    def _granted(self, field: str) -> Column:
        if field not in self._allow.columns:
            raise FieldNotGranted(field=field, view=self._view.name, **self._contact())
        return self._columns[field]

    def open(self, field: str) -> Column:
        """The column, if rows may be chosen or ordered by it."""
        column = self._granted(field)
        if field in self._allow.masks or field in self._few:
            raise FieldNotFilterable(field=field, view=self._view.name, **self._contact())
        return column

    def _typed(self, item: Filter) -> Filter:
        if isinstance(item, Group):
            return replace(item, items=tuple(self._typed(inner) for inner in item.items))
        column = self.open(item.field)
        if item.op in searching.OPERATORS:
            self._refuse_unsearchable(item)
        return replace(item, values=self._values(item, column))

    def _refuse_unsearchable(self, item: Comparison) -> None:
        if item.field not in self._view.searchable:
            granted = set(self._allow.columns) - set(self._allow.masks)
            named = ", ".join(name for name in self._view.searchable if name in granted) or "none that you may see"
            why = f"'{item.field}' is not declared for search (`{item.op}`); declared: {named}."
            raise BadFilter(why=why, field=item.field)

    @staticmethod
    def _values(item: Comparison, column: Column) -> tuple[Any, ...]:
        if item.op == "is":
            return _is(item, column)
        if item.op in searching.OPERATORS:
            return searching.parse_terms(item.op, item.values[0], item.field)
        if item.op in _PATTERN:
            if column.kind is not Kind.TEXT:
                raise _wrong_kind(f"`{item.op}` needs a text field", column)
            return (like_pattern(item.values[0], item.field),)
        return tuple(typed_value(text, column.kind, item.field) for text in item.values)

    def _order(self, orders: tuple[Order, ...]) -> tuple[Order, ...]:
        """The order asked for, then the key, so that pages neither overlap nor leave rows out."""
        for order in orders:
            if self.open(order.field).kind in (Kind.NESTED, Kind.BYTES):
                raise BadFilter(why=f"'{order.field}' cannot be ordered by.", field=order.field)
        named: Collection[str] = {order.field for order in orders}
        # A key column that is hidden or masked must not order either: its order would tell its values.
        rest = (name for name in self._view.key if name in self._allow.columns and name not in self._allow.masks)
        return (*orders, *(Order(name) for name in rest if name not in named))


def _figures_order(query: Query, groups: Iterable[Chosen], *, exact: bool) -> tuple[Order, ...]:
    """The order by names of the answer: a group (by its field as well) or a figure; of figures that are withheld in
    part, counts only, since the others are rounded when all is done. Then the groups, so that pages fit together."""
    names_of = {item.field: item.name for item in groups} | {item.name: item.name for item in groups}
    names_of |= {item.name: item.name for item in query.figures if exact or item.function == "count"}
    for order in query.order:
        if order.field not in names_of:
            known = ", ".join(dict.fromkeys(names_of.values())) or "nothing here"
            raise BadFilter(why=f"figures can be ordered by {known}; not by '{order.field}'.", field=order.field)
    asked = [replace(order, field=names_of[order.field]) for order in query.order]
    named = {order.field for order in asked}
    return (*asked, *(Order(item.name) for item in groups if item.name not in named))


def _is(item: Comparison, column: Column) -> tuple[str]:
    word = item.values[0].lower()
    if word not in _IS:
        raise BadFilter(why=f"`is` takes {', '.join(_IS)}; received '{item.values[0][:40]}'.", field=item.field)
    if word in ("true", "false") and column.kind is not Kind.BOOLEAN:
        raise _wrong_kind(f"`is.{word}` needs a boolean field", column)
    return (word,)


def _wrong_kind(need: str, column: Column) -> BadFilter:
    return BadFilter(why=f"{need}, '{column.name}' is {column.kind}.", field=column.name)
