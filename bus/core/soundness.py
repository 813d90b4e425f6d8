"""Whether a view can be built: keys and ranks that have an order, look-ups and joins on keys, figures that exist.

What is missing altogether (a contract, a field, a view) is found by `bus.core.columns`; here kinds must fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from bus.core import names
from bus.core.columns import Column, Columns, over_columns, scale_of
from bus.core.conditions import Condition, check
from bus.core.contracts import Contract, FieldContract, Kind
from bus.core.problems import Problems
from bus.core.questions import check_questions
from bus.core.views import Lookup, Measure, Over, View
from bus.errors import BusError

Views = Mapping[str, View]
_SUMMABLE: Final = (Kind.INTEGER, Kind.NUMBER, Kind.DECIMAL)
_NO_KEY: Final = (Kind.NUMBER, Kind.BYTES, Kind.NESTED)
_NO_ORDER: Final = (Kind.BYTES, Kind.NESTED)
_TIMES: Final = (Kind.DATE, Kind.TIMESTAMP)


def check_view(
    view: View, columns: Iterable[Column], contracts: Mapping[str, Contract], others: Columns, problems: Problems
) -> None:
    """Adds to ``problems`` whatever cannot be built. ``others``: the columns of the views that this one reads."""
    columns = tuple(columns)
    check_questions(view, columns, problems)
    if view.kind == "aggregate":
        _check_aggregate(view, others, problems)
        return
    by_name = {column.name: column for column in columns}
    _check_keys(view, by_name, contracts, problems)
    _check_reports(view, by_name, contracts, problems)
    _check_search(view, by_name, problems)
    for lookup in view.lookups:
        _check_by(view, lookup, by_name, problems)
    if view.kind == "history":
        _check_history(view, contracts, problems)


def check_reads(view: View, others: Views, columns: Mapping[str, Column], known: Columns, problems: Problems) -> None:
    """Adds what is wrong with the views that this one reads: their kind, and keys that do not fit."""
    for over in view.over:
        for place, name in ((f"over.{over.name}.view", over.view), (f"over.{over.name}.join", _joined(over))):
            if name in others and others[name].kind == "aggregate":
                text = f"'{name}' is an aggregate. Count an entity or history view"
                problems.add(f"over.{over.name}", f"{text}: {_choices(others)}.", place)
        if over.join is not None and over.join.view in others:
            _check_join(over, others[over.join.view], known, problems)
    for lookup in view.lookups:
        if lookup.view in others:
            _check_lookup(lookup, others[lookup.view], columns, known.get(lookup.view, ()), problems)


def _check_search(view: View, columns: Mapping[str, Column], problems: Problems) -> None:
    for name in view.searchable:
        if name in columns and columns[name].kind is not Kind.TEXT:
            problems.add(f"fields.{name}.search", f"is for text, '{name}' is {columns[name].kind}")


def _joined(over: Over) -> str:
    return over.join.view if over.join else ""


def _choices(views: Views) -> str:
    return ", ".join(sorted(name for name, view in views.items() if view.kind != "aggregate")) or "there is none yet"


def _check_keys(
    view: View, columns: Mapping[str, Column], contracts: Mapping[str, Contract], problems: Problems
) -> None:
    for name in view.key:
        if name in columns and columns[name].kind in _NO_KEY:
            problems.add("key", f"'{name}' is {columns[name].kind}, which cannot be a key")
    for source in view.sources:
        contract, where = contracts.get(source.entity), f"sources.{source.name}"
        fields = {name: contract.field(name) if contract else None for name in (*source.key, *source.rank)}
        for name, own in zip(view.key, source.key, strict=False):
            field, column = fields[own], columns.get(name)
            if field is not None and column is not None:
                _check_kind(field, column, f"{where}.key", problems)
        for own in source.rank:
            ranked = fields[own]
            if ranked is not None and ranked.kind in _NO_ORDER:
                problems.add(f"{where}.rank", f"'{own}' is {ranked.kind}, which has no order")


def _check_kind(field: FieldContract, column: Column, where: str, problems: Problems) -> None:
    if field.kind is not column.kind:
        problems.add(where, f"'{field.name}' is {field.kind}, '{column.name}' is {column.kind}")
    elif scale_of(field) != column.scale:
        problems.add(where, f"'{field.name}' has another scale than '{column.name}'")


def _check_reports(
    view: View, columns: Mapping[str, Column], contracts: Mapping[str, Contract], problems: Problems
) -> None:
    """What another source reports must be comparable with what is shown."""
    for shown in view.fields:
        for name, field in shown.also:
            source, column = view.source(name), columns.get(shown.name)
            contract = contracts.get(source.entity) if source else None
            reported = contract.field(field) if contract else None
            if reported is not None and column is not None:
                _check_kind(reported, column, f"fields.{shown.name}.also_reported_by", problems)


def _check_history(view: View, contracts: Mapping[str, Contract], problems: Problems) -> None:
    if len(view.sources) != 1:
        problems.add("sources", "a history view has exactly one source")
    for source in view.sources[:1]:
        contract = contracts.get(source.entity)
        if contract is None:
            continue
        if source.key != contract.key:
            key, fields = ", ".join(contract.key), ", ".join(name for name in source.key if name not in contract.key)
            text = f"a history view keeps the versions of each {contract.id}, so its key is [{key}]."
            ways = f" Declare that and show '{fields}' as a field" if fields else " Name the parts in that order"
            problems.add("key", f"{text}{ways}, or make it `kind: entity`.")
        for name in view.valid:
            field = contract.field(name)
            if field is not None and field.kind not in _TIMES:
                problems.add("valid", f"'{name}' is {field.kind}. Name a date or timestamp of {contract.id}.")
        times = {field.kind for name in view.valid if (field := contract.field(name)) is not None}
        if len(times) > 1 and times <= set(_TIMES):
            problems.add("valid", "`from` and `to` are a date and a timestamp. Name two of one kind.")


def _check_by(view: View, lookup: Lookup, columns: Mapping[str, Column], problems: Problems) -> None:
    """A look-up goes by what this view has of its own."""
    where = f"lookups.{lookup.name}"
    own = {*view.key, *(field.name for field in view.fields if view.source(field.source))}
    for name in lookup.by:
        if name in columns and name not in own:
            text = f"'{name}' comes from a look-up itself. Name a column of the view's own sources."
            problems.add(where, text, f"{where}.by")
        elif name not in columns:
            problems.add(where, f"this view has no field '{name}'. {names.nearest(name, own)}", f"{where}.by")


def _check_lookup(
    lookup: Lookup, other: View, columns: Mapping[str, Column], known: tuple[Column, ...], problems: Problems
) -> None:
    where = f"lookups.{lookup.name}"
    if other.kind == "aggregate":
        text = f"'{other.name}' is an aggregate. Look up an entity or history view."
        problems.add(where, text, f"{where}.view")
        return
    if len(lookup.by) != len(other.key):
        text = f"names {len(lookup.by)} column(s), the key of '{other.name}' is [{', '.join(other.key)}]"
        problems.add(where, f"`by` {text}", f"{where}.by")
        return
    keys = {column.name: column for column in known}
    for name, part in zip(lookup.by, other.key, strict=True):
        mine, theirs = columns.get(name), keys.get(part)
        if mine is None or theirs is None:
            continue
        if (mine.kind, mine.scale) != (theirs.kind, theirs.scale):
            what = f"is {mine.kind}, '{other.name}.{part}' is {theirs.kind}"
            text = what if mine.kind is not theirs.kind else f"has another scale than '{other.name}.{part}'"
            problems.add(where, f"'{name}' {text}", f"{where}.by")


def _check_join(over: Over, other: View, known: Columns, problems: Problems) -> None:
    join, where = over.join, f"over.{over.name}"
    if join is None:
        return
    if other.key != (join.foreign,):
        key = ", ".join(other.key)
        problems.add(f"{where}.join", f"'{join.foreign}' is not the key of '{join.view}', which is [{key}]")
    local = {column.name: column for column in known.get(over.view, ())}
    if over.view in known and join.local not in local:
        hint = names.nearest(join.local, local)
        problems.add(f"{where}.join", f"'{over.view}' has no field '{join.local}'. {hint}")
    brought = {column.name: column for column in known.get(join.view, ())}
    mine, theirs = local.get(join.local), brought.get(join.foreign)
    if mine is not None and theirs is not None and (mine.kind, mine.scale) != (theirs.kind, theirs.scale):
        problems.add(f"{where}.join", f"'{join.local}' is {mine.kind}, '{join.view}.{join.foreign}' is {theirs.kind}")
    for name in join.bring:
        if join.view in known and name not in brought:
            problems.add(f"{where}.bring", f"'{join.view}' has no field '{name}'. {names.nearest(name, brought)}")


def _check_aggregate(view: View, others: Columns, problems: Problems) -> None:
    available = {over.name: over_columns(over, others) for over in view.over if over.view in others}
    for measure in view.measures:
        columns = available.get(measure.over)
        if columns is not None:
            _check_measure(measure, columns, problems)


def _check_measure(measure: Measure, columns: Mapping[str, Column], problems: Problems) -> None:
    where, column = f"measures.{measure.name}", columns.get(measure.field or "")
    if measure.function == "sum" and column is not None and column.kind not in _SUMMABLE:
        problems.add(where, f"'{column.name}' is {column.kind}, which has no sum", f"{where}.sum")
    elif measure.function in ("min", "max") and column is not None and column.kind in _NO_ORDER:
        problems.add(where, f"'{column.name}' is {column.kind}, which has no order", f"{where}.{measure.function}")
    if measure.where is not None and not (set(measure.where.fields) - set(columns)):
        _check_where(where, measure.where, columns, problems)


def _check_where(where: str, condition: Condition, columns: Mapping[str, Column], problems: Problems) -> None:
    if condition.subject_attributes:
        problems.add(f"{where}.where", "nobody is asking, so there is no subject")
        return
    if condition.reads_the_day:
        problems.add(f"{where}.where", "a count is kept with each change, so it cannot follow the day")
        return
    try:
        check(condition, {name: column.kind for name, column in columns.items()})
    except BusError as error:
        problems.add(f"{where}.where", error.detail)
