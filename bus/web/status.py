"""How things stand: quarantine, views, a department's own picture, the audit log. Handlers block: thread pool."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from bus.access.identity import Subject
from bus.contracts.quarantine import Kept, as_json, from_json
from bus.errors import ContractViolation, Invalid, NotFound
from bus.views.catalogue import Shape
from bus.views.freshness import by_source
from bus.web.callers import Administrator, Caller, TheParts
from bus.web.discrepancies import instant
from bus.web.freshness import promise_as_json
from bus.web.parts import Parts

router = APIRouter(prefix="/v1")


class Refused(BaseModel):
    """Rows that a publisher refused and hands over."""

    model_config = ConfigDict(extra="forbid")
    entries: list[dict[str, Any]]


@router.post("/quarantine", status_code=202)
def hand_over(parts: TheParts, subject: Caller, refused: Refused) -> dict[str, int]:
    try:
        entries = [from_json({**doc, "origin": "publish"}) for doc in refused.entries]
    except (TypeError, KeyError, ValueError) as error:
        raise Invalid("an entry has entity, line, key, payload (hex) and reasons.") from error
    for entry in entries:
        if not subject.administrator and entry.entity.partition(".")[0] != subject.department:
            expected, received = f"an entity of {subject.department}", entry.entity
            raise ContractViolation(entity=entry.entity, field="entity", expected=expected, received=received)
    return {"kept": parts.refusals.add(entries)}


@router.get("/quarantine")
def list_quarantine(
    parts: TheParts, subject: Caller, limit: Annotated[int, Query(ge=1, le=1000)] = 20
) -> list[dict[str, Any]]:
    kept = (item for item in parts.refused(limit) if subject.administrator or _owned(item, subject))
    return [{"id": item.id, "at_ms": item.at_ms, **as_json(item.entry)} for item in kept]


def _owned(kept: Kept, subject: Subject) -> bool:
    return kept.entry.entity.partition(".")[0] == subject.department


@router.get("/status")
def status(parts: TheParts, _: Administrator) -> dict[str, Any]:
    return {
        "policy_revision": parts.decider.policy_revision(),
        "views": view_states(parts),
        "quarantine": parts.quarantined(),
        "audit": dict(parts.anchoring.status()),
        "subscriptions": parts.subscriptions(),
        "broker": parts.shares.status() if parts.shares is not None else None,
        "promises": [promise_as_json(promise) for promise in parts.promises().values()],
    }


@router.get("/status/{department}")
def department_status(parts: TheParts, subject: Caller, department: str) -> dict[str, Any]:
    if not subject.administrator and subject.department != department:
        raise NotFound(what=f"status of '{department}'")
    parts.directory.department(department)
    return parts.report.of(department)


@router.get("/audit/verify")
def verify_audit(parts: TheParts, _: Administrator) -> dict[str, Any]:
    """The whole chain, held against every head that was kept elsewhere (`Compared`)."""
    return asdict(parts.anchoring.compare())


@router.get("/audit")
def show_audit(
    parts: TheParts, _: Administrator, limit: Annotated[int, Query(ge=1, le=1000)] = 20
) -> list[dict[str, Any]]:
    return [{"sequence": entry.sequence, **entry.body} for entry in parts.audit.recent(limit)]


def view_states(parts: Parts) -> dict[str, dict[str, Any]]:
    """Every declared view: state, rows, lag (events), freshness (seconds behind; None before it was complete), time of
    its newest event."""
    states, shapes = parts.views.states(), parts.shapes()
    found: dict[str, dict[str, Any]] = {}
    for name, shape in shapes.items():
        state = states.get(name)
        if state is None:
            waiting = "no worker has taken it up yet"
            nothing = {"lag": None, "freshness_s": None, "newest_event": None}
            found[name] = {"state": "building", "rows": 0, **nothing, "reason": waiting}
            continue
        behind = _finite(parts.views.freshness(name))
        numbers = {"rows": state.rows, "lag": state.lag, "freshness_s": behind, "newest_event": _newest(parts, shape)}
        found[name] = {"state": state.state, **numbers, "reason": state.reason, "seq": state.seq}
        found[name] |= {"rebuild": state.rebuild}
    return found


def _newest(parts: Parts, shape: Shape) -> str | None:
    """The time of the newest event of any source, None before there is one."""
    times = [s.newest_ms for s in by_source(shape, parts.shapes(), parts.views.positions, 0) if s.newest_ms is not None]
    return instant(max(times)) if times else None


def _finite(freshness: Mapping[str, float]) -> float | None:
    worst = max(freshness.values(), default=math.inf)
    return round(worst, 1) if math.isfinite(worst) else None
