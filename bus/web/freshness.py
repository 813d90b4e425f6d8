"""How fresh a view is, over HTTP. Handlers block: thread pool."""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter

from bus.access.identity import Subject
from bus.errors import NotGranted, UnknownView
from bus.governance.promises.store import Promise
from bus.views.catalogue import Shape
from bus.views.freshness import SourceFreshness, by_source
from bus.web.callers import Caller, TheParts
from bus.web.discrepancies import instant
from bus.web.parts import Parts

router = APIRouter(prefix="/v1", tags=["views"])


@router.get("/views/{view}/freshness", summary="How fresh a view is, by source")
def freshness(parts: TheParts, subject: Caller, view: str) -> dict[str, Any]:
    """Of each source the time of its newest event, the events that wait and the position in each partition, and what
    its department promised. For who has a grant on the view, and for staff. No row is read."""
    shape = parts.shapes().get(view)
    if shape is None:
        raise UnknownView(view=view)
    _admit(parts, subject, shape)
    state = parts.views.state(view)
    return {
        "view": view,
        "state": state.state if state else "building",
        "seq": state.seq if state else 0,
        "sources": sources_as_json(parts, shape),
    }


def sources_as_json(parts: Parts, shape: Shape) -> list[dict[str, Any]]:
    """The freshness of each source of a view as JSON; figures that are not known are null."""
    now_ms, promises = int(time.time() * 1_000), parts.promises()
    found = by_source(shape, parts.shapes(), parts.views.positions, now_ms)
    return [_as_json(source, now_ms, promises) for source in found]


def _admit(parts: Parts, subject: Subject, shape: Shape) -> None:
    """Raises `NotGranted`, or `UnknownView` for a view that is not listed, unless a grant on it is in force."""
    view, now = shape.view, dt.datetime.now(dt.UTC)
    if subject.administrator or parts.grants.active(subject.department, view.name, now):
        return
    if not view.listed:
        raise UnknownView(view=view.name)
    contact = parts.directory.department(view.owner).contact
    raise NotGranted(department=subject.department, view=view.name, owner=view.owner, contact=contact)


def _as_json(source: SourceFreshness, now_ms: int, promises: Mapping[str, Promise]) -> dict[str, Any]:
    age_s = source.age_s(now_ms)
    promise = promises.get(source.entity)
    return {
        "source": source.source,
        "entity": source.entity or None,
        "newest_event": None if source.newest_ms is None else instant(source.newest_ms),
        "event_age_s": None if age_s is None else round(age_s, 1),
        "lag": source.lag,
        "freshness_s": round(source.behind_s, 1) if math.isfinite(source.behind_s) else None,
        "promise": None if promise is None else promise_as_json(promise),
        "positions": [
            {"partition": at.partition, "next_offset": at.next_offset, "end_offset": at.end_offset}
            for at in source.positions
        ],
    }


def promise_as_json(promise: Promise) -> dict[str, Any]:
    """What a department promised of an entity, and whether it keeps it."""
    newest = promise.newest_ms
    return {
        "entity": promise.entity,
        "department": promise.department,
        "promise": promise.promise,
        "broken": promise.broken,
        "since": None if promise.changed_ms is None else instant(promise.changed_ms),
        "newest_published": None if newest is None else instant(newest),
    }
