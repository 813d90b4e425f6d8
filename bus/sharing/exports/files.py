"""Files in the making: what a format has to say first, of each batch of rows, and last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from bus.core.contracts import Kind
from bus.core.masks import shown_kind
from bus.errors import NotAcceptable
from bus.sharing.formats import Format, Row, body, csv_lines, document
from bus.sharing.permitted import Shown

DECIMAL_DIGITS: Final = 38
GROUP_ROWS: Final = 20_000
GROUP_BYTES: Final = 8 * 1024 * 1024
SUFFIXES: Final[Mapping[Format, str]] = {Format.CSV: "csv", Format.NDJSON: "ndjson", Format.PARQUET: "parquet"}


class Writer(Protocol):
    """Turns rows into the bytes of a file, batch by batch. Each method gives what is to be sent next."""

    def first(self) -> bytes: ...
    def batch(self, rows: Sequence[Row]) -> bytes: ...
    def last(self) -> bytes: ...


def writer(chosen: Format, shown: Sequence[Shown], about: Mapping[str, str]) -> Writer:
    """The writer of a format. ``about``: what the file says of itself, where its format can.

    Raises `NotAcceptable` for a format that cannot be written in parts.
    """
    if chosen is Format.CSV:
        return _Csv([item.name for item in shown])
    if chosen is Format.NDJSON:
        return _Lines([item.name for item in shown])
    if chosen is Format.PARQUET:
        return _Parquet(shown, about)
    raise NotAcceptable(why=f"an export is one of {', '.join(SUFFIXES)}")


class _Csv:
    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def first(self) -> bytes:
        return csv_lines([], names=self._names)

    def batch(self, rows: Sequence[Row]) -> bytes:
        return csv_lines(rows)

    def last(self) -> bytes:
        return b""


class _Lines:
    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def first(self) -> bytes:
        return b""

    def batch(self, rows: Sequence[Row]) -> bytes:
        return body(Format.NDJSON, self._names, rows)

    def last(self) -> bytes:
        return b""


class _Sink:
    """A file that only grows; what was written is taken from it bit by bit."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


class _Parquet:
    """Rows are kept by column until a row group is worth it; nested values are JSON text."""

    def __init__(self, shown: Sequence[Shown], about: Mapping[str, str]) -> None:
        import pyarrow as pa  # late: loads Arrow
        from pyarrow import parquet

        self._kinds = [shown_kind(item.mask, item.column.kind) for item in shown]
        fields = [
            pa.field(item.name, _arrow(kind, item.column.scale)) for item, kind in zip(shown, self._kinds, strict=True)
        ]
        self._schema = pa.schema(fields, metadata={f"bus.{name}": text for name, text in about.items()})
        self._sink, self._pa = _Sink(), pa
        self._file = parquet.ParquetWriter(self._sink, self._schema)
        self._kept: list[Any] = []

    def first(self) -> bytes:
        return self._sink.take()

    def batch(self, rows: Sequence[Row]) -> bytes:
        columns = zip(*rows, strict=True)
        arrays = [
            self._pa.array([_cell(value, kind) for value in column], field.type)
            for column, kind, field in zip(columns, self._kinds, self._schema, strict=True)
        ]
        self._kept.append(self._pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        rows_kept, bytes_kept = sum(kept.num_rows for kept in self._kept), sum(kept.nbytes for kept in self._kept)
        return self._group() if rows_kept >= GROUP_ROWS or bytes_kept >= GROUP_BYTES else b""

    def last(self) -> bytes:
        group = self._group() if self._kept else b""
        self._file.close()
        return group + self._sink.take()

    def _group(self) -> bytes:
        """A row group of what is kept."""
        table, self._kept = self._pa.Table.from_batches(self._kept), []
        self._file.write_table(table)
        return self._sink.take()


def _cell(value: Any, kind: Kind) -> Any:
    return document(value).decode() if kind is Kind.NESTED and value is not None else value


def _arrow(kind: Kind, scale: int | None) -> Any:
    import pyarrow as pa

    if kind is Kind.DECIMAL:
        return pa.decimal128(DECIMAL_DIGITS, scale or 0)
    return {
        Kind.TEXT: pa.string(),
        Kind.INTEGER: pa.int64(),
        Kind.NUMBER: pa.float64(),
        Kind.BOOLEAN: pa.bool_(),
        Kind.DATE: pa.date32(),
        Kind.TIMESTAMP: pa.timestamp("us", tz="UTC"),
        Kind.BYTES: pa.binary(),
        Kind.NESTED: pa.string(),
    }[kind]


def about(view: str, *, purpose: str, policy_revision: str, masked: Sequence[str], request_id: str) -> dict[str, str]:
    """What a file says of itself: of which view, for which purpose, under which rules."""
    return {
        "view": view,
        "purpose": purpose,
        "policy_revision": policy_revision,
        "masked": json.dumps(list(masked)),
        "request_id": request_id,
    }
