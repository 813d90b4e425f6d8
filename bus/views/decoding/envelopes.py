"""What stands around a record: the CloudEvents headers and the key."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from bus.core.contracts import Contract, FieldContract
from bus.views.decoding.batches import Integers, Record
from bus.views.decoding.events import Work
from bus.views.decoding.keys import parse_key, parse_version

_REMEMBERED: Final = 1_000  # different envelopes; a source may name any path below its department's


class Envelopes:
    """The envelopes of one entity's events. ``keys``: the contract's key fields, in the key's order."""

    def __init__(self, contract: Contract, keys: Sequence[FieldContract]) -> None:
        self._contract, self._keys = contract, keys
        self._version = contract.field(contract.version) if contract.version else None
        self._operations: dict[tuple[bytes | None, bytes | None], str | tuple[str, str, str]] = {}

    def check(self, work: Work) -> None:
        """Refuses events that are not the topic owner's, whose type and value disagree, or that have no key.

        Envelopes repeat: each that occurs is judged once, and only events that are refused are looked at singly.
        """
        if not len(work.records):
            return
        sources, kinds = work.records.header("ce_source"), work.records.header("ce_type")
        pairs, which = np.unique(sources.codes * len(kinds.texts) + kinds.codes, return_inverse=True)
        count = len(kinds.texts)
        known = [self._known(sources.texts[pair // count], kinds.texts[pair % count]) for pair in pairs.tolist()]
        foreign = np.array([isinstance(operation, tuple) for operation in known])[which]
        differs = np.array([operation == "delete" for operation in known])[which] != work.records.deletes
        keyless = ~work.records.keys.is_valid().to_numpy(zero_copy_only=False)
        for index in np.flatnonzero(foreign | differs | keyless).tolist():
            operation = known[which[index]]
            if isinstance(operation, tuple):
                work.refuse(index, *operation)
            elif differs[index]:
                kind = kinds.texts[kinds.codes[index]]
                work.refuse(
                    index, "ce_type", "upsert with a value, delete without", str(kind or b"", "utf-8", "replace")
                )
            else:
                work.refuse(index, "key", "the record's key", "null")

    def _known(self, source: bytes | None, kind: bytes | None) -> str | tuple[str, str, str]:
        envelope = (source, kind)
        operation = self._operations.get(envelope)
        if operation is None:
            if len(self._operations) >= _REMEMBERED:
                self._operations.clear()
            operation = self._operations[envelope] = self._operation(*envelope)
        return operation

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

    def deletes(self, work: Work) -> list[tuple[int, tuple[Any, ...], int]]:
        """Of each delete its index, its key as Python values, and the version it states."""
        found = []
        versions = work.records.header("ce_version")
        for index in np.flatnonzero(work.records.deletes).tolist():
            if index in work.refused:
                continue
            key = parse_key(work.records.keys[index].as_py() or b"", self._keys)
            version = parse_version(versions.texts[versions.codes[index]], self._version)
            if key is None:
                work.refuse(index, "key", "|".join(self._contract.key), "not such a key")
            elif version is None:
                work.refuse(index, "ce_version", f"'{self._contract.version}' of the record", "null or not readable")
            else:
                found.append((index, key, version))
        return found


def sequences(work: Work) -> Integers:
    """``ce_sequence`` of every event, `NEVER` where there is none."""
    found, wrong = work.records.numbers("ce_sequence")
    for index in sorted(wrong):
        work.refuse(index, "ce_sequence", "an integer of 64 bits", str(wrong[index], "utf-8", "replace"))
    return found


def source_time(records: Sequence[Record]) -> int | None:
    """When the newest event happened: what it says itself, else when it reached the topic."""
    if not len(records):
        return None
    newest = records[-1]
    stated = dict(newest.headers).get("ce_time")
    try:
        if stated is not None:
            return int(dt.datetime.fromisoformat(stated.decode()).timestamp() * 1_000)
    except ValueError:  # a time that cannot be read orders nothing: the broker's will do
        return newest.timestamp
    return newest.timestamp
