"""Grants for exports and pages beside those of the served world."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import httpx2
from served_world import EVERY_KIND, World

from bus.core.grants import parse_grant_set

FIELDS = [item["name"] for item in EVERY_KIND["fields"]]
EXPORTS = {"consumer": "lab", "view": "sample", "purpose": "case_investigation", "channels": ["export"]}


def give(world: World, *grants: dict[str, Any], name: str = "exports") -> None:
    """Applies these grants as one set; members left out are those of `EXPORTS`."""
    today = dt.datetime.now(dt.UTC).date()
    common = {
        **EXPORTS,
        "fields": FIELDS,
        "valid": {"from": today, "to": today + dt.timedelta(days=1)},
        "legal_basis": "Act 3",
    }
    document = {"set": name, "author": "li.na", "approver": "wang.wei", "grants": [{**common, **one} for one in grants]}
    world.parts.grants.apply(parse_grant_set(document), os_user="test")


_CLIENT: Final = httpx2.Client(timeout=30)  # a client of its own for each question would take longer than the answer


def ask(
    world: World, path: str, department: str | None = None, purpose: str | None = None, **headers: str
) -> httpx2.Response:
    """One question as a department, or without a token."""
    own = {} if department is None else world.headers(department, purpose)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return _CLIENT.get(world.url + path, headers={**own, **sent})
