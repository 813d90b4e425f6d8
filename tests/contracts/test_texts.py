"""Text from files and JSON becomes what the contract holds, or stays text."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import pytest
from contract_worlds import DATE, MICROS, MONEY, contract_of, field

from bus.contracts.texts import from_json, from_text
from bus.core.contracts import parse_contract

NOON = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("avro", "text", "value"),
    [
        ("string", " 007 ", " 007 "),
        ("long", "007", 7),
        ("long", "-7", -7),
        ("long", "7.0", "7.0"),
        ("long", " 7", " 7"),
        ("long", "1_000", "1_000"),
        ("long", "٧", "٧"),
        ("double", "1e3", 1000.0),
        ("double", "-.5", -0.5),
        ("double", "nan", "nan"),
        ("double", "1_0", "1_0"),
        ("boolean", "True", True),
        ("boolean", "1", "1"),
        (DATE, "2024-02-29", dt.date(2024, 2, 29)),
        (DATE, "2023-02-29", "2023-02-29"),
        (DATE, "20240229", "20240229"),
        (DATE, "2024-W01-1", "2024-W01-1"),
        (MICROS, "2024-01-01T12:00:00Z", NOON),
        (MICROS, "2024-01-01T20:00:00+08:00", NOON),
        (MICROS, "2024-01-01", "2024-01-01"),
        (MONEY, "1.50", decimal.Decimal("1.50")),
        (MONEY, "one", "one"),
        ("bytes", "AP8=", b"\x00\xff"),
        ("bytes", "é", "é"),
    ],
)
def test_texts(avro: Any, text: str, value: Any) -> None:
    """Only what is exactly a value of the kind is one; nothing is guessed."""
    converted = from_text(parse_contract(contract_of(field("f", avro))).fields[1])(text)
    assert converted == value
    assert type(converted) is type(value)


def test_json() -> None:
    """Dates, instants, decimals and bytes come as text in JSON; numbers and text are what they are."""
    contract = parse_contract(contract_of(field("d", DATE), field("m", MONEY), field("n", "long"), field("b", "bytes")))
    doc = {"id": "7", "d": "2024-01-01", "m": 1.1, "n": "7", "b": "AA==", "x": "2024-01-01"}
    assert from_json(contract, doc) == {
        "id": "7",
        "d": dt.date(2024, 1, 1),
        "m": decimal.Decimal("1.1"),
        "n": "7",
        "b": b"\x00",
        "x": "2024-01-01",
    }
    assert from_json(contract, {"d": None, "m": True}) == {"d": None, "m": True}
