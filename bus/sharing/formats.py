"""The bodies of answers: JSON, JSON lines, CSV, and which of them a request accepts (RFC 9110, 12.5.1).

CSV guards spreadsheets: a *text* that begins with ``= + - @``, their full-width forms, TAB, CR or LF gets
an apostrophe in front, because a spreadsheet would run it as a formula. Numbers, dates and instants are
written as they are, so a negative number stays a number. Null is empty, an empty text is ``""``.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import orjson

from bus.errors import NotAcceptable

FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_OPTIONS: Final = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS
Row = Sequence[Any]


class Format(enum.StrEnum):
    """What an answer can be written as: its media type."""

    JSON = "application/json"
    ARRAY = "application/vnd.pgrst.array+json"
    OBJECT = "application/vnd.pgrst.object+json"
    NDJSON = "application/x-ndjson"
    CSV = "text/csv"
    PARQUET = "application/vnd.apache.parquet"


def _wanted(accept: str) -> Iterable[tuple[str, Mapping[str, str]]]:
    """The media ranges of an Accept header with their parameters, the most wanted first."""
    ranges = []
    for place, part in enumerate(accept.lower().split(",")):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        named = dict(parameter.partition("=")[::2] for parameter in parameters)
        try:
            quality = float(named.get("q", "1"))
        except ValueError:
            quality = 0.0
        ranges.append((-quality, place, media, named))
    return ((media, named) for quality, _, media, named in sorted(ranges, key=lambda item: item[:2]) if quality < 0)


@lru_cache(maxsize=200)
def negotiate(accept: str | None, *, export: bool = False) -> tuple[Format, bool]:
    """The format to answer in, and whether null members are left out (``nulls=stripped``). ``export``: of a file.

    Raises `NotAcceptable` where none of the offered ones is accepted.
    """
    offered = (Format.CSV, Format.NDJSON, Format.PARQUET) if export else tuple(Format)
    for media, parameters in _wanted(accept or "*/*"):
        if media in ("*/*", "application/*"):
            return Format.CSV if export and media == "*/*" else Format.NDJSON if export else Format.JSON, False
        if media == "text/*":
            return Format.CSV, False
        if media in offered:
            return Format(media), parameters.get("nulls") == "stripped"
    raise NotAcceptable(why=f"offered are {', '.join(offered)}")


def media_type(chosen: Format) -> str:
    """The Content-Type of a format."""
    return str(chosen) if chosen is Format.PARQUET else f"{chosen}; charset=utf-8"


def body(chosen: Format, names: Sequence[str], rows: Sequence[Row], *, stripped: bool = False) -> bytes:
    """The rows in a format. Raises `NotAcceptable` for one object where there is not exactly one row."""
    if chosen is Format.CSV:
        return csv_body(names, rows)
    if rows and len(rows[0]) != len(names):
        raise ValueError(f"{len(rows[0])} values for {len(names)} names")
    records = [dict(zip(names, row)) for row in rows]  # noqa: B905 - checked once: for each row it took twice the time
    if stripped:
        records = [{name: value for name, value in record.items() if value is not None} for record in records]
    if chosen is Format.NDJSON:
        return b"".join(orjson.dumps(record, _member, _OPTIONS | orjson.OPT_APPEND_NEWLINE) for record in records)
    if chosen is Format.OBJECT:
        if len(records) != 1:
            raise NotAcceptable(
                why=f"one object was asked for, the result contains {len(records)} rows",
                details=f"The result contains {len(records)} rows",
            )
        return orjson.dumps(records[0], _member, _OPTIONS)
    return orjson.dumps(records, _member, _OPTIONS)


def document(value: Any) -> bytes:
    """A JSON document whose values are written as in rows."""
    return orjson.dumps(value, _member, _OPTIONS)


def _member(value: Any) -> Any:
    """What JSON lacks: decimals as numbers with all their digits, bytes as PostgreSQL writes them."""
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    raise TypeError(type(value).__name__)


def _cell(value: Any) -> str:
    match value:
        case None:
            text = ""
        case str():
            text = _quoted(f"'{value}" if value.startswith(FORMULA) else value)
        case bool():
            text = "true" if value else "false"
        case dt.datetime():
            text = value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
        case Decimal():
            text = format(value, "f")
        case bytes():
            text = "\\x" + value.hex()
        case dict() | list():
            text = _quoted(orjson.dumps(value, _member, _OPTIONS).decode())
        case _:
            text = str(value)
    return text


def _quoted(text: str) -> str:
    """RFC 4180: in quotes where it is needed, and where it is empty, so that it differs from null."""
    if text and not any(char in text for char in ',"\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'


def csv_body(names: Sequence[str], rows: Sequence[Row]) -> bytes:
    """RFC 4180 with a header line; lines end in CRLF."""
    return csv_lines(rows, names=names)


def csv_lines(rows: Sequence[Row], *, names: Sequence[str] | None = None) -> bytes:
    """The lines of rows, after the header line where ``names`` are given."""
    lines = [] if names is None else [",".join(names)]
    lines += [",".join(_cell(value) for value in row) for row in rows]
    return "".join(f"{line}\r\n" for line in lines).encode()
