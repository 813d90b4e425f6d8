"""``bus views discrepancies``: where two departments' records disagree, and how many there are between whom."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bus.cli import context
from bus.cli.output import Json, console, show_json, show_table


def discrepancies(  # noqa: PLR0917 (a command's options)
    view: Annotated[str | None, typer.Argument(help="one view's; without it, counts of all views")] = None,
    field: Annotated[str | None, typer.Option(help="only this column")] = None,
    closed: Annotated[bool, typer.Option("--closed", help="those that have ended instead of the open ones")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 20,
    offset: Annotated[int, typer.Option(min=0)] = 0,
    department: Annotated[str | None, typer.Option("--as", help="as this department; else as administrator")] = None,
    purpose: Annotated[str | None, typer.Option(help="what the other department's values are for")] = None,
    as_json: Json = False,
) -> None:
    """Where a second department reports something else than what a view shows; counts by pair without a view."""
    api = context.department(department) if department else context.administrator()
    if view is None:
        _counts(api.get("/v1/discrepancies/summary"), as_json)
        return
    state = "closed" if closed else "open"
    options = {"field": field, "state": state, "limit": limit, "offset": offset}
    headers = {"Purpose": purpose} if purpose else {}
    found = api.get(f"/v1/views/{view}/discrepancies", headers=headers, **options)
    if as_json:
        show_json(found)
        return
    columns = ("key", "field", "the view shows", "the other reports", "since", "until")
    rows = [
        (one["key"], one["field"], _side(one["shown"]), _side(one["reported"]), one["opened"], one["closed"])
        for one in found
    ]
    show_table(f"{view}: {state} discrepancies", columns, rows)
    if len(found) == limit:
        console.print(f"there may be more: --offset {offset + limit}", style="dim" if console.is_terminal else "")


def _counts(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    rows = [(one["view"], one["field"], *one["departments"], one["open"], one["closed"]) for one in found]
    show_table("Discrepancies", ("view", "field", "shown of", "also reported by", "open", "closed"), rows)


def _side(side: dict[str, Any]) -> str:
    return f"{side['department']}: {'(not granted)' if side['hidden'] else side['value']}"
