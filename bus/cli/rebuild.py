"""``bus views rebuild | undo``: builds a view anew beside the live one, and takes the last swap back."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import typer

from bus.cli import context
from bus.cli.output import Json, console, show_json
from bus.cli.steps import Bar, Steps
from bus.errors import Conflict, ViewRebuilding

_LOOK_S: Final = 0.3
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="return when it is done, or at once")]
Timeout = Annotated[float, typer.Option(help="seconds to wait for a worker to be done")]


def rebuild(name: str, wait: Wait = True, timeout: Timeout = 3_600.0, as_json: Json = False) -> None:
    """Build a view anew from its topics beside the live one, compare, and swap; readers notice nothing.

    The replaced one is kept for one `bus views undo`."""
    _ask(name, "rebuild", timeout if wait else None, as_json)


def undo(name: str, wait: Wait = True, timeout: Timeout = 60.0, as_json: Json = False) -> None:
    """Put back what the last rebuild replaced; it then catches up with its topics."""
    _ask(name, "undo", timeout if wait else None, as_json)


def _ask(name: str, kind: str, timeout_s: float | None, as_json: bool) -> None:
    request = context.administrator().post(f"/v1/declarations/{name}/{kind}", {})["request"]
    if timeout_s is None:
        if as_json:
            show_json({"view": name, "request": request})
        else:
            console.print(f"view {name}: {kind} is asked for; `bus views list` shows how it goes")
        return
    found = _ended(name, request, timeout_s, quiet=as_json)
    if as_json:
        show_json({"view": name, **found})
    if found["state"] != "done":
        raise Conflict(f"view {name}: {kind} was {found['state']}: {found.get('reason', '')}")
    if not as_json:
        console.print(_told(name, kind, found))


def _ended(name: str, request: str, timeout_s: float, *, quiet: bool) -> dict[str, Any]:
    """What became of the request. Raises `ViewRebuilding` where no worker was done with it in time."""
    deadline, bar = time.monotonic() + timeout_s, None
    with Steps() as steps:
        while time.monotonic() < deadline:
            found: dict[str, Any] = context.administrator().get("/v1/status")["views"][name].get("rebuild") or {}
            if found.get("request") == request and found.get("state") != "building":
                return found
            if found.get("of") and not quiet:
                bar = bar or Bar(steps, f"events of {name}", found["of"])
                bar.at(found["events"])
            time.sleep(_LOOK_S)
    raise ViewRebuilding(
        f"View {name} is not done after {timeout_s:g} s. It goes on; `bus views list` shows how far it is, and "
        "`bus status` whether a worker runs."
    )


def _told(name: str, kind: str, found: dict[str, Any]) -> str:
    if kind == "undo":
        return f"view {name} is what it was before; `bus views undo {name}` again takes this back"
    if "rows" not in found:
        return f"view {name} is computed anew"
    if not found.get("columns"):
        return f"view {name} is built anew: {found['rows']:,} rows; there was nothing to compare them with"
    repaired = f"{found['repaired']:,} rows were repaired" if found.get("repaired") else "no row had to be repaired"
    return f"view {name} is built anew: {found['rows']:,} rows; {repaired}; `bus views undo {name}` takes it back"
