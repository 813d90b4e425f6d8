"""The bulk path and the single path make the same events of the same records."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
from contract_worlds import DATE, TYPES, contract_of, contracts_with_records, field
from kafka.partitioner.default import murmur2

from bus.contracts.registry import checked_contract
from bus.contracts.wire import MAX_EVENT_BYTES, unframe
from bus.publishing.events import Delete, EventIds
from bus.publishing.preparing import TOO_LARGE, Preparer

_ANYTHING = st.none() | st.integers() | st.text() | st.floats() | st.booleans() | st.dates()


@settings(max_examples=200, deadline=None)
@given(contracts_with_records(TYPES), st.data())
def test_both_paths_agree(world: tuple[dict[str, Any], list[Any]], data: st.DataObject) -> None:
    """Good records, bad ones and deletes in any mix: the same keys, bytes, partitions and refusals, in order."""
    schema, records = world
    preparer = Preparer(checked_contract(schema), 7)
    for index, record in enumerate(records):
        match data.draw(st.integers(0, 4)):
            case 0:
                record[data.draw(st.sampled_from(sorted(record)))] = data.draw(_ANYTHING)
            case 1:
                records[index] = Delete({"id": data.draw(_ANYTHING)})
            case 2:
                records[index] = data.draw(_ANYTHING)
    prepared = preparer.prepare(records, first_line=5, partitions=3)
    keys, values, refused = [], [], []
    for line, record in enumerate(records, 5):
        event = preparer.delete(record.key, record.version) if isinstance(record, Delete) else preparer.upsert(record)
        if isinstance(event, tuple):
            refused.append((line, event))
        else:
            keys.append(event.key.encode())
            values.append(event.value)
    assert prepared.keys == keys
    assert prepared.values == values
    assert [(each.line, each.reasons) for _, each in prepared.refused] == refused
    assert sorted(prepared.deletes) == [index for index, value in enumerate(values) if value is None]
    assert prepared.partitions.tolist() == [(murmur2(key) & 0x7FFFFFFF) % 3 for key in keys]
    assert all(unframe(value)[0] == 7 for value in values if value is not None)


def test_an_event_that_is_too_large() -> None:
    """It is refused, on both paths; one that just fits, key included, is not."""
    preparer = Preparer(checked_contract(contract_of(field("s", "string"))), 1)
    fits = {"id": "k", "s": "x" * (MAX_EVENT_BYTES - 1 - 5 - 2 - 3)}
    large = {"id": "k", "s": fits["s"] + "x"}
    prepared = preparer.prepare([fits, large], first_line=1, partitions=1)
    assert len(prepared.values[0] or b"") + 1 == MAX_EVENT_BYTES
    assert [(each.line, each.reasons[0].field) for _, each in prepared.refused] == [(2, TOO_LARGE)]
    assert isinstance(preparer.upsert(large), tuple)


def test_a_key_that_is_too_large() -> None:
    """Key and value count together, and a delete's key alone: Kafka would refuse the whole batch around it."""
    preparer = Preparer(checked_contract(contract_of(field("s", "string"))), 1)
    half = {"id": "k" * (MAX_EVENT_BYTES // 2 + 1), "s": ""}
    gone = Delete({"id": "k" * (MAX_EVENT_BYTES + 1)})
    prepared = preparer.prepare([half, gone, {"id": "k", "s": ""}], first_line=1, partitions=1)
    assert [(each.line, each.reasons[0].field) for _, each in prepared.refused] == [(1, TOO_LARGE), (2, TOO_LARGE)]
    assert prepared.keys == [b"k"]


def test_ids_are_unique_in_every_thread() -> None:
    """Several threads share one publisher."""
    ids = EventIds()
    with ThreadPoolExecutor(8) as pool:
        taken = [name for part in pool.map(lambda _: ids.take(50), range(400)) for name in part]
    assert len(set(taken)) == 400 * 50


@pytest.mark.parametrize(
    ("version", "number"), [(7, 7), (-(2**63), -(2**63)), (None, None), ("7", None), (True, None), (2**63, None)]
)
def test_deletes_carry_their_version(version: Any, number: int | None) -> None:
    """Where the contract names a version field, a delete without a value of it is refused (K1)."""
    preparer = Preparer(checked_contract(contract_of(field("revision", "long"), **{"bus.version": "revision"})), 1)
    prepared = preparer.prepare([Delete({"id": "k"}, version)], first_line=1, partitions=1)
    assert prepared.deletes == ({} if number is None else {0: number})
    assert len(prepared.refused) == (number is None)


def test_a_version_that_is_a_date() -> None:
    """It travels as the number of days since 1970."""
    import datetime as dt

    preparer = Preparer(checked_contract(contract_of(field("day", DATE), **{"bus.version": "day"})), 1)
    event = preparer.delete({"id": "k"}, dt.date(1970, 1, 11))
    assert not isinstance(event, tuple)
    assert event.version == 10


def test_a_version_that_nobody_named() -> None:
    """A contract without a version field takes no version."""
    preparer = Preparer(checked_contract(contract_of(field("n", "int"))), 1)
    assert isinstance(preparer.delete({"id": "k"}, 7), tuple)
    assert not isinstance(preparer.delete({"id": "k"}, None), tuple)
