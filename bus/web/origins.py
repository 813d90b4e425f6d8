"""Portal page: where the values of one row come from, asked as a department. Demonstration only.

It goes the way of every question, twice: once for the values, once for their lineage; both are recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from bus.core.events import split_key
from bus.core.views import View
from bus.errors import BusError, Csrf, NotFound
from bus.sharing.provenance import Contribution, Event, Known, Lineage, Made, named
from bus.sharing.query import parse_query
from bus.web.asking import LIFETIME_S, Cell
from bus.web.callers import parts_of
from bus.web.parts import Parts
from bus.web.portal import OWN, Id, current, page
from bus.web.problems import request_id

router = APIRouter(include_in_schema=False)
MAX_KEY: Final = 500


class Wanted(BaseModel):
    """Which row, asked by whom; what is none of these members is refused."""

    model_config = ConfigDict(extra="forbid")
    view: Id = ""
    department: Id = ""
    purpose: Id = ""
    key: str = Field("", max_length=MAX_KEY)
    lang: Id = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One field of the row: its value as the department may see it, and the events behind it."""

    made: Made
    cell: Cell
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Told:
    """What the department is told of the row; ``error``: what refused it."""

    lineage: Lineage | None = None
    lines: Sequence[Line] = ()
    error: BusError | None = None

    @property
    def versions(self) -> list[tuple[Known, Event]]:
        found = self.lineage
        return [(known, found.events[known.place]) for known in found.versions] if found else []

    @property
    def contributions(self) -> Sequence[Contribution]:
        return self.lineage.contributions if self.lineage else ()


@router.get("/lineage")
async def lineage(request: Request, wanted: Annotated[Wanted, Query()]) -> Response:
    """The page; without a key, its form."""
    parts = parts_of(request)
    if not parts.demo or parts.issuer is None:
        raise NotFound(what="such address")
    if request.headers.get("sec-fetch-site", "") not in OWN:
        raise Csrf()  # it writes audit entries in a department's name: no other site may start that
    overview = await current(request)
    line = overview.view(wanted.view)
    told = await _told(parts, wanted, line.shape.view, request_id(request)) if line and wanted.key else None
    content = {"overview": overview, "wanted": wanted, "line": line, "told": told, "named": named}
    return page("lineage.html", request, content)


async def _told(parts: Parts, wanted: Wanted, view: View, request_id: str) -> Told:
    """A token for the department, then both doors. Errors are what it got, not what went wrong here."""
    if parts.issuer is None:
        raise TypeError("only a demonstration can ask as a department")
    purpose = wanted.purpose or None
    try:
        token = parts.issuer.token(wanted.department, lifetime_s=LIFETIME_S)
        subject = parts.verifier.subject(f"Bearer {token}")
        asked = key_parameters(view, wanted.key)
        found = await parts.lineage.answer(subject, view.name, lambda: asked, purpose, request_id=request_id)
        answer = await parts.door.answer(subject, view.name, lambda: parse_query(asked), purpose, request_id=request_id)
    except BusError as error:
        return Told(error=error)
    values = dict(zip(answer.names, answer.rows[0], strict=True)) if answer.rows else {}
    return Told(found, [_line(made, values, found) for made in found.made])


def key_parameters(view: View, key: str) -> list[tuple[str, str]]:
    """The question by a key in its text form; in an aggregate an empty part is the group without that value."""
    parts, aggregate = split_key(key), view.kind == "aggregate"
    pairs = zip(view.key, parts, strict=True) if len(parts) == len(view.key) else ()  # the door refuses no key
    return [(name, "is.null" if aggregate and not part else f"eq.{part}") for name, part in pairs]


def _line(made: Made, values: Mapping[str, Any], found: Lineage) -> Line:
    value = values.get(made.column.name)
    kind = "blank" if value is None else "masked" if made.masked else "shown"
    return Line(made, Cell(kind, value), [found.events[place] for place in made.places])
