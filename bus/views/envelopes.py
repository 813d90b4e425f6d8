"""What stands around a record: the CloudEvents headers and the key, checked event by event."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from bus.core.contracts import Contract, FieldContract
from bus.core.events import NEVER
from bus.views import columns as convert
from bus.views.batches import Integers, Record, Work
from bus.views.keys import parse_key, parse_version

Headers = Sequence[Mapping[str, bytes | None]]
_REMEMBERED: Final = 1_000  # different envelopes; a source may name any path below its department's


class Envelopes:
    """The envelopes of one entity's events. ``keys``: the contract's key fields, in the key's order."""

    def __init__(self, contract: Contract, keys: Sequence[FieldContract]) -> None:
        self._contract, self._keys = contract, keys
        self._version = contract.field(contract.version) if contract.version else None
        self._operations: dict[tuple[bytes | None, bytes | None], str | tuple[str, str, str]] = {}

    def check(self, work: Work, headers: Headers) -> None:
        """Refuses events that are not the topic owner's, whose type and value disagree, or that have no key."""
        for index, (record, header) in enumerate(zip(work.records, headers, strict=True)):
            envelope = (header.get("ce_source"), header.get("ce_type"))
            operation = self._operations.get(envelope)
            if operation is None:
                if len(self._operations) >= _REMEMBERED:
                    self._operations.clear()
                operation = self._operations[envelope] = self._operation(*envelope)
            if isinstance(operation, tuple):
                work.refuse(index, *operation)
            elif (operation == "delete") is not (record.value is None):
                work.refuse(
                    index, "ce_type", "upsert with a value, delete without", str(envelope[1] or b"", "utf-8", "replace")
                )
            elif record.key is None:
                work.refuse(index, "key", "the record's key", "null")

    def _operation(self, source: bytes | None, kind: bytes | None) -> str | tuple[str, str, str]:
        """``upsert`` or ``delete``; or field, expected and received of an envelope that is not the topic owner's."""
        own = f"/{self._contract.department}"
        stated = str(source or b"", "utf-8", "replace")
        if stated != own and not stated.startswith(f"{own}/"):
            return "ce_source", f"producer_mismatch: {own} or a path below it", stated or "null"
        entity, _, operation = str(kind or b"", "utf-8", "replace").rpartition(".")
        if entity != self._contract.id or operation not in ("upsert", "delete"):
            return "ce_type", f"producer_mismatch: {self._contract.id}.upsert or .delete", f"{entity}.{operation}"
        return operation

    def deletes(self, work: Work, headers: Headers) -> list[tuple[int, tuple[Any, ...], int]]:
        """Of each delete its index, its key as Python values, and the version it states."""
        found = []
        for index, record in enumerate(work.records):
            if record.value is not None or index in work.refused:
                continue
            key = parse_key(record.key or b"", self._keys)
            version = parse_version(headers[index].get("ce_version"), self._version)
            if key is None:
                work.refuse(index, "key", "|".join(self._contract.key), "not such a key")
            elif version is None:
                work.refuse(index, "ce_version", f"'{self._contract.version}' of the record", "null or not readable")
            else:
                found.append((index, key, version))
        return found


def sequences(work: Work, headers: Headers) -> Integers:
    """``ce_sequence`` of every event, `NEVER` where there is none."""
    stated = [header.get("ce_sequence") for header in headers]
    found = np.full(len(stated), NEVER, np.int64)
    for index, text in enumerate(stated):
        if text is None:
            continue
        number = convert.integer(text)
        if number is None:
            work.refuse(index, "ce_sequence", "an integer of 64 bits", str(text, "utf-8", "replace"))
        else:
            found[index] = number
    return found


def source_time(records: Sequence[Record], headers: Headers) -> int | None:
    """When the newest event happened: what it says itself, else when it reached the topic."""
    if not records:
        return None
    stated = headers[-1].get("ce_time")
    try:
        if stated is not None:
            return int(dt.datetime.fromisoformat(stated.decode()).timestamp() * 1_000)
    except ValueError:  # a time that cannot be read orders nothing: the broker's will do
        return records[-1].timestamp
    return records[-1].timestamp
