"""Contracts, records and random ones of them, for the tests of contracts and publishing."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

from hypothesis import strategies as st

DATE = {"type": "int", "logicalType": "date"}
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
UUID = {"type": "string", "logicalType": "uuid"}
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
FIXED_MONEY = {"type": "fixed", "name": "Money", "size": 8, "logicalType": "decimal", "precision": 12, "scale": 2}
COLOUR = {"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN", "BLUE"]}
POINT = {"type": "record", "name": "Point", "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": "double"}]}
ARRAY = {"type": "array", "items": "string"}
MAP = {"type": "map", "values": "long"}


def contract_of(*fields: dict[str, Any], key: str = "id", **more: Any) -> dict[str, Any]:
    """A contract ``dept_a.thing`` with a text key ``id`` before the given fields."""
    own = [] if any(field["name"] == key for field in fields) else [{"name": key, "type": "string"}]
    return {
        "type": "record",
        "name": "Thing",
        "namespace": "dept_a",
        "bus.owner": "dept_a",
        "bus.contact": "a@example.org",
        "bus.key": [key],
        "bus.freshness": "P1D",
        "bus.retention": "P1Y",
        "bus.legal_basis": "a law",
        "fields": [*own, *fields],
        **more,
    }


def field(name: str, avro: Any, **more: Any) -> dict[str, Any]:
    """A field; ``minimum=1`` is ``bus.min`` and so on."""
    names = {"minimum": "bus.min", "maximum": "bus.max", "default": "default"}
    return {"name": name, "type": avro, **{names.get(key, f"bus.{key}"): value for key, value in more.items()}}


# For each Avro type that the bus takes: its values as Python has them.
_INSTANTS = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30), timezones=st.just(dt.UTC))
_TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
_MONEY = st.integers(-(10**12) + 1, 10**12 - 1).map(lambda number: decimal.Decimal(number).scaleb(-2))
TYPES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    ("string", _TEXT),
    (COLOUR, st.sampled_from(["RED", "GREEN", "BLUE"])),
    (UUID, st.uuids().map(str)),
    ("int", st.integers(-(2**31), 2**31 - 1)),
    ("long", st.integers(-(2**63), 2**63 - 1)),
    ("float", st.floats(allow_nan=False, allow_infinity=False, width=32)),
    ("double", st.floats(allow_nan=False, allow_infinity=False)),
    ("boolean", st.booleans()),
    (DATE, st.dates()),
    (MILLIS, _INSTANTS.map(lambda instant: instant.replace(microsecond=instant.microsecond // 1000 * 1000))),
    (MICROS, _INSTANTS),
    ({"type": "int", "logicalType": "time-millis"}, st.integers(0, 86_399_999)),
    (MONEY, _MONEY),
    (FIXED_MONEY, _MONEY),
    ("bytes", st.binary(max_size=20)),
    ({"type": "fixed", "name": "Four", "size": 4}, st.binary(min_size=4, max_size=4)),
    (ARRAY, st.lists(_TEXT, max_size=3)),
    (MAP, st.dictionaries(_TEXT, st.integers(-(2**63), 2**63 - 1), max_size=3)),
    (POINT, st.fixed_dictionaries({"x": st.integers(-(2**31), 2**31 - 1), "y": st.floats(-9, 9)})),
]
FLAT = TYPES[:12]


@st.composite
def contracts_with_records(draw: st.DrawFn, types: list[tuple[Any, st.SearchStrategy[Any]]], most: int = 30) -> Any:
    """A contract of some of the types, some nullable (null first or last), and records that keep it."""
    chosen = draw(st.lists(st.integers(0, len(types) - 1), min_size=1, max_size=6, unique=True))
    fields, values = [], {"id": _TEXT.filter(bool)}
    for index in chosen:
        avro, strategy = types[index]
        shape = draw(st.sampled_from(["plain", "null first", "null last"]))
        union = {"plain": avro, "null first": ["null", avro], "null last": [avro, "null"]}[shape]
        fields.append(field(f"f{index}", union))
        values[f"f{index}"] = strategy if shape == "plain" else st.none() | strategy
    records = draw(st.lists(st.fixed_dictionaries(values), max_size=most))
    return contract_of(*fields), records
