"""Record keys by columns are those of `core.events`, and decoded values have the key that was sent."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

from contract_worlds import COLOUR, DATE, MICROS, MILLIS, MONEY, contract_of, field
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.contracts.codec import Codec
from bus.contracts.keys import key_of, record_keys
from bus.contracts.validation import Validator
from bus.core.contracts import parse_contract
from bus.core.events import record_key, split_key

PARTS = {
    "text": ("string", st.text(st.sampled_from("ab|\\é好"), min_size=1, max_size=6)),
    "colour": (COLOUR, st.sampled_from(["RED", "BLUE"])),
    "number": ("long", st.integers(-(2**63), 2**63 - 1)),
    "small": ("int", st.integers(-(2**31), 2**31 - 1)),
    "flag": ("boolean", st.booleans()),
    "day": (DATE, st.dates()),
    "at": (MICROS, st.datetimes(timezones=st.just(dt.UTC))),
    "money": (MONEY, st.decimals("-1E9", "1E9", places=1)),
}


@st.composite
def _keyed(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    names = draw(st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=3, unique=True))
    fields = [field(name, PARTS[name][0]) for name in names]
    schema = contract_of(*fields, key=names[0]) | {"bus.key": names}
    records = draw(st.lists(st.fixed_dictionaries({name: PARTS[name][1] for name in names}), min_size=1, max_size=12))
    return schema, records


@settings(max_examples=150, deadline=None)
@given(_keyed())
def test_keys_by_columns(world: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    """For every kind of key field and any number of them; and the parts can be told apart again."""
    schema, records = world
    contract = parse_contract(schema)
    codec, validator = Codec(schema), Validator(contract)
    whole = [validator.normal(record) for record in records]
    batch = codec.decode_batch([codec.encode(record) for record in whole]).batch
    keys = record_keys(contract, batch).to_pylist()
    assert keys == [key_of(contract, record) for record in whole]
    assert keys == [record_key(row[name] for name in contract.key) for row in batch.to_pylist()]
    assert all(len(split_key(key)) == len(contract.key) for key in keys)


def test_a_decimal_has_one_key() -> None:
    """1.5 and 1.50 are one record: the key is made of the value at the contract's scale, as readers see it."""
    validator = Validator(parse_contract(contract_of(field("money", MONEY), key="money")))
    keys = {
        key_of(validator.contract, validator.normal({"money": decimal.Decimal(text)}))
        for text in ("1.5", "1.50", "1.500", "15E-1")
    }
    assert keys == {"1.50"}


def test_an_instant_has_one_key() -> None:
    """The same instant in two time zones is one record."""
    validator = Validator(parse_contract(contract_of(field("at", MILLIS), key="at")))
    noon = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)
    keys = {
        key_of(validator.contract, validator.normal({"at": noon.astimezone(dt.timezone(dt.timedelta(hours=hours)))}))
        for hours in (0, 8, -5)
    }
    assert keys == {"2024-01-01T12:00:00Z"}
