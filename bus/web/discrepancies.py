"""Where departments disagree, over HTTP: the discrepancies of a view, and how many there are between whom."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from bus.governance.disagreements import Asked, Between, Disagreements, Seen
from bus.views.derived.discrepancies import Discrepancies
from bus.web.callers import Caller, TheParts
from bus.web.parts import Parts
from bus.web.problems import request_id

router = APIRouter(prefix="/v1", tags=["disagreements"])


def door(parts: Parts) -> Disagreements:
    """The door over the app's parts."""
    return Disagreements(Discrepancies(parts.views.engine), parts.shapes, parts.decider, parts.audit)


class Filter(BaseModel):
    """Which discrepancies; what is none of these members is refused."""

    model_config = ConfigDict(extra="forbid")
    field: str | None = Field(None, max_length=63, description="only this column")
    state: Literal["open", "closed"] = "open"
    limit: int = Field(100, ge=1, le=1_000)
    offset: int = Field(0, ge=0, le=10_000_000)


@router.get("/views/{view}/discrepancies", summary="Where two departments' records disagree")
async def discrepancies(
    request: Request, parts: TheParts, subject: Caller, view: str, wanted: Annotated[Filter, Query()]
) -> list[dict[str, Any]]:
    """Discrepancies that the caller is a party to, in the order of keys. The other department's value is there
    (`hidden` false) only where a grant for the stated `Purpose` shows that datum unmasked and for every row; staff see
    both."""
    stated = request.headers.getlist("purpose")
    asked = Asked(view, **wanted.model_dump(), purpose=stated[0] if len(stated) == 1 else None)
    seen = await door(parts).page(subject, asked, request_id=request_id(request))
    return [as_json(one) for one in seen]


@router.get("/discrepancies/summary", summary="How many disagreements there are, by field and pair of departments")
def summary(parts: TheParts, subject: Caller) -> list[dict[str, Any]]:
    """Counts of every view, field and pair of departments; a department gets those it is a party to."""
    return [count_as_json(between) for between in door(parts).counts(subject)]


def as_json(seen: Seen) -> dict[str, Any]:
    """One discrepancy: key as the record key's text, both sides, the event that opened it, and when it ended."""
    entry, (first, second) = seen.entry, seen.departments
    return {
        "key": entry.key,
        "field": entry.field,
        "state": "open" if entry.closed_ms is None else "closed",
        "shown": _side(first, entry.source, seen.shown),
        "reported": _side(second, entry.other, seen.reported),
        "opened": instant(entry.opened_ms),
        "closed": None if entry.closed_ms is None else instant(entry.closed_ms),
        "event": {"topic": entry.topic, "partition": entry.partition, "offset": entry.offset},
    }


def _side(department: str, source: str, value: str | None) -> dict[str, Any]:
    return {"department": department, "source": source, "value": value, "hidden": value is None}


def count_as_json(between: Between) -> dict[str, Any]:
    """The count of one field between two departments; the first is the one whose value the view shows."""
    count = between.count
    names = {"view": count.view, "field": count.field, "departments": list(between.departments)}
    return {**names, "open": count.open, "closed": count.closed}


def instant(milliseconds: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC."""
    return (
        dt.datetime.fromtimestamp(milliseconds / 1_000, dt.UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
