"""What the doors about one row of a view have in common: its key and a purpose are asked for, JSON is answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from bus.sharing.formats import Format, document
from bus.sharing.minimal.answering import Said
from bus.sharing.provenance import Lineage

_KEY: Final = ("query", "{key}", "each key column, as `licence_number=eq.20`")
_PURPOSE: Final = ("header", "Purpose", "an id of the purpose register")


def documented(*options: tuple[str, str, str]) -> dict[str, Any]:
    """The parameters for OpenAPI. ``options``: further ones: where each stands, its name, what it is."""
    parameters = [
        {"name": name, "in": place, "required": False, "description": text, "schema": {"type": "string"}}
        for place, name, text in (_KEY, *options, _PURPOSE)
    ]
    return {"parameters": parameters, "security": [{"bearer": []}]}


def answered(found: Said | Lineage, headers: Mapping[str, str] | None = None) -> Response:
    """What was found, with the decision's revision and how fresh it is, and further ``headers``."""
    stated = {"Policy-Revision": found.decision.policy_revision, "Data-Freshness": found.freshness}
    return Response(document(found.document()), media_type=Format.JSON, headers={**stated, **(headers or {})})
