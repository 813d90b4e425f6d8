"""Decodes suspicious events in a process of its own, so that one that kills its reader is found and set aside (F12)."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

from bus.contracts.codec import Codec
from bus.views.decoding.batches import Record
from bus.views.decoding.decoder import Decoder
from bus.views.decoding.events import PREFIX

_CPU_S: Final = 10
_MEMORY: Final = 4 * 1024**3


def deadly(decoder: Decoder, records: Sequence[Record]) -> frozenset[int]:
    """The offsets of events whose decoding ends the process: all in one go, and where that ends it one by one."""
    by_schema: dict[bytes, list[Record]] = {}
    for record in records:
        if record.value is not None and len(record.value) >= PREFIX:
            by_schema.setdefault(record.value[:PREFIX], []).append(record)
    found: set[int] = set()
    for prefix, group in by_schema.items():
        schema = decoder.schema_of(prefix)
        if schema is not None:
            found |= _deadly(schema, group)
    return frozenset(found)


def _deadly(schema: Any, records: Sequence[Record]) -> set[int]:
    found: set[int] = set()
    if _survived(schema, records, whole=True) == len(records):
        return found
    while records:
        survived = _survived(schema, records)
        found |= {record.offset for record in records[survived : survived + 1]}
        records = records[survived + 1 :]
    return found


def _survived(schema: Any, records: Sequence[Record], *, whole: bool = False) -> int:
    """How many of the events were decoded before the process died, one after the other or ``whole`` in one go."""
    payloads = [(record.value or b"")[PREFIX:].hex() for record in records]
    document = json.dumps({"schema": schema, "payloads": payloads, "whole": whole})
    done = subprocess.run(
        [sys.executable, "-m", __name__], input=document.encode(), capture_output=True, timeout=10 * _CPU_S, check=False
    )
    return done.stdout.count(b"\n")


def main() -> None:
    """Decodes what comes on standard input, under limits, and writes a line for each event that it survived."""
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    document = json.load(sys.stdin)
    codec, payloads = Codec(document["schema"]), [bytes.fromhex(payload) for payload in document["payloads"]]
    for some in [payloads] if document["whole"] else [[payload] for payload in payloads]:
        codec.decode_batch(some)
        os.write(1, b"\n" * len(some))  # unbuffered: whoever dies with the next has said so


if __name__ == "__main__":
    main()
