"""``bus views``: watch, wait, verify, drop. What else can be done with views stands in files of its own."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from bus.cli import context
from bus.cli.commands import VIEWS
from bus.cli.later import group_of
from bus.cli.output import Json, console, show_json, show_table
from bus.errors import Conflict
from bus.wiring.site import Site

views = typer.Typer(cls=group_of(VIEWS), help="Shared views: declare, watch, verify.", no_args_is_help=True)


@views.command("drop")
def drop_view(name: str) -> None:
    """Take a view back; refused while a grant or another view needs it."""
    context.administrator().delete(f"/v1/declarations/{name}")
    console.print(f"view {name} is dropped")


@views.command("list")
def list_views(as_json: Json = False) -> None:
    """All views with rows, lag and freshness."""
    found = context.administrator().get("/v1/status")["views"]
    if as_json:
        show_json(found)
        return
    shown = ("state", "rows", "lag", "freshness_s", "newest_event")
    rows = [
        (name, *(item.get(column) for column in shown), _progress(item.get("rebuild"))) for name, item in found.items()
    ]
    show_table("Views", ("view", "state", "rows", "lag", "freshness s", "newest event", "rebuild"), rows)


@views.command("wait")
def wait_for_views(
    names: Annotated[list[str] | None, typer.Argument(help="views; none: all")] = None,
    timeout: Annotated[float, typer.Option(help="seconds")] = 60.0,
) -> None:
    """Return when the views have applied everything that was published before this call."""
    from bus.wiring.viewing import wait_for_views

    begun = time.monotonic()
    wait_for_views(Site.find(), tuple(names or ()), timeout)
    console.print(f"caught up after {time.monotonic() - begun:.1f} s")


@views.command("verify")
def verify_view(name: str) -> None:
    """Recompute a view from its topics in plain Python and compare every row, while everything runs."""
    from bus.wiring.viewing import verify_view as verify

    begun = time.monotonic()
    found = verify(Site.find(), name)
    if not found.equal:
        shown = "; ".join(found.differences)
        raise Conflict(f"view {name} differs from its events (+ table only, - events only): {shown}")
    seconds = time.monotonic() - begun
    console.print(f"view {name}: {found.rows:,} rows equal the fold of {found.events:,} events; {seconds:.1f} s")


def _progress(found: dict[str, Any] | None) -> str | None:
    """How a view's rebuild goes, or why its last one failed; None where there is nothing to say."""
    if not found or found["state"] in ("done", "cancelled"):
        return None
    if found["state"] != "building":
        return f"{found['state']}: {found.get('reason', '')}"
    left = found.get("seconds_left")
    ends = f", {left:.0f} s left" if left is not None else ""
    return f"{found.get('events', 0):,} of {found.get('of', 0):,} events{ends}"
