"""The audit log's hash chain: each entry's hash covers its body and the hash before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

GENESIS: Final = "0" * 64


_encode: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


def canonical(body: Mapping[str, Any]) -> bytes:
    """One byte form for one content: sorted members, no spaces, ASCII escapes (so no raw control characters)."""
    return _encode(body).encode()


def link(previous: str, sequence: int, body: bytes) -> str:
    """The hash of entry ``sequence`` (hex SHA-256), given the hash before it and its canonical body."""
    return hashlib.sha256(f"{previous}\n{sequence}\n".encode() + body).hexdigest()
