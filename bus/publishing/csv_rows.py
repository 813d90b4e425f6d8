"""Rows of a CSV file (plain or .gz) as records with the types of a contract."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from bus.contracts.texts import from_text
from bus.core.contracts import Contract
from bus.core.names import nearest
from bus.errors import ContractViolation

FIRST_ROW: Final = 2  # the line of the first row: the header is line 1
MISSHAPEN: Final = "(row)"


def typed_rows(contract: Contract, path: Path) -> Iterator[dict[str, Any]]:
    """The rows under the header, in order. An empty cell is null; other text is kept as it is, spaces included.

    A cell that is no value of its field stays text, and a row with too few or too many cells gets the field
    ``(row)``: the contract then refuses that row and says why. Empty lines at the end are left out; elsewhere they
    would shift the numbers, so they are refused. Raises `ContractViolation` for a header that lacks fields or has
    others and for a cell beyond 128 KiB, `OSError` for a file that cannot be read.
    """
    with _opened(path) as lines:
        reader = csv.reader(lines)
        names = next(reader, [])
        _check_header(contract, names)
        converters = [from_text(field) for name in names if (field := contract.field(name)) is not None]
        empty = 0
        for row in _rows(contract, reader):
            if not row:
                empty += 1
                continue
            yield from (_misshapen(names, []) for _ in range(empty))
            empty = 0
            if len(row) == len(names):
                cells = zip(converters, row, strict=True)
                yield dict(zip(names, [convert(cell) if cell else None for convert, cell in cells], strict=True))
            else:
                yield _misshapen(names, row)


def _misshapen(names: Sequence[str], row: Sequence[str]) -> dict[str, Any]:
    shape = f"{len(row)} of {len(names)} cells"
    return {**dict.fromkeys(names), **dict(zip(names, row, strict=False)), MISSHAPEN: shape}


def _rows(contract: Contract, reader: Any) -> Iterator[list[str]]:
    """The rows; what is no CSV ends it with the line, e.g. a quote that is never closed."""
    try:
        yield from reader
    except csv.Error as error:
        where = f"line {reader.line_num}: {error}"
        raise ContractViolation(entity=contract.id, field=MISSHAPEN, expected="rows of CSV", received=where) from error


def _opened(path: Path) -> IO[str]:
    # Bytes that are not UTF-8 become lone surrogates, which the contract refuses row by row.
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")
    return path.open("rt", encoding="utf-8-sig", errors="surrogateescape", newline="")


def _check_header(contract: Contract, names: list[str]) -> None:
    known = [field.name for field in contract.fields]
    for name in names:
        if name not in known or names.count(name) > 1:
            expected = f"each column once, a field of the contract. {nearest(name, known)}"
            raise ContractViolation(entity=contract.id, field=name, expected=expected, received="this header")
    for name in known:
        if name not in names:
            raise ContractViolation(entity=contract.id, field=name, expected="a column", received="a header without it")
