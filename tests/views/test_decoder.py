"""The decoder: whatever stands in a topic, each event is either good or refused with a reason; nothing else stops."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from views_world import ATTRIBUTES, DATE, INSTANT, MONEY, FixedRegistry, Message, schema

from bus.contracts.codec import Codec
from bus.contracts.wire import frame
from bus.core.contracts import Json, parse_contract
from bus.core.events import headers, record_key
from bus.errors import RegistryUnavailable
from bus.views.decoding.batches import Batch
from bus.views.decoding.decoder import Decoder

FLAG = {"type": "enum", "name": "Flag", "symbols": ["A", "B"]}
ALL_KEYS = schema(
    "market",
    "Thing",
    ["text", "number", "flag", "day", "at", "fee", "kind"],
    {
        "text": "string",
        "number": "int",
        "flag": "boolean",
        "day": DATE,
        "at": INSTANT,
        "fee": MONEY,
        "kind": FLAG,
        "version": ["null", "long"],
    },
    **{"bus.version": "version"},
)
MONEY_KEY = schema("market", "Fee", ["fee"], {"fee": MONEY})
INSTANT_KEY = schema("market", "Visit", ["at"], {"at": INSTANT})
PLAIN = schema("market", "Plain", ["id"], {"id": "string", "size": ["null", "long"]})


def decode(registry: FixedRegistry, entity: str, *messages: Message) -> Batch:
    decoder = Decoder(registry.contract(entity), registry)
    end = messages[-1].offset + 1
    return decoder.decode(f"dept.{entity}", 0, list(messages), base=0, next_offset=end, end_offset=end)


def envelope(document: Json, operation: str, **more: Any) -> list[tuple[str, bytes]]:
    contract = parse_contract(document)
    return headers(event_id="1", department=contract.department, entity=contract.entity, operation=operation, **more)


def upsert(document: Json, number: int, offset: int, record: dict[str, Any]) -> Message:
    contract = parse_contract(document)
    key = record_key(record[name] for name in contract.key).encode()
    return Message(offset, key, frame(number, Codec(document).encode(record)), envelope(document, "upsert"))


@pytest.mark.parametrize(
    "key", [b"NaN", b"Infinity", b"1.5", b"1E+2", b"-0.00", b"9" * 40, b"9" * 17 + b".00", b"", b"\xff", b"1.50|"]
)
def test_a_delete_of_no_such_decimal_is_refused(key: bytes) -> None:
    """A delete whose key is not written as the record's decimal is would stop the partition or be a second record."""
    batch = decode(FixedRegistry(MONEY_KEY), "market.fee", Message(0, key, None, envelope(MONEY_KEY, "delete")))
    assert (len(batch), [entry.reasons[0]["field"] for entry in batch.refused]) == (0, ["key"])


@pytest.mark.parametrize("key", [b"0001-01-01T00:00:00+05:00", b"9999-12-31T23:59:59-05:00", b"2020-01-01T00:00:00"])
def test_a_delete_of_an_instant_beyond_the_calendar_is_refused(key: bytes) -> None:
    """An instant that has no equal in UTC within the years 1 to 9999 is no key."""
    batch = decode(FixedRegistry(INSTANT_KEY), "market.visit", Message(0, key, None, envelope(INSTANT_KEY, "delete")))
    assert (len(batch), len(batch.refused)) == (0, 1)


def test_a_number_that_was_whole_is_promoted() -> None:
    """Events of an older version with whole numbers are read by a newer one with floating point, beyond 2^53 too."""
    newer = {**PLAIN, "fields": [PLAIN["fields"][0], {"name": "size", "type": ["null", "double"], "default": None}]}
    registry = FixedRegistry(PLAIN, newer)
    sizes = [1, 2**53 + 1, None]
    messages = [upsert(PLAIN, 1, n, {"id": str(n), "size": size}) for n, size in enumerate(sizes)]
    batch = decode(registry, "market.plain", *messages)
    assert batch.columns["size"].to_pylist() == [1.0, float(2**53), None]
    assert not batch.refused


def test_bytes_that_became_text_are_refused_one_by_one() -> None:
    """Of an older version's bytes only those that are no text are refused, not the whole batch."""
    older = {**PLAIN, "fields": [PLAIN["fields"][0], {"name": "note", "type": "bytes"}]}
    newer = {**PLAIN, "fields": [PLAIN["fields"][0], {"name": "note", "type": "string"}]}
    messages = [
        upsert(older, 1, n, {"id": str(n), "note": note}) for n, note in enumerate([b"ok", b"\xff", "好".encode()])
    ]
    batch = decode(FixedRegistry(older, newer), "market.plain", *messages)
    assert batch.columns["note"].to_pylist() == ["ok", "好"]
    assert [(entry.offset, entry.reasons[0]["field"]) for entry in batch.refused] == [(1, "note")]


def test_many_paths_below_a_department_are_not_remembered_for_ever() -> None:
    """A source may name any path; the decoder keeps a bounded number of the envelopes that it has checked."""
    registry = FixedRegistry(PLAIN)
    decoder = Decoder(registry.contract("market.plain"), registry)
    for start in range(0, 5_000, 500):
        messages = [
            Message(n, b"x", None, envelope(PLAIN, "delete", source=f"/market/{n}")) for n in range(start, start + 500)
        ]
        batch = decoder.decode("dept.market.plain", 0, messages, base=start, next_offset=start + 500)
        assert len(batch) == 500
    assert len(decoder._envelopes._operations) <= 1_000


keys = st.fixed_dictionaries(
    {
        "text": st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=5)
        | st.text("|\\a", max_size=5),
        "number": st.integers(-(2**31), 2**31 - 1),
        "flag": st.booleans(),
        "day": st.dates(),
        "at": st.datetimes(timezones=st.just(dt.UTC)),
        "fee": st.decimals(-999, 999, places=2).map(lambda fee: Decimal("0.00") if fee == 0 else fee),
        "kind": st.sampled_from(["A", "B"]),
    }
)


@settings(max_examples=60, deadline=None)
@given(drawn=st.lists(keys, min_size=1, max_size=10))
def test_upsert_and_delete_of_a_record_have_one_key(drawn: list[dict[str, Any]]) -> None:
    """A delete's key gives the typed values of the upsert with that key, whatever the kinds and characters."""
    messages = []
    for number, record in enumerate(drawn):
        messages.append(upsert(ALL_KEYS, 1, 2 * number, {**record, "version": number}))
        messages.append(Message(2 * number + 1, messages[-1].key, None, envelope(ALL_KEYS, "delete", version=number)))
    batch = decode(FixedRegistry(ALL_KEYS), "market.thing", *messages)
    assert not batch.refused
    assert batch.live.tolist() == [True, False] * len(drawn)
    for name in ("text", "number", "flag", "day", "at", "fee", "kind"):
        column = batch.columns[name].to_pylist()
        assert column[::2] == column[1::2] == [record[name] for record in drawn]


names = st.sampled_from(
    ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_sequence", "ce_version", "ce_corrects", "x"]
)
SOURCES = (b"/market", b"/market/desk", b"/food", b"market.plain.upsert", b"market.plain.delete", b"food.plain.upsert")
NUMBERS = (b"7", b"-9223372036854775808", b"9" * 30, b"2020-01-01T00:00:00Z", b"0001-01-01T00:00:00")
texts = st.none() | st.binary(max_size=12) | st.sampled_from((*SOURCES, *NUMBERS))
values = st.none() | st.binary(max_size=30) | st.binary(max_size=40).map(lambda tail: b"\0\0\0\0\x01" + tail)
rubbish = st.tuples(st.none() | st.binary(max_size=30), values, st.lists(st.tuples(names, texts), max_size=8))


@settings(max_examples=150, deadline=None)
@given(drawn=st.lists(rubbish, min_size=1, max_size=12))
def test_rubbish_is_refused_event_by_event(drawn: list[tuple[Any, Any, Any]]) -> None:
    """Random keys, values and headers (null, doubled, forged): every event is good or refused with its place; the
    good one among them stays good."""
    good = upsert(PLAIN, 1, len(drawn), {"id": "x", "size": 1})
    messages = [Message(number, *parts) for number, parts in enumerate(drawn)]
    batch = decode(FixedRegistry(PLAIN), "market.plain", *messages, good)
    places = sorted([*batch.offsets.tolist(), *(entry.offset for entry in batch.refused)])
    assert places == list(range(len(drawn) + 1))
    assert good.offset in batch.offsets.tolist()
    assert all(entry.reasons and entry.entity == "market.plain" for entry in batch.refused)


def test_an_unknown_id_waits_while_nobody_can_say() -> None:
    """While the registry does not answer, nothing is refused: the partition waits."""
    registry = FixedRegistry(PLAIN)
    registry.unknown = RegistryUnavailable
    message = upsert(PLAIN, 99, 0, {"id": "x", "size": 1})
    with pytest.raises(RegistryUnavailable):
        decode(registry, "market.plain", message)


def test_a_schema_of_another_entity_is_refused() -> None:
    """Its bytes could be read as this entity's, with fields swapped silently."""
    other = {**PLAIN, "name": "Other", **ATTRIBUTES}
    batch = decode(FixedRegistry(PLAIN, other), "market.plain", upsert(PLAIN, 2, 0, {"id": "x", "size": 1}))
    assert "of another" in batch.refused[0].reasons[0]["received"]
