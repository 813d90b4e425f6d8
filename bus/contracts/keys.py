"""Record keys of whole batches: what `core.events.record_key` says for each row, by columns where that is the same."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from bus.core.contracts import Contract
from bus.core.events import key_part, record_key


def record_keys(contract: Contract, batch: pa.RecordBatch) -> pa.Array:
    """The key of each row as text (Arrow string). The batch has the contract's columns, key columns without nulls."""
    parts = [_escaped(_part(batch.column(name))) for name in contract.key]
    return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, "|")


def key_of(contract: Contract, record: dict[str, object]) -> str:
    """The key of one record. Raises KeyError if a key field is missing."""
    return record_key(record[name] for name in contract.key)


def _part(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_string(kind):
        return column
    if pa.types.is_integer(kind) or pa.types.is_date32(kind) or pa.types.is_boolean(kind):
        return column.cast(pa.string())
    # Instants and decimals: Python leaves out the fraction of a whole second, Arrow does not.
    return pa.array([key_part(value) for value in column.to_pylist()], pa.string())


def _escaped(column: pa.Array) -> pa.Array:
    slashed = pc.replace_substring(column, "\\", "\\\\")
    return pc.replace_substring(slashed, "|", "\\|")
