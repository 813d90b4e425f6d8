"""Signed declassifications: the only way for a view to be more open than its sources.

The bus signs what officer and approver are named for, and verifies signature and validity each time it asks what is
in force: a row that somebody else wrote or changed counts for nothing.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy.engine import Engine

from bus.access.seals import Seal, unverified
from bus.core.columns import Column
from bus.core.declassifications import Declassification, check_declassification, parse_declassification
from bus.core.guards import Lowered
from bus.core.problems import Problems
from bus.errors import BusError, NotFound
from bus.governance import store
from bus.governance.store import Kept
from bus.infra.database import create_tables, translated_errors, write

KIND: Final = "bus-declassification"
Audit = Callable[[Mapping[str, Any]], object]


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Declassifications:
    """Declassifications in the governance database. Thread-safe; methods block.

    ``private_pem``: the key that signs and verifies. ``audit``: records what was done, or raises; then nothing is.
    """

    def __init__(
        self, engine: Engine, private_pem: bytes, audit: Audit, *, clock: Callable[[], dt.datetime] = _utc_now
    ) -> None:
        self._engine, self._audit, self._clock = engine, audit, clock
        self._seal = Seal(private_pem, KIND)
        create_tables(engine, store.METADATA)

    def apply(self, doc: Any, columns: Callable[[str], Mapping[str, Column] | None], *, os_user: str) -> str:
        """Signs and keeps one; returns its id. ``columns``: of a view with nothing declassified.

        Raises `InvalidDeclaration` naming every problem, `FourEyes`, `AuditUnavailable`.
        """
        found, problems = parse_declassification(doc), Problems("the declassification")
        check_declassification(found, columns(found.view), self._clock().date(), problems)
        problems.raise_if_any()
        document = found.document()
        number = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]
        at = self._clock().isoformat(timespec="seconds")
        sealed = self._seal.sign({**document, "id": number, "at": at, "os_user": os_user})
        place = {"id": number, "view": found.view, "field": found.field, "source": found.source}
        self._audit({"kind": "declassification", "change": "applied", **document, "id": number, "os_user": os_user})
        with translated_errors(), write(self._engine) as connection:
            store.put(connection, [{**place, "sealed": sealed, "revoked": ""}])
        return number

    def revoke(self, number: str, *, officer: str, reason: str) -> None:
        """Takes one back, at once. Raises `NotFound`, `AuditUnavailable`."""
        found = next((kept for kept in self._kept() if kept.id == number and not kept.revoked), None)
        if found is None:
            raise NotFound(what=f"declassification '{number}' in force")
        said = {"id": number, "officer": officer, "reason": reason}
        self._audit({"kind": "declassification", "change": "revoked", "view": found.view, **said})
        why = f"{self._clock().isoformat(timespec='seconds')} by {officer}: {reason}"
        with translated_errors(), write(self._engine) as connection:
            store.revoke(connection, found, why)

    def lowered(self) -> Lowered:
        """What is in force now, each verified in this call. Raises `DatabaseUnavailable`."""
        lowered: dict[tuple[str, str, str], tuple[str, str]] = {}
        for kept in self._kept():
            found, _ = self._verified(kept)
            if found is not None:
                lowered[found.view, found.field, found.source] = (found.from_, found.to)
        return lowered

    def all(self) -> list[dict[str, Any]]:
        """Every one as JSON, with its ``id`` and ``state``: in force, or why it does not count."""
        return [self._shown(kept) for kept in self._kept()]

    def _shown(self, kept: Kept) -> dict[str, Any]:
        found, state = self._verified(kept)
        document = found.document() if found is not None else unverified(kept.sealed)
        return {**document, "id": kept.id, "view": kept.view, "field": kept.field, "source": kept.source} | {
            "state": state
        }

    def _verified(self, kept: Kept) -> tuple[Declassification | None, str]:
        if kept.revoked:
            return None, f"revoked {kept.revoked}"
        record = self._seal.open(kept.sealed)
        if record is None:
            return None, "its signature does not verify"
        place = {"id": kept.id, "view": kept.view, "field": kept.field, "source": kept.source}
        if any(record.get(name) != value for name, value in place.items()):
            return None, "it was signed for something else"
        members = {name: value for name, value in record.items() if name not in ("id", "at", "os_user")}
        try:
            found = parse_declassification(members)
        except BusError:
            return None, "it is not a declassification"
        if found.valid_until < self._clock().date():
            return None, f"ended on {found.valid_until}"
        return found, "in force"

    def _kept(self) -> list[Kept]:
        with translated_errors(), self._engine.connect() as connection:
            return store.kept(connection)
