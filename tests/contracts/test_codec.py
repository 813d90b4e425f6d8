"""Both paths of the codec agree with each other and with the Avro library, on good bytes and on bad ones."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import json
from typing import Any

import avro.io
import avro.schema
import pyarrow as pa
import pytest
from contract_worlds import (
    ARRAY,
    DATE,
    FLAT,
    MAP,
    MICROS,
    MILLIS,
    MONEY,
    TYPES,
    contract_of,
    contracts_with_records,
    field,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.contracts import codec as codec_module
from bus.contracts import fast
from bus.contracts.codec import Codec, as_json_text, frame, unframe
from bus.core.contracts import Kind
from bus.errors import ContractViolation

ID = {"id": "k"}
SIMPLE = Codec(contract_of(field("n", "int"), field("s", ["null", "string"])))


def _by_avro(schema: dict[str, Any], record: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    avro.io.DatumWriter(avro.schema.make_avsc_object(schema)).write(record, avro.io.BinaryEncoder(out))
    return out.getvalue()


def _codecs(schema: dict[str, Any]) -> list[Codec]:
    """The codec as it is, and made to take the slow path."""
    slow = Codec(schema)
    slow.fast = False
    return [Codec(schema), slow]


def _in_batch(codec: Codec, record: dict[str, Any]) -> dict[str, Any]:
    nested = {each.name for each in codec.contract.fields if each.kind is Kind.NESTED}
    return {
        name: as_json_text(value) if name in nested and value is not None else value for name, value in record.items()
    }


@settings(max_examples=150, deadline=None)
@given(contracts_with_records(TYPES))
def test_both_paths_write_and_read_as_avro_does(world: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    """Every type, null or not: the bytes are Avro's, and reading gives the record back, one by one and in batches."""
    schema, records = world
    plain = json.loads(json.dumps(schema).replace('"time-millis"', '"not-known"').replace('"uuid"', '"not-known"'))
    expected = [_by_avro(plain, record) for record in records]
    for codec in _codecs(schema):
        assert [codec.encode(record) for record in records] == expected
        assert [codec.decode(value) for value in expected] == records
        decoded = codec.decode_batch(expected)
        assert decoded.good == list(range(len(records)))
        assert decoded.bad == []
        assert decoded.batch.schema == codec.arrow
        assert decoded.batch.to_pylist() == [_in_batch(codec, record) for record in records]
        if not any(each.kind is Kind.NESTED for each in codec.contract.fields):
            assert codec.encode_batch(decoded.batch) == expected


@settings(max_examples=100, deadline=None)
@given(contracts_with_records(FLAT))
def test_flat_contracts_take_the_fast_path(world: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    """The test above saw the fast path: every flat contract passes its probe."""
    assert Codec(world[0]).fast


@st.composite
def _damaged(draw: st.DrawFn) -> tuple[dict[str, Any], list[bytes]]:
    """Good events of a flat contract with some replaced, cut, lengthened or altered in a byte."""
    schema, records = draw(contracts_with_records(FLAT, most=40))
    codec = Codec(schema)
    values = [codec.encode(record) for record in records]
    for _ in range(draw(st.integers(1, 5))):
        if not values:
            break
        place = draw(st.integers(0, len(values) - 1))
        value = values[place]
        at = draw(st.integers(0, max(len(value) - 1, 0)))
        values[place] = draw(
            st.one_of(
                st.binary(max_size=30),
                st.just(value[:at]),
                st.binary(min_size=1, max_size=3).map(lambda more, value=value: value + more),
                st.integers(0, 255).map(lambda byte, value=value, at=at: value[:at] + bytes([byte]) + value[at + 1 :]),
            )
        )
    return schema, values


@settings(max_examples=500, deadline=None)
@given(_damaged())
def test_both_paths_agree_on_damaged_events(world: tuple[dict[str, Any], list[bytes]]) -> None:
    """The fast path takes and refuses exactly the events that the slow one does, with the same values."""
    schema, values = world
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec_module, "_BISECT_TO", 1)  # the fast path down to two events
        quick, slow = (codec.decode_batch(values) for codec in _codecs(schema))
    assert quick.good == slow.good
    assert [bad.index for bad in quick.bad] == [bad.index for bad in slow.bad]
    assert quick.batch.equals(slow.batch) or str(quick.batch.to_pylist()) == str(slow.batch.to_pylist())
    assert sorted([*quick.good, *(bad.index for bad in quick.bad)]) == list(range(len(values)))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=12))
def test_random_bytes(values: list[bytes]) -> None:
    """Whatever comes in, each event is either decoded or refused with a reason (F11)."""
    decoded = SIMPLE.decode_batch(values)
    assert len(decoded.good) + len(decoded.bad) == len(values)
    assert all(bad.reason for bad in decoded.bad)


def test_one_bad_among_ten_thousand() -> None:
    """The others are decoded, in their order (F11)."""
    values = [SIMPLE.encode({"id": f"k{number}", "n": number, "s": None}) for number in range(10_000)]
    values[7_777] = values[7_777][:-1]
    decoded = SIMPLE.decode_batch(values)
    assert [bad.index for bad in decoded.bad] == [7_777]
    assert decoded.good == [*range(7_777), *range(7_778, 10_000)]
    assert decoded.batch.column("n").to_pylist() == decoded.good


BIG_INT = b"\x02k" + b"\x80\x80\x80\x80\x80\x80\x01" + b"\x00"  # n is 2^41, as a varint that any reader takes


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\x02k\x02\x00!", "1 bytes left over"),
        (BIG_INT, "32 bits"),
        (b"\x02k" + b"\xff" * 9 + b"\x7f\x00", "Varint"),
        (b"\x02k" + b"\xff" * 11 + b"\x00", "Avro of this schema"),
        (b"\x02k\x02\x02\x02\x00", "U+0000"),
        (b"\x02k\x02\x02\x02\xff", "Unicode"),
        (b"\x02k\x02\x07", "IndexError"),
        (b"\x03k\x02\x00", "Avro of this schema"),
        (b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7fk", "Avro of this schema"),
        (b"", "Avro of this schema"),
    ],
)
def test_events_that_libraries_take_wrongly(value: bytes, reason: str) -> None:
    """Bytes left over, numbers out of range, over-long numbers, broken text: refused on both paths (E19)."""
    with pytest.raises(ContractViolation) as refused:
        SIMPLE.decode(value)
    assert reason.lower() in refused.value.detail.lower()
    good = SIMPLE.encode({"id": "k", "n": 1, "s": "x"})
    decoded = SIMPLE.decode_batch([good] * 20 + [value] + [good] * 20)
    assert [bad.index for bad in decoded.bad] == [20]
    assert decoded.batch.num_rows == 40


def test_a_padded_number_is_still_avro() -> None:
    """Near miss: a number in more bytes than it needs is what some encoders write; both paths take it."""
    value = b"\x02k\x82\x00\x00"
    assert SIMPLE.decode(value) == {"id": "k", "n": 1, "s": None}
    assert SIMPLE.decode_batch([value] * 30).batch.column("n").to_pylist() == [1] * 30


def test_arrays_and_maps_in_blocks() -> None:
    """Java writes blocks with their size in bytes; that is Avro, and read."""
    codec = Codec(contract_of(field("a", ARRAY), field("m", MAP)))
    value = b"\x02k" + b"\x01\x04\x02x\x00" + b"\x01\x06\x02y\x0e\x00"
    assert codec.decode(value) == {"id": "k", "a": ["x"], "m": {"y": 7}}
    assert codec.decode_batch([value]).batch.to_pylist() == [{"id": "k", "a": '["x"]', "m": '{"y": 7}'}]


def test_dates_beyond_the_calendar() -> None:
    """A date or an instant that Python cannot hold is refused by both paths."""
    codec = Codec(contract_of(field("d", DATE), field("t", MICROS), field("m", MILLIS)))
    numbers = Codec(contract_of(field("d", "int"), field("t", "long"), field("m", "long")))
    for days, micros, millis, good in (
        (0, 0, 0, True),
        (2_932_896, 0, 0, True),
        (2_932_897, 0, 0, False),
        (-719_163, 0, 0, False),
        (0, 253_402_300_799_999_999, 0, True),
        (0, 253_402_300_800_000_000, 0, False),
        (0, 0, 253_402_300_800_000, False),
        (0, 0, 2**62, False),
        (0, -(2**63), 0, False),
    ):
        value = numbers.encode({"id": "k", "d": days, "t": micros, "m": millis})
        assert len(codec.decode_batch([value]).good) == good, (days, micros, millis)
        assert len(codec.decode_batch([value] * 20).good) == 20 * good, (days, micros, millis)


def test_a_decimal_of_too_many_digits_is_refused() -> None:
    """Both libraries round it silently on reading (E22)."""
    codec = Codec(contract_of(field("money", MONEY)))
    number = 10**12
    raw = number.to_bytes(6, "big", signed=True)
    with pytest.raises(ContractViolation, match="12 digits"):
        codec.decode(b"\x02k" + bytes([2 * len(raw)]) + raw)
    fits = (number - 1).to_bytes(6, "big", signed=True)
    assert codec.decode(b"\x02k" + bytes([2 * len(fits)]) + fits)["money"] == decimal.Decimal("9999999999.99")


def test_naive_instants_never_shift() -> None:
    """The codec reads instants in UTC, whatever the machine's zone (E21)."""
    codec = Codec(contract_of(field("t", MICROS)))
    record = {"id": "k", "t": dt.datetime(2024, 5, 1, tzinfo=dt.timezone(dt.timedelta(hours=8)))}
    assert codec.decode(codec.encode(record))["t"] == dt.datetime(2024, 4, 30, 16, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "record", [{"id": "k"}, {"id": "k", "n": 1, "s": None, "x": 1}, {"id": "k", "n": "1", "s": None}, {"id": 1}]
)
def test_records_that_cannot_be_written(record: dict[str, Any]) -> None:
    """Unknown, missing and mistyped fields are refused, not dropped (E22)."""
    with pytest.raises(ContractViolation):
        SIMPLE.encode(record)


def test_a_panic_of_the_fast_decoder_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Rust panic is a BaseException of its own; the batch is then decoded one by one."""

    class PanicException(BaseException):
        pass

    PanicException.__module__ = "pyo3_runtime"

    def panic(*_: Any) -> None:
        raise PanicException("not implemented")

    codec = Codec(contract_of(field("n", "int")))
    values = [codec.encode({"id": "k", "n": number}) for number in range(50)]
    monkeypatch.setattr(fast.pyruhvro, "deserialize_array", panic)
    assert codec.decode_batch(values).batch.column("n").to_pylist() == list(range(50))
    assert not Codec(contract_of(field("n", "int"))).fast


def test_an_interruption_is_not_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near miss: Ctrl-C leaves the codec as what it is."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    values = [SIMPLE.encode({"id": "k", "n": 1, "s": None})] * 50
    monkeypatch.setattr(fast.pyruhvro, "deserialize_array", interrupt)
    with pytest.raises(KeyboardInterrupt):
        SIMPLE.decode_batch(values)


def test_batches_that_are_not_the_contracts() -> None:
    """Other columns, or a null where there may be none, are an error of the caller."""
    with pytest.raises(ValueError, match="columns"):
        SIMPLE.encode_batch(pa.RecordBatch.from_pydict({"x": [1]}))
    columns = [pa.array(["k"]), pa.array([None], pa.int32()), pa.array(["s"])]
    with pytest.raises((ValueError, pa.ArrowInvalid)):
        SIMPLE.encode_batch(pa.RecordBatch.from_arrays(columns, schema=SIMPLE.arrow))


def test_an_empty_batch() -> None:
    """Nothing in, nothing out, with the columns of the contract."""
    decoded = SIMPLE.decode_batch([])
    assert decoded.batch.num_rows == 0
    assert decoded.batch.schema == SIMPLE.arrow
    assert SIMPLE.encode_batch(decoded.batch) == []


def test_the_wire_format() -> None:
    """A zero byte and four bytes of schema id; anything else is refused."""
    assert frame(258, b"xy") == b"\x00\x00\x00\x01\x02xy"
    assert unframe(frame(2**32 - 1, b"")) == (2**32 - 1, b"")
    for bad in (b"", b"\x00\x00\x00\x00", b"\x01\x00\x00\x00\x01xy"):
        with pytest.raises(ContractViolation):
            unframe(bad)
