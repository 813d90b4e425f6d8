"""The shape of a view: its declaration with the columns that its contracts and the views it reads give it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any, Final

from bus.core import names
from bus.core.columns import Column, find_columns, scale_of
from bus.core.columns import over_columns as columns_over
from bus.core.contracts import Contract, Kind
from bus.core.guards import NOTHING_LOWERED, Lowered, guarded
from bus.core.openness import check_openness
from bus.core.problems import Problems
from bus.core.soundness import check_reads, check_view
from bus.core.views import Over, View

_LAYOUT: Final = 3  # of the tables: another number rebuilds every view


@dataclass(frozen=True)
class Shape:
    """A view with the columns that readers see, and the contracts of its sources in their order."""

    view: View
    columns: tuple[Column, ...]
    contracts: tuple[Contract, ...] = ()

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """The kind of each column by name."""
        return {column.name: column.kind for column in self.columns}

    @cached_property
    def fingerprint(self) -> str:
        """What the tables depend on, as 64 hex digits: another fingerprint means a rebuild. Titles, owner, classes and
        what the view does not use of its contracts do not count, nor does the suffix of a shadow (``+next``)."""
        text = json.dumps([_LAYOUT, names.without_generation(self.view.name), self._stored()], default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _stored(self) -> list[Any]:
        view = self.view
        columns = [(column.name, column.kind, column.scale, column.source) for column in self.columns]
        if view.kind == "aggregate":
            over = [astuple(over) for over in view.over]
            measures = [(m.name, m.function, m.over, m.field, m.where and astuple(m.where)[0]) for m in view.measures]
            return [view.kind, view.key, columns, over, measures]
        fields = [(field.name, field.source, field.field, field.also) for field in view.fields]
        lookups = [astuple(lookup) for lookup in view.lookups]
        return [view.kind, view.key, columns, fields, lookups, view.valid, self._used()]

    def _used(self) -> list[Any]:
        """Of each source what the view uses: its keys, its rank, its version, and the kinds of all fields used."""
        found: list[Any] = []
        for source, contract in zip(self.view.sources, self.contracts, strict=True):
            shown = [field.field for field in self.view.fields if field.source == source.name]
            also = [name for field in self.view.fields for reporter, name in field.also if reporter == source.name]
            version = [contract.version] if contract.version else []
            used = sorted({*contract.key, *source.key, *source.rank, *shown, *also, *self.view.valid, *version})
            kinds = [(name, field.kind, scale_of(field)) for name in used if (field := contract.field(name))]
            found.append((source.name, source.entity, contract.key, source.key, source.rank, contract.version, kinds))
        return found


def shapes_of(
    views: Mapping[str, View], contracts: Mapping[str, Contract], lowered: Lowered = NOTHING_LOWERED
) -> dict[str, Shape]:
    """The shape of each of these views that can be built, each after what it reads."""
    shaped: dict[str, Shape] = {}
    for name, view in ordered(views):
        problems = Problems(name)
        shape = find_shape(view, contracts, shaped, problems, lowered)
        if not problems.found:
            shaped[name] = shape
    return shaped


def check_declared(
    before: Mapping[str, View],
    given: Sequence[tuple[View, Problems]],
    contracts: Mapping[str, Contract],
    lowered: Lowered = NOTHING_LOWERED,
    *,
    sound: Collection[str] | None = None,
) -> None:
    """Adds to the problems of each given view what is wrong with it among the others and those declared ``before``,
    and each view that is sound now and would not be. The given ones may read each other. ``sound``: the names of the
    views that are taken for sound now; None: those that are."""
    found = {view.name: problems for view, problems in given}
    after = {**before, **{view.name: view for view, _ in given}}
    for view, problems in given:
        circle = circle_through(view.name, after)
        if circle:
            text = f"reads itself: {' -> '.join(circle)}. A view may not be computed from its own rows."
            problems.add("view", text)
            return
    sound, shaped = _sound(before, contracts, lowered) if sound is None else sound, dict[str, Shape]()
    for name, candidate in ordered(after):
        problems = found.get(name) or Problems(name)
        shape = find_shape(candidate, contracts, shaped, problems, lowered)
        check_openness(candidate, shape.columns, problems)
        if name in found or not problems.found:
            shaped[name] = shape  # as far as it was found: what reads it is not to be blamed for its mistakes
        elif name in sound:
            _blame(
                candidate, problems, [(view, problems_) for view, problems_ in given if view.name in candidate.reads]
            )


def _blame(reader: View, broken: Problems, changed: Sequence[tuple[View, Problems]]) -> None:
    """A view that is not among the given ones would break: that is said of those that it reads."""
    for _, problems in changed:
        if not problems.found:
            problems.add("view", f"'{reader.name}' reads it and would break: {'; '.join(broken.found)}")


def _sound(views: Mapping[str, View], contracts: Mapping[str, Contract], lowered: Lowered) -> set[str]:
    """The views that can be built and are no more open than their sources."""
    found = set[str]()
    for name, shape in shapes_of(views, contracts, lowered).items():
        problems = Problems(name)
        check_openness(shape.view, shape.columns, problems)
        if not problems.found:
            found.add(name)
    return found


def circle_through(name: str, views: Mapping[str, View]) -> list[str]:
    """The views from ``name`` back to itself, each read by the one before; empty where there is no circle."""
    paths = [[name]]
    seen = set[str]()
    while paths:
        path = paths.pop()
        for read in views[path[-1]].reads if path[-1] in views else ():
            if read == name:
                return [*path, name]
            if read not in seen:
                seen.add(read)
                paths.append([*path, read])
    return []


def ordered(views: Mapping[str, View]) -> list[tuple[str, View]]:
    """Each view after those that it reads; within that, in the order of names."""
    done, waiting = dict[str, View](), dict(sorted(views.items()))
    while waiting:
        ready = [name for name, view in waiting.items() if not set(view.reads) & set(waiting)]
        for name in ready or list(waiting):  # a circle: shape_of will name what is missing
            done[name] = waiting.pop(name)
    return list(done.items())


def shape_of(
    view: View,
    contracts: Mapping[str, Contract],
    shaped: Mapping[str, Shape],
    lowered: Lowered = NOTHING_LOWERED,
) -> Shape:
    """The shape of one view. ``shaped``: the shapes of the views that this one reads.

    Raises `InvalidDeclaration` naming everything that cannot be built: a field, contract or view that is not there,
    keys of unequal kinds, a look-up or join on something else than a key. That a column is declared too open is no
    reason (a declassification may have ended): it is shown as guarded as it is.
    """
    problems = Problems(f"view '{view.name}'")
    shape = find_shape(view, contracts, shaped, problems, lowered)
    problems.raise_if_any()
    return shape


def find_shape(
    view: View,
    contracts: Mapping[str, Contract],
    shaped: Mapping[str, Shape],
    problems: Problems,
    lowered: Lowered = NOTHING_LOWERED,
) -> Shape:
    """The shape as far as it can be found; what is wrong goes to ``problems``."""
    known = {name: shape.columns for name, shape in shaped.items()}
    columns = find_columns(view, contracts, known, problems)
    check_view(view, columns, contracts, known, problems)
    others = {name: shape.view for name, shape in shaped.items()}
    check_reads(view, others, {column.name: column for column in columns}, known, problems)
    columns = guarded(view, columns, contracts, known, lowered)
    return Shape(view, columns, tuple(contracts[entity] for entity in view.entities if entity in contracts))


def over_columns(over: Over, shaped: Mapping[str, Shape]) -> dict[str, Column]:
    """The columns that an aggregate can use of one source: its view's own, and those brought over."""
    return columns_over(over, {name: shape.columns for name, shape in shaped.items()})
