"""The records of one partition as the decoder asks for them: column by column, whether they came so or one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, overload

import numpy as np
import pyarrow as pa

from bus.contracts.quarantine import Quarantined
from bus.core.events import NEVER
from bus.views.decoding import columns as convert
from bus.views.decoding.batches import Booleans, Coded, Integers, Record, quarantined, reason_of
from bus.views.decoding.parsing import Parsed, Spans, headers_at

PREFIX: Final = 5  # a zero byte and the schema's id in four
_LONGEST_ALIKE: Final = 256
_DIGITS: Final = 18  # so many always fit into 64 bits


class Listed(Sequence[Record]):
    """Records that came one by one: the plain way, which `Fetched` must equal."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        return self._records[index]

    @cached_property
    def offsets(self) -> Integers:
        return np.fromiter((record.offset for record in self._records), np.int64, len(self))

    @cached_property
    def timestamps(self) -> Integers:
        return np.fromiter((record.timestamp for record in self._records), np.int64, len(self))

    @cached_property
    def keys(self) -> pa.Array:
        """The keys as bytes; null where there is none."""
        return pa.array([record.key for record in self._records], pa.binary())

    @cached_property
    def deletes(self) -> Booleans:
        """Which have no value."""
        return np.fromiter((record.value is None for record in self._records), np.bool_, len(self))

    @cached_property
    def _headers(self) -> list[dict[str, bytes | None]]:
        return [dict(record.headers) for record in self._records]

    def header(self, name: str) -> Coded:
        """The last header of that name of each record."""
        known: dict[bytes | None, int] = {}
        stated = (header.get(name) for header in self._headers)
        codes = np.fromiter((known.setdefault(text, len(known)) for text in stated), np.int64, len(self))
        return Coded(codes, list(known))

    def numbers(self, name: str) -> tuple[Integers, dict[int, bytes]]:
        """The header as an integer (`NEVER`: it has none); second: those that are none, by index."""
        return _numbers(self.header(name))

    def prefixes(self, rows: Integers) -> dict[bytes, Integers]:
        """These records, which have values, by the first bytes of their values."""
        found: dict[bytes, list[int]] = {}
        for row in rows.tolist():
            found.setdefault((self._records[row].value or b"")[:PREFIX], []).append(row)
        return {prefix: np.array(part, np.int64) for prefix, part in found.items()}

    def bodies(self, rows: Integers) -> list[bytes]:
        """The values of these records without their first bytes."""
        return [(self._records[row].value or b"")[PREFIX:] for row in rows.tolist()]


@dataclass(frozen=True, slots=True)
class _Single:
    """One record of a chunk."""

    chunk: Fetched
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    head: int
    end: int

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        data = self.chunk.data
        found = headers_at(data, self.head, self.end)
        return [(name.decode(), data[at : at + length] if length >= 0 else None) for name, at, length in found]  # type: ignore[misc]


class Fetched(Sequence[Record]):
    """Records that came in columns, in the order of offsets. ``last``: nothing is left of what was fetched so far."""

    def __init__(self, data: bytes, parsed: Parsed, offsets: Integers, timestamps: Integers) -> None:
        self.data, self.parsed, self.offsets, self.timestamps = data, parsed, offsets, timestamps
        self._buffer = np.frombuffer(data, np.uint8)
        self.last = False

    def part(self, start: int, stop: int) -> Fetched:
        """The records from ``start`` up to but not including ``stop``."""
        rows = slice(start, stop)
        return Fetched(self.data, self.parsed.of(rows), self.offsets[rows], self.timestamps[rows])

    def then(self, later: Fetched) -> Fetched:
        """These records and then those, which follow in the same partition."""
        offsets = np.concatenate([self.offsets, later.offsets])
        timestamps = np.concatenate([self.timestamps, later.timestamps])
        parsed = self.parsed.then(later.parsed, len(self.data))
        found = Fetched(self.data + later.data, parsed, offsets, timestamps)
        found.last = later.last
        return found

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        at, time, of = int(self.offsets[index]), int(self.timestamps[index]), self.parsed
        head, end = int(of.heads[index]), int(of.ends[index])
        return _Single(self, at, time, self._piece(of.keys, index), self._piece(of.values, index), head, end)

    def _piece(self, spans: Spans, index: int) -> bytes | None:
        start, length = int(spans.starts[index]), int(spans.lengths[index])
        return self.data[start : start + length] if length >= 0 else None

    @cached_property
    def keys(self) -> pa.Array:
        return self._binary(self.parsed.keys)

    @property
    def deletes(self) -> Booleans:
        return self.parsed.values.lengths < 0

    def header(self, name: str) -> Coded:
        """As `Listed.header`. Where all records have the same bytes, which is usual, they are compared, not made."""
        spans = self.parsed.headers[name]
        if len(self) and self._alike(spans):
            return Coded(np.zeros(len(self), np.int64), [self._piece(spans, 0)])
        coded = self._binary(spans).dictionary_encode(null_encoding="encode")
        return Coded(coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist())

    def _alike(self, spans: Spans) -> bool:
        length = int(spans.lengths[0])
        if length > _LONGEST_ALIKE or not (spans.lengths == length).all():
            return False
        columns = (self._buffer[spans.starts + place] for place in range(length))
        return all(bool((column == column[0]).all()) for column in columns)

    def numbers(self, name: str) -> tuple[Integers, dict[int, bytes]]:
        """As `Listed.numbers`; plain digits by columns."""
        spans = self.parsed.headers[name]
        found = np.full(len(self), NEVER, np.int64)
        there = np.flatnonzero(spans.lengths >= 0)
        if not len(there):
            return found, {}
        plain = (spans.lengths[there] > 0) & (spans.lengths[there] <= _DIGITS)
        rows = there[plain]
        values, digits = self._digits(spans.of(rows))
        found[rows[digits]] = values[digits]
        wrong: dict[int, bytes] = {}
        for row in [*there[~plain].tolist(), *rows[~digits].tolist()]:
            text = self._piece(spans, row) or b""
            number = convert.integer(text)
            if number is None:
                wrong[row] = text
            else:
                found[row] = number
        return found, wrong

    def _digits(self, spans: Spans) -> tuple[Integers, Booleans]:
        """Each piece as a number, and whether it is nothing but digits. Pieces have 1 to 18 bytes."""
        values, good = np.zeros(len(spans.starts), np.int64), np.ones(len(spans.starts), np.bool_)
        for place in range(int(spans.lengths.max(initial=0))):
            inside = place < spans.lengths
            digit = self._buffer[np.where(inside, spans.starts + place, 0)].astype(np.int64) - ord("0")
            good &= ~inside | ((digit >= 0) & (digit <= 9))
            values = np.where(inside, values * 10 + digit, values)
        return values, good

    def prefixes(self, rows: Integers) -> dict[bytes, Integers]:
        spans = self.parsed.values.of(rows)
        long = spans.lengths >= PREFIX
        if not long.all():
            short = Listed(self).prefixes(rows[~long])
            return {**(self.prefixes(rows[long]) if long.any() else {}), **short}
        numbers = np.zeros(len(rows), np.int64)
        for place in range(PREFIX):
            numbers = numbers << 8 | self._buffer[spans.starts + place]
        return {number.to_bytes(PREFIX, "big"): rows[numbers == number] for number in np.unique(numbers).tolist()}

    def bodies(self, rows: Integers) -> list[bytes]:
        spans, data = self.parsed.values.of(rows), self.data
        starts, ends = spans.starts + PREFIX, spans.starts + np.maximum(spans.lengths, 0)
        return [data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def _binary(self, spans: Spans) -> pa.Array:
        """The pieces as an Arrow column: one gather of all their bytes."""
        lengths = np.maximum(spans.lengths, 0)
        ends = np.cumsum(lengths)
        places = np.repeat(spans.starts - (ends - lengths), lengths) + np.arange(int(lengths.sum()))
        offsets = np.concatenate([np.zeros(1, np.int32), ends.astype(np.int32)])
        there = spans.lengths >= 0
        valid = None if there.all() else pa.py_buffer(np.packbits(there, bitorder="little").tobytes())
        pieces = [valid, pa.py_buffer(offsets.tobytes()), pa.py_buffer(self._buffer[places].tobytes())]
        return pa.Array.from_buffers(pa.binary(), len(there), pieces)


def _numbers(coded: Coded) -> tuple[Integers, dict[int, bytes]]:
    known = [NEVER if text is None else convert.integer(text) for text in coded.texts]
    wrong = {row: coded.texts[code] for row, code in enumerate(coded.codes.tolist()) if known[code] is None}
    values = np.array([NEVER if number is None else number for number in known], np.int64)
    found = values[coded.codes] if known else np.empty(0, np.int64)
    return found, {row: text for row, text in wrong.items() if text is not None}


class Work:
    """The records of one batch while they are decoded: which are refused (by index), and why."""

    def __init__(self, topic: str, partition: int, entity: str, records: Listed | Fetched) -> None:
        self.topic, self.partition, self.entity, self.records = topic, partition, entity, records
        self.refused: dict[int, Quarantined] = {}

    def refuse(self, index: int, field: str, expected: str, received: str) -> None:
        """Sets the record at ``index`` aside; its first reason stays."""
        record = self.records[index]
        if index not in self.refused:
            reason = reason_of(field, expected, received)
            self.refused[index] = quarantined(self, record.offset, record.key, record.value, reason)
