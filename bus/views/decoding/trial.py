"""Decodes suspicious events in a process of its own, so that one that kills its reader is found and set aside (F12)."""

from __future__ import annotations

import json
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
    """The offsets of events whose decoding ends the process, by halving what does."""
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
    if _survives(schema, records):
        return set()
    if len(records) == 1:
        return {records[0].offset}
    middle = len(records) // 2
    return _deadly(schema, records[:middle]) | _deadly(schema, records[middle:])


def _survives(schema: Any, records: Sequence[Record]) -> bool:
    payloads = [(record.value or b"")[PREFIX:].hex() for record in records]
    document = json.dumps({"schema": schema, "payloads": payloads})
    done = subprocess.run(
        [sys.executable, "-m", __name__], input=document.encode(), capture_output=True, timeout=10 * _CPU_S, check=False
    )
    return done.returncode == 0


def main() -> None:
    """Decodes what comes on standard input, under limits; being alive at the end is the answer."""
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    document = json.load(sys.stdin)
    Codec(document["schema"]).decode_batch([bytes.fromhex(payload) for payload in document["payloads"]])


if __name__ == "__main__":
    main()
