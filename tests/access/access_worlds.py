"""A small world for access tests: one view, its columns, a grant on it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bus.access.decision import Decider
from bus.access.engine import Limits, PolicyEngine
from bus.access.opa import OpaClient
from bus.access.revisions_store import raise_revision
from bus.access.store import GrantStore
from bus.core.columns import Column
from bus.core.contracts import Kind
from bus.core.grants import GrantSet, parse_grant_set
from bus.core.views import View
from bus.errors import UnknownDepartment
from bus.infra.database import write

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
KINDS = {
    "licence": Kind.INTEGER,
    "name": Kind.TEXT,
    "ward": Kind.INTEGER,
    "score": Kind.NUMBER,
    "fee": Kind.DECIMAL,
    "open": Kind.BOOLEAN,
    "since": Kind.DATE,
    "seen": Kind.TIMESTAMP,
}


@dataclass(frozen=True)
class Shape:
    view: View
    columns: tuple[Column, ...]


def shape(name: str = "business", kinds: Mapping[str, Kind] = KINDS, *, listed: bool = True) -> Shape:
    view = View(name, {"zh": "经营", "en": "Business"}, "market", "entity", (next(iter(kinds)),), listed=listed)
    columns = (
        Column(field, kind, True, {}, "open", False, scale=2 if kind is Kind.DECIMAL else None)
        for field, kind in kinds.items()
    )
    return Shape(view, tuple(columns))


@dataclass(frozen=True)
class Office:
    contact: str
    suspended: bool = False
    attributes: Mapping[str, str | int | float | bool] = field(default_factory=dict)


class Offices:
    """A directory that knows the owner, and a department that was suspended."""

    def department(self, department: str, /) -> Office:
        if department == "sleepy":
            return Office("", suspended=True)
        if department == "south":
            return Office("", attributes={"ward": 7})
        if department != "market":
            raise UnknownDepartment(department=department)
        return Office("data@market.example")


def grant(**changes: Any) -> dict[str, Any]:
    return {
        "id": "tax-business",
        "consumer": "tax",
        "view": "business",
        "purpose": "levy",
        "channels": ["query"],
        "fields": ["licence", "name", "ward"],
        "masks": {"name": {"keep_first": 3}},
        "rows": {"field": "ward", "op": "lte", "value": 25},
        "valid": {"from": "2026-01-01", "to": "2026-12-31"},
        "legal_basis": "Levy Act 4",
    } | changes


def grant_set(*grants: dict[str, Any], name: str = "tax") -> GrantSet:
    return parse_grant_set({"set": name, "author": "li.na", "approver": "wang.wei", "grants": list(grants)})


def publish_rules(store: GrantStore, content: str, at: dt.datetime = NOW) -> int:
    """Raises the rules' revision as if such rules had been published."""
    with write(store.engine) as connection:
        return raise_revision(connection, "rules", at, content)


def decider(url: str, store: GrantStore, *, now: dt.datetime = NOW, limits: Limits | None = None) -> Decider:
    """A decider on a real OPA. Make it inside the event loop that uses it."""
    # a busy machine may take longer than the budget that the doors allow
    engine = PolicyEngine(OpaClient(url, timeout_s=5), limits=limits or Limits(budget=5.0))
    return Decider(engine, store, Offices(), clock=lambda: now)
