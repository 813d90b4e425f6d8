"""JSON lines as records and deletions: what ``bus publish`` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bus.contracts.texts import from_json
from bus.core.contracts import Contract
from bus.publishing.events import Delete


def items(contract: Contract, lines: Iterable[str]) -> Iterator[Any]:
    """Each line as what `Publisher.publish_many` takes.

    A line is a bare record, ``{"op": "upsert", "record": {…}}`` or ``{"op": "delete", "key": {…}, "version": …}``.
    A line that is not JSON, or no such object, is passed on as its text, for the contract to refuse by its
    number. Empty lines at the end are left out; elsewhere they would shift the numbers, so they are refused.
    """
    empty = 0
    for line in lines:
        if not line.strip():
            empty += 1
            continue
        yield from [""] * empty
        empty = 0
        yield _item(contract, line)


def _item(contract: Contract, line: str) -> Any:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):  # the latter: brackets nested by the thousand
        return line.rstrip("\n")
    if not isinstance(document, Mapping):
        return line.rstrip("\n")
    operation = document.get("op") if contract.field("op") is None else None
    if operation == "upsert" and isinstance(document.get("record"), Mapping):
        return from_json(contract, document["record"])
    if operation == "delete" and isinstance(document.get("key"), Mapping):
        return _delete(contract, document)
    return from_json(contract, document)


def _delete(contract: Contract, document: Mapping[str, Any]) -> Delete:
    version = document.get("version")
    if contract.version is not None and version is not None:
        version = from_json(contract, {contract.version: version})[contract.version]
    return Delete(from_json(contract, document["key"]), version)
