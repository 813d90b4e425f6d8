"""`/docs`: the OpenAPI description as one page of our own, which needs nothing from any other host."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from bus.web.portal import page

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def reference(request: Request) -> Response:
    """Every operation by audience, with its parameters; the machine-readable form is `/openapi.json`."""
    description: dict[str, Any] = request.app.openapi()
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["other"])[0]
            groups.setdefault(tag, []).append({"path": path, "method": method.upper(), **operation})
    return page("reference.html", request, {"groups": groups})
