"""What a view's tables were made for, kept beside them: until a changed declaration is built, the tables go on being
fed and read under the one that they have."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

from bus.core.columns import Column
from bus.core.contracts import Kind, parse_contract
from bus.core.declarations import parse_view
from bus.core.names import without_generation
from bus.views.catalogue import Shape
from bus.views.store import ViewStore


def shape_text(shape: Shape) -> str:
    """The shape as JSON, without the view's name, so that it stays true when tables are swapped."""
    return json.dumps(
        {
            "document": shape.view.document,
            "columns": [asdict(column) for column in shape.columns],
            "contracts": [contract.schema for contract in shape.contracts],
        },
        ensure_ascii=False,
        default=str,
    )


@lru_cache(maxsize=500)
def read_shape(text: str, view: str, fingerprint: str) -> Shape | None:
    """The shape that `shape_text` wrote, for the view of that name; None where there is none, or where tables of this
    ``fingerprint`` were laid out by another version of the bus."""
    if not text:
        return None
    doc = json.loads(text)
    columns = tuple(Column(**{**column, "kind": Kind(column["kind"])}) for column in doc["columns"])
    declared = replace(parse_view({**doc["document"], "view": without_generation(view)}), name=view)
    shape = Shape(declared, columns, tuple(parse_contract(schema) for schema in doc["contracts"]))
    return shape if shape.fingerprint == fingerprint else None


def applied_shape(declared: Shape, fingerprint: str, text: str) -> Shape:
    """The shape that the view's tables have, by what its row says: the declared one, or the one before until that is
    built. What is not a matter of tables (titles, owner, classes, whether stale rows show) is as declared now."""
    if not text or fingerprint == declared.fingerprint:
        return declared
    found = read_shape(text, declared.view.name, fingerprint)
    if found is None:
        return declared
    view, now = declared.view, {column.name: column for column in declared.columns}
    columns = tuple(_presented(column, now.get(column.name, column)) for column in found.columns)
    shown = replace(found.view, title=view.title, owner=view.owner, listed=view.listed, stale=view.stale)
    return replace(found, view=shown, columns=columns)


def _presented(column: Column, now: Column) -> Column:
    return replace(column, title=now.title, classification=now.classification, personal=column.personal or now.personal)


class AppliedShapes:
    """The shapes that tables have now, as doors read them. ``declared``: as declared now. What the tables have is
    looked at again after ``kept_s`` of ``clock``, and at once after `forget`."""

    def __init__(
        self,
        declared: Callable[[], Mapping[str, Shape]],
        store: ViewStore,
        *,
        clock: Callable[[], float],
        kept_s: float = 0.25,
    ) -> None:
        self._declared, self._store, self._clock, self._kept_s = declared, store, clock, kept_s
        self._asked: float | None = None
        self._fingerprints: Mapping[str, str] = {}
        self._known: tuple[Any, Mapping[str, str], Mapping[str, Shape]] = (None, {}, {})

    def __call__(self) -> Mapping[str, Shape]:
        declared, now = self._declared(), self._clock()
        if self._asked is None or now - self._asked > self._kept_s:
            self._fingerprints, self._asked = self._store.fingerprints(), now
        known_of, known_with, known = self._known
        if known_of is not declared or known_with != self._fingerprints:
            known = {name: self._one(shape) for name, shape in declared.items()}
            self._known = (declared, self._fingerprints, known)
        return known

    def _one(self, shape: Shape) -> Shape:
        fingerprint = self._fingerprints.get(shape.view.name, "")
        if not fingerprint or fingerprint == shape.fingerprint:
            return shape
        state = self._store.state(shape.view.name)
        return applied_shape(shape, state.fingerprint, state.shape) if state else shape

    def forget(self) -> None:
        """Makes the next call look."""
        self._asked = None
