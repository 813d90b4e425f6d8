"""A change event of one record: its key as text, its version, its CloudEvents headers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

UPSERT: Final = "upsert"
DELETE: Final = "delete"
NEVER: Final = -(2**63)  # stands for null in a version: older than every other value
_EPOCH: Final = dt.date(1970, 1, 1)


class Version(NamedTuple):
    """Which of two events of one record is newer: a total order, compared part by part. Nothing else counts: neither
    the order of arrival across partitions, nor any clock.

    ``stated`` is the contract's version field, ``sequence`` the source's ``ce_sequence``; a missing one is `NEVER`,
    older than every other. Where both tie, the later ``offset`` is newer, so a correction with the same version wins
    and an event that is sent again changes nothing. A record belongs to one partition; events that a department sent
    to two of them at one offset are told apart by ``partition``, the greater being newer. Equal versions are the same
    event. Deletes have versions too: a deleted record comes back only with a newer event.
    """

    stated: int
    sequence: int
    offset: int
    partition: int = 0


def version_number(value: int | dt.date | dt.datetime | None) -> int:
    """A version field as an integer: itself, days or microseconds since 1970; null is the oldest."""
    if value is None:
        return NEVER
    if isinstance(value, dt.datetime):
        return (value - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    if isinstance(value, dt.date):
        return (value - _EPOCH).days
    return int(value)


def key_part(value: Any) -> str:
    """One key field as text: ISO 8601 for dates and instants, ``true``/``false``, else its plain form."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, dt.date):
        return value.isoformat()
    return str(value)


def record_key(values: Iterable[Any]) -> str:
    """The record key: parts joined with ``|``; ``|`` and ``\\`` inside a part escaped by ``\\``."""
    return "|".join(key_part(value).replace("\\", "\\\\").replace("|", "\\|") for value in values)


def split_key(text: str) -> list[str]:
    """The parts of a record key: the inverse of `record_key` on texts."""
    parts, current, escaped = [], "", False
    for char in text:
        if escaped:
            current, escaped = current + char, False
        elif char == "\\":
            escaped = True
        elif char == "|":
            parts.append(current)
            current = ""
        else:
            current += char
    return [*parts, current]


def headers(
    *,
    event_id: str,
    department: str,
    entity: str,
    operation: str,
    time: str | None = None,
    sequence: int | None = None,
    legal_basis: str | None = None,
    corrects: str | None = None,
    version: int | None = None,
    source: str | None = None,
) -> list[tuple[str, bytes]]:
    """CloudEvents Kafka binding 1.0, binary mode. ``time`` is RFC 3339; what does not apply is not sent:
    each header costs reading speed (performance.md)."""
    always: Sequence[tuple[str, str]] = (
        ("ce_specversion", "1.0"),
        ("ce_id", event_id),
        ("ce_source", source or f"/{department}"),
        ("ce_type", f"{department}.{entity}.{operation}"),
    )
    optional = (
        ("ce_time", time),
        ("ce_sequence", sequence),
        ("ce_legalbasis", legal_basis),
        ("ce_corrects", corrects),
        ("ce_version", version),
    )
    return [(name, str(value).encode()) for name, value in (*always, *optional) if value is not None]
