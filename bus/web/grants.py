"""Grants for people: the read-only page of all of them in words, and for each a page on how to connect."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from bus.core.grants import Grant
from bus.errors import NotFound, NotSignedIn
from bus.sharing.recipes import Recipe, Site, recipes
from bus.web.callers import Caller, TheParts, parts_of
from bus.web.parts import Parts
from bus.web.portal import current, page
from bus.web.session import required

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/v1", tags=["grants"])
COMMAND: Final = ".venv/bin/bus"
"""What the command line is called in the checkout that a demonstration runs from."""


@api.get("/connections", summary="How to use each of my grants")
def connections(
    request: Request, parts: TheParts, subject: Caller, consumer: str | None = None
) -> list[dict[str, Any]]:
    """Address, a curl line, Python, topic, group and schema for each channel of the caller's grants that hold today."""
    wanted = consumer if subject.administrator and consumer else subject.department
    held = [grant for grant in parts.grants.all(consumer=wanted) if grant.active(_now())]
    return [
        {**asdict(recipe), "view": grant.view, "purpose": grant.purpose, "bootstrap_servers": _bootstrap(parts, recipe)}
        for grant in held
        for recipe in _recipes(request, parts, grant)
    ]


@router.get("/grants")
async def all_grants(request: Request) -> Response:
    """Every grant in words, by consumer."""
    overview, parts = await current(request), parts_of(request)
    try:
        held = await asyncio.to_thread(_visible, request, parts)
    except NotSignedIn:
        if parts.sessions is None:
            raise
        return RedirectResponse("/login?next=/grants", status_code=303)
    ordered = sorted(held, key=lambda grant: (grant.consumer, grant.view, grant.purpose, grant.id))
    by_consumer = [(consumer, list(grants)) for consumer, grants in groupby(ordered, key=lambda grant: grant.consumer)]
    content = {"overview": overview, "by_consumer": by_consumer, "shapes": parts.shapes(), "now": _now()}
    return page("grants.html", request, content)


@router.get("/connect/{grant_id}")
async def connect(request: Request, grant_id: str) -> Response:
    """What a department's developer pastes to use one grant."""
    overview, parts = await current(request), parts_of(request)
    grant = next((one for one in await asyncio.to_thread(_visible, request, parts) if one.id == grant_id), None)
    if grant is None:
        raise NotFound(what=f"grant '{grant_id}'")
    found = _recipes(request, parts, grant)
    bootstrap = next(filter(None, (_bootstrap(parts, recipe) for recipe in found)), None)
    content = {"overview": overview, "grant": grant, "recipes": found, "bootstrap": bootstrap}
    return page("connect.html", request, content)


def _visible(request: Request, parts: Parts) -> Sequence[Grant]:
    """The grants that the page's reader may know of: staff of the bus all, others their own department's; in a
    demonstration everybody all. Raises `NotSignedIn`."""
    if parts.demo:
        return parts.grants.all()
    person = required(request)
    return [one for one in parts.grants.all() if person.administrator or one.consumer == person.department]


def _recipes(request: Request, parts: Parts, grant: Grant) -> Sequence[Recipe]:
    shape = parts.shapes().get(grant.view)
    site = Site(str(request.base_url).rstrip("/"), COMMAND if parts.demo else "bus")
    return recipes(grant, shape, site) if shape is not None else []


def _bootstrap(parts: Parts, recipe: Recipe) -> str | None:
    """Kafka's address, for streams."""
    if recipe.topic is None:
        return None
    return parts.credentials(recipe.topic.split(".")[1])["bootstrap_servers"]


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
