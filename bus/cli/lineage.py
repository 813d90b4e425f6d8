"""``bus views lineage``: which events made the values of a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from bus.cli import context
from bus.cli.output import Json, console, show_json, show_table
from bus.core.events import split_key
from bus.errors import Invalid

Events = Mapping[str, Mapping[str, Any]]


def lineage(  # noqa: PLR0917 (a command's options)
    view: str,
    key: Annotated[str, typer.Argument(help="the row's key; parts joined with |, empty: no value (aggregates)")],
    department: Annotated[str, typer.Option("--as", help="the asking department")],
    purpose: Annotated[str, typer.Option(help="what the data is for")],
    field: Annotated[list[str] | None, typer.Option(help="only this column; repeatable")] = None,
    as_json: Json = False,
) -> None:
    """Say of each value which event made it: id, department, time, contract version, place. No values are shown."""
    from bus.wiring.viewing import view_key

    names, parts = view_key(view), split_key(key)
    if len(names) != len(parts):
        raise Invalid(f"the key of {view} is {'|'.join(names)}: expected {len(names)} part(s), received {len(parts)}.")
    asked = {name: f"eq.{part}" if part else "is.null" for name, part in zip(names, parts, strict=True)}
    options = {**asked, "field": ",".join(field) if field else None}
    found = context.department(department).get(f"/v1/views/{view}/lineage", headers={"Purpose": purpose}, **options)
    if as_json:
        show_json(found)
        return
    _show(found, f"{view} {key}")


def _show(found: Mapping[str, Any], title: str) -> None:
    events: Events = found["events"]
    columns = ("event", "department", "time", "appended", "contract", "place")
    rows = [
        (one["field"] + (" (masked)" if one["masked"] else ""), *_event(events, place))
        for one in found["fields"]
        for place in one["events"] or [None]
    ]
    if found["kind"] != "aggregate":
        show_table(title, ("field", *columns), rows)
    for one in found.get("contributions", ()):
        keys = one.get("keys")
        told = f"which ones: {one['keys_withheld']}" if keys is None else "; ".join(_key(key) for key in keys)
        more = " and more" if keys is not None and len(keys) < one["rows"] else ""
        console.print(f"{one['source']}: {one['rows']:,} rows of {one['view']}; {told}{more}")
    if found.get("versions"):
        known = [
            (one["known"], one["valid"], "deleted" if one["deleted"] else "", *_event(events, one["event"]))
            for one in found["versions"]
        ]
        show_table("Versions, newest first", ("known since", "valid from", "", *columns), known)


def _event(events: Events, place: str | None) -> tuple[Any, ...]:
    """An event that is no longer kept, or a value without one, has dashes."""
    event = events.get(place or "", {})
    version = event.get("contract_version")
    contract = f"{event['entity']} {version or '–'}" if event else None
    told = (event.get("event_id") or ("no longer kept" if event else None), event.get("department"))
    return (*told, event.get("time"), event.get("appended"), contract, place)


def _key(key: Mapping[str, Any]) -> str:
    return "|".join(str(part) for part in key.values())
