"""Row by row and by columns: what a contract refuses, with field, expected and received."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from contract_worlds import (
    ARRAY,
    COLOUR,
    DATE,
    FIXED_MONEY,
    MAP,
    MICROS,
    MILLIS,
    MONEY,
    POINT,
    TYPES,
    UUID,
    contract_of,
    contracts_with_records,
    field,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.contracts.codec import Codec
from bus.contracts.columns import ColumnCheck
from bus.contracts.registry import checked_contract
from bus.contracts.validation import Validator, Violation, violations

NOON = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)
FIRST = dt.datetime.min
D = decimal.Decimal
Bad = tuple[Any, list[Any], list[Any], dict[str, Any]]

# A type, values that keep it, values that do not, and what the owner adds.
CASES: list[Bad] = [
    ("string", ["a", "", " a ", "好"], [1, b"a", None, "a\x00b", "\ud800", ["a"]], {}),
    ("int", [0, -(2**31), 2**31 - 1], [2**31, 3.0, 3.7, True, "3", None, D(3)], {}),
    ("long", [2**63 - 1], [2**63, -(2**63) - 1, 10**400, 1.0, np.nan], {}),
    ("double", [1.5, 3, -0.0, 5e-324], ["1.5", True, np.nan, np.inf, 10**400, D("1.5")], {}),
    ("float", [1.5, 2.0**127], [3.5e38, -np.inf], {}),
    ("boolean", [True, False], [0, 1, "true"], {}),
    (DATE, [dt.date(2024, 2, 29)], [NOON, "2024-02-29", 19_000], {}),
    (MICROS, [NOON, NOON.astimezone(dt.timezone(dt.timedelta(hours=8)))], [NOON.replace(tzinfo=None), NOON.date()], {}),
    (MICROS, [FIRST.replace(tzinfo=dt.UTC)], [FIRST.replace(tzinfo=dt.timezone(dt.timedelta(hours=12)))], {}),
    (MILLIS, [NOON.replace(microsecond=5_000)], [NOON.replace(microsecond=5_001)], {}),
    (MONEY, [D("1.5"), D("9999999999.990"), D("-0")], [1.5, 1, D("1.005"), D("1E10"), D("NaN"), D("1E+999999999")], {}),
    (FIXED_MONEY, [D("1E+5")], [D("0.001")], {}),
    ("bytes", [b"", b"\x00"], ["", bytearray(b"x")], {}),
    ({"type": "fixed", "name": "Four", "size": 4}, [b"abcd"], [b"abc", b"abcde"], {}),
    (COLOUR, ["RED"], ["red", "", 0], {}),
    (UUID, ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567e89b12d3a456426614174000", "x"], {}),
    (ARRAY, [[], ["a"]], [["a", 1], "a", {"a": 1}, [None]], {}),
    (MAP, [{}, {"a": 1}], [{"a": "1"}, {"a": 2**63}, [("a", 1)]], {}),
    (POINT, [{"x": 1, "y": 1.5}], [{"x": 1}, {"x": "1", "y": 1.5}, {"x": 1, "y": 1.5, "z": 1}, 5], {}),
    ("string", ["A", "B"], ["C", "a"], {"values": ["A", "B"]}),
    ("long", [1, 2], [3, True], {"values": [1, 2]}),
    ("string", ["A1"], ["A1 ", "xA1", "A1\n", "A１"], {"pattern": "[A-Z][0-9]"}),
    ("string", ["11010519491231002X"], ["110105194912310021", "", "11010519491231002x"], {"identifier": "citizen_id"}),
    ("int", [0, 50], [-1, 51], {"minimum": 0, "maximum": 50}),
    ("double", [0, 0.5, 1.0], [-1e-300, 1.0000001], {"minimum": 0, "maximum": 1}),
    (DATE, [dt.date(1900, 1, 1)], [dt.date(1899, 12, 31)], {"minimum": "1900-01-01"}),
    (MICROS, [NOON], [NOON + dt.timedelta(microseconds=1)], {"maximum": "2024-01-01T12:00:00Z"}),
    (MONEY, [D("0.10")], [D("0.09")], {"minimum": 0.1}),
]  # fmt: skip


def _validator(*fields: dict[str, Any], **more: Any) -> Validator:
    return Validator(checked_contract(contract_of(*fields, **more)))


def _accepts(validator: Validator, record: Any) -> bool:
    """Row by row; by columns too, which may ask for a closer look but never pass what is refused."""
    row = not validator.violations(record)
    other = {"id": "k", **{name: None for name in validator.names if name != "id"}}
    for records, place in (([record], 0), ([other, record, other], 1)):
        checked = ColumnCheck(validator).columns(records)
        assert row or bool(checked.doubt[place])
    return row


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[3]}")
def test_values(case: Bad) -> None:
    """Each kind takes what it is and refuses what it is not; what it takes can be written and read back."""
    avro, good, bad, stated = case
    validator = _validator(field("f", avro, **stated))
    codec = Codec(validator.contract.schema)
    for value in good:
        assert _accepts(validator, {"id": "k", "f": value}), value
        whole = validator.normal({"id": "k", "f": value})
        assert codec.decode(codec.encode(whole)) == whole
        assert whole["f"] == value
    for value in bad:
        assert not _accepts(validator, {"id": "k", "f": value}), value


def test_what_is_said() -> None:
    """A violation names field, expected and received; a missing field, a null and an unknown field are told apart."""
    contract = checked_contract(contract_of(field("ward", "int", minimum=1), field("city", "string")))
    assert violations(contract, {"id": "k", "ward": -1, "town": "x"}) == [
        Violation("ward", "at least 1", "-1"),
        Violation("city", "a value (text)", "nothing: the field is missing"),
        Violation("town", "no such field. Known: city, id, ward.", "an unknown field"),
    ]
    assert violations(contract, {"id": None, "ward": 1, "city": ""}) == [Violation("id", "a value (text)", "null")]
    assert violations(contract, 5)[0].field == "(record)"
    assert "Did you mean 'ward'" in violations(contract, {"id": "k", "ward": 1, "city": "", "wards": 1})[0].expected


@pytest.mark.parametrize("avro", ["string", MAP, POINT], ids=str)
def test_personal_values_are_not_shown(avro: Any) -> None:
    """What a personal field received is not in the reason, nor is anything of a nested value."""
    contract = checked_contract(contract_of(field("f", avro, personal=True)))
    (found,) = violations(contract, {"id": "k", "f": {"x": "SECRET", "y": 1, "SECRET": "SECRET"}})
    assert "SECRET" not in found.received + found.expected


def test_a_long_value_is_cut() -> None:
    """A reason stays readable whatever was sent."""
    (found,) = _validator(field("f", "long")).violations({"id": "k", "f": "x" * 10_000})
    assert len(found.received) < 120


def test_keys_are_not_empty() -> None:
    """An empty key text could not be told from a missing one; other text may be empty."""
    validator = _validator(field("f", "string"))
    assert _accepts(validator, {"id": " ", "f": ""})
    assert not _accepts(validator, {"id": "", "f": ""})


def test_defaults() -> None:
    """A missing field with a default gets it, alone and in columns; a null is not a missing field."""
    validator = _validator(field("a", "int", default=7), field("b", ["null", DATE], default=None))
    assert validator.normal({"id": "k"}) == {"id": "k", "a": 7, "b": None}
    assert not _accepts(validator, {"id": "k", "a": None})
    checked = ColumnCheck(validator).columns([{"id": "k"}, {"id": "l", "a": 1, "b": None}])
    assert not checked.doubt.any()
    assert checked.batch.to_pylist() == [{"id": "k", "a": 7, "b": None}, {"id": "l", "a": 1, "b": None}]


def test_the_default_of_a_date_is_no_date() -> None:
    """Avro writes it as a number of days, which no record may hold, so the field must be given."""
    validator = _validator(field("d", DATE, default=0))
    assert not _accepts(validator, {"id": "k"})


def test_deletes_are_checked_by_their_key() -> None:
    """All key fields and nothing else."""
    validator = _validator(field("n", "int"))
    assert validator.key_violations({"id": "k"}) == []
    for bad in ({}, {"id": None}, {"id": ""}, {"id": 1}, {"id": "k", "n": 1}, "k"):
        assert validator.key_violations(bad), bad


@settings(max_examples=150, deadline=None)
@given(contracts_with_records(TYPES))
def test_what_keeps_the_contract_is_accepted(world: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    """Every record made of values of its types passes, row by row and, where columns apply, by columns."""
    schema, records = world
    validator = Validator(checked_contract(schema))
    assert [validator.violations(record) for record in records] == [[]] * len(records)
    checked = ColumnCheck(validator).columns(records)
    certain = np.flatnonzero(~checked.doubt).tolist()
    assert checked.batch.take(pa.array(certain, pa.int64())).to_pylist() == [records[index] for index in certain]


_ANY = st.one_of(*(strategy for _, strategy in TYPES), st.none(), st.floats(), st.integers(), st.text(), st.datetimes())


@settings(max_examples=300, deadline=None)
@given(contracts_with_records(TYPES, most=12), st.data())
def test_columns_and_rows_agree(world: tuple[dict[str, Any], list[dict[str, Any]]], data: st.DataObject) -> None:
    """With any values in any places, columns never pass a record that the row-by-row check refuses, and
    a record that they pass has the same values there."""
    schema, records = world
    validator = Validator(checked_contract(schema))
    for record in records:
        if data.draw(st.booleans()):
            name = data.draw(st.sampled_from([*validator.names, "other"]))
            record[name] = data.draw(_ANY)
        if data.draw(st.integers(0, 9)) == 0:
            record.pop(data.draw(st.sampled_from(validator.names)), None)
    checked = ColumnCheck(validator).columns(records)
    rows = checked.batch.to_pylist() if len(records) else []
    for record, doubt, row in zip(records, checked.doubt, rows, strict=True):
        if not doubt:
            assert validator.violations(record) == []
            assert row == record


def test_a_decoded_batch_is_checked_too() -> None:
    """Rules that Avro does not know, on what came straight to a topic."""
    validator = _validator(field("ward", ["null", "int"], minimum=1), field("c", "string", values=["A"]))
    codec = Codec(validator.contract.schema)
    records = [{"id": "a", "ward": 1, "c": "A"}, {"id": "b", "ward": 0, "c": "A"}, {"id": "c", "ward": None, "c": "B"}]
    batch = codec.decode_batch([codec.encode(record) for record in records]).batch
    assert ColumnCheck(validator).doubtful(batch).tolist() == [False, True, True]
