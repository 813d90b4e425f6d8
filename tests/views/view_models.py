"""Random contracts, entity views over them and events, for tests that compare what a builder made with the fold."""

from __future__ import annotations

import datetime as dt
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from views_world import FixedRegistry, schema

from bus.core.contracts import Json, Kind, kind_of
from bus.core.declarations import parse_view
from bus.core.events import record_key
from bus.views.catalogue import Shape, shape_of
from bus.views.oracle.verify import Event

PARTITIONS = 2
_LAST = dt.datetime(9999, 12, 31, 23, 59, 59, 999999, dt.UTC)
_BEFORE_1970 = dt.datetime(1969, 12, 31, 23, 59, 59, 999999, dt.UTC)
_FULL_MS = dt.datetime(2021, 1, 1, 0, 0, 0, 5_000, dt.UTC)
DATE = {"type": "int", "logicalType": "date"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
COLOUR = {"type": "enum", "name": "Colour", "symbols": ["red", "Green", "blue"]}
WORDS = {"type": "array", "items": "string"}
VALUES: Sequence[tuple[Any, list[Any]]] = (
    ("string", ["", "a", "B", "é", "\uffff", "\U00010000", "a|b", "\\"]),
    ("long", [0, 1, -1, 2**63 - 1, -(2**63) + 1]),
    ("int", [0, 7, -(2**31), 2**31 - 1]),
    ("double", [0.0, -0.0, 1.5, float("nan"), float("inf"), float("-inf"), 5e-324]),
    ("float", [0.0, -0.0, 0.5, float("nan")]),
    ("boolean", [True, False]),
    (DATE, [dt.date(1, 1, 1), dt.date(1970, 1, 1), dt.date(2020, 2, 29), dt.date(9999, 12, 31)]),
    (MICROS, [_BEFORE_1970, _FULL_MS, _LAST]),
    (MILLIS, [_FULL_MS, dt.datetime(1, 1, 1, tzinfo=dt.UTC)]),
    (MONEY, [Decimal("0.00"), Decimal("-12.34"), Decimal("9999999999.99")]),
    ("bytes", [b"", b"\x00\xff"]),
    (COLOUR, ["red", "Green", "blue"]),
    (WORDS, [[], ["", "é"]]),
)
"""Avro types with values at their edges."""
_KEYS = ("string", "long", "boolean", DATE, MICROS, MONEY)
_VERSIONS = ("long", DATE, MICROS)


def values_of(avro: Any) -> list[Any]:
    """The values that a field of this type takes."""
    return next(values for known, values in VALUES if known == avro)


@dataclass(frozen=True)
class Entity:
    """A contract: the types of its fields by name, and which are its key, its version, and hold the view's key."""

    namespace: str
    types: Mapping[str, Any]
    key: tuple[str, ...]
    group: tuple[str, ...]
    version: str | None

    @property
    def id(self) -> str:
        return f"{self.namespace}.thing"

    @property
    def document(self) -> Json:
        types = {n: {**avro, "name": f"Of{n}"} if avro is COLOUR else avro for n, avro in self.types.items()}
        fields = {n: avro if n in self.key else ["null", avro] for n, avro in types.items()}
        more = {"bus.version": self.version} if self.version else {}
        return schema(self.namespace, "Thing", self.key, fields, **more)

    @property
    def sortable(self) -> list[str]:
        return [name for name, avro in self.types.items() if kind_of(avro) not in (Kind.BYTES, Kind.NESTED)]


@dataclass(frozen=True)
class Model:
    """Contracts and one entity view over them."""

    entities: tuple[Entity, ...]
    view: Json

    @property
    def registry(self) -> FixedRegistry:
        return FixedRegistry(*(entity.document for entity in self.entities))

    @property
    def shape(self) -> Shape:
        return shape_of(parse_view(self.view), self.registry.contracts, {})


@st.composite
def _entity(draw: st.DrawFn, number: int, view_key: Sequence[Any]) -> Entity:
    """``view_key``: the types of the view's key. One time in three the entity's own key is of these types too."""
    types: dict[str, Any] = {}
    keyed = draw(st.integers(0, 2)) == 0
    own = list(view_key) if keyed else draw(st.lists(st.sampled_from(_KEYS), min_size=1, max_size=2))
    for index, avro in enumerate(own):
        types[f"k{index}"] = avro
    key, group = tuple(types), tuple(types)
    if not keyed:
        group = tuple(f"g{index}" for index in range(len(view_key)))
        types |= dict(zip(group, view_key, strict=True))
    others = draw(st.lists(st.sampled_from([avro for avro, _ in VALUES]), max_size=4))
    types |= {f"f{index}": avro for index, avro in enumerate(others)}
    version = None
    if draw(st.booleans()):
        version = "v"
        types["v"] = draw(st.sampled_from(_VERSIONS))
    return Entity(f"d{number}", types, key, group, version)


@st.composite
def models(draw: st.DrawFn) -> Model:
    """One to three sources, two of them perhaps of one entity; keys of one or two parts; ranks; any fields shown."""
    view_key = draw(st.lists(st.sampled_from(_KEYS), min_size=1, max_size=2))
    count = draw(st.integers(1, 3))
    entities = tuple(draw(_entity(number, view_key)) for number in range(count))
    again = [draw(st.sampled_from(entities))] if count < 3 and draw(st.integers(0, 3)) == 0 else []
    sources, fields = {}, {}
    for number, entity in enumerate([*entities, *again]):
        rank = draw(st.lists(st.sampled_from(entity.sortable), max_size=2, unique=True))
        sources[f"s{number}"] = {"entity": entity.id, "key": list(entity.group), "rank": rank}
        for name in draw(st.lists(st.sampled_from(list(entity.types)), max_size=3, unique=True)):
            fields[f"c{number}_{name}"] = {"from": f"s{number}.{name}"}
    key = [f"key{index}" for index in range(len(view_key))]
    return Model(entities, {"view": "modelled", "owner": "d0", "key": key, "sources": sources, "fields": fields})


@st.composite
def events(draw: st.DrawFn, model: Model) -> Event:
    """An upsert or delete of one of a few records, without an offset. A record keeps to one partition, but for one
    event in ten, which a department sent to another."""
    entity = draw(st.sampled_from(model.entities))
    key = tuple(draw(st.sampled_from(values_of(entity.types[name])[:2])) for name in entity.key)
    home = zlib.crc32(record_key(key).encode()) % PARTITIONS
    partition = (home + (draw(st.integers(0, 9)) == 9)) % PARTITIONS
    sequence = draw(st.sampled_from([None, None, None, None, 1, 2, 3, -5]))
    if draw(st.integers(0, 3)) == 0:
        stated = draw(st.sampled_from(values_of(entity.types["v"]))) if entity.version else None
        return Event(entity.id, partition, 0, None, key, stated, sequence)
    record = dict(zip(entity.key, key, strict=True))
    for name, avro in entity.types.items():
        if name not in record:
            few = values_of(avro)[:2] if name in entity.group else values_of(avro)
            record[name] = draw(st.sampled_from([None, *few]))
    return Event(entity.id, partition, 0, record, key, None, sequence)
