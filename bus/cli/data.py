"""``bus publish | quarantine | audit``: data in, data out, and what became of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
import typer

from bus.cli import context
from bus.cli.output import Json, console, errors, show_json, show_table
from bus.core import names
from bus.errors import BrokerUnavailable, Conflict, Invalid

quarantine = typer.Typer(help="What could not be applied, kept with its reasons.", no_args_is_help=True)
audit = typer.Typer(help="Who saw what, in a log that cannot be quietly changed.", no_args_is_help=True)


def publish(
    entity: Annotated[str, typer.Argument(metavar="DEPARTMENT.ENTITY")],
    department: Annotated[str, typer.Option("--as", help="the publishing department")],
    file: Annotated[typer.FileText, typer.Argument(help="JSON lines; - is standard input")] = sys.stdin,  # type: ignore[assignment]
) -> None:
    """Publish JSON lines.

    A line is a bare record, {"op": "upsert", "record": …} or {"op": "delete", "key": …, "version": …}. What the
    contract refuses is named by its line and kept in quarantine; the other lines go on.
    """
    owner, _, name = names.entity_id(entity).partition(".")
    if owner != department:
        raise Invalid(f"{department} may publish only its own entities; {entity} belongs to {owner}.")
    from bus.wiring.publishing import Publisher  # late: loads Kafka and Arrow

    with Publisher.connect(department) as publisher:
        report = publisher.publish_lines(name, file)
    console.print(f"{report.acknowledged} acknowledged, {len(report.refused)} refused")
    for refused in report.refused:
        reasons = "; ".join(f"{why.field}: expected {why.expected}, received {why.received}" for why in refused.reasons)
        errors.print(f"line {refused.line}: {reasons}", markup=False)
    if report.refused:
        raise typer.Exit(1)


@quarantine.command("list")
def list_quarantine(
    limit: Annotated[int, typer.Option(min=1)] = 20,
    as_json: Json = False,
) -> None:
    """The newest entries with their reasons, of both origins."""
    found = context.administrator().get("/v1/quarantine", limit=limit)
    if as_json:
        show_json(found)
        return
    rows = [(item["id"], item["origin"], item["entity"], _place(item), _reasons(item)) for item in found]
    show_table("Quarantine", ("id", "origin", "entity", "place", "reasons"), rows)


def _place(item: dict[str, Any]) -> str:
    if item["origin"] == "publish":
        return f"line {item['line']}"
    return f"{item['topic']}/{item['partition']}@{item['offset']}"


def _reasons(item: dict[str, Any]) -> str:
    parts = (
        f"{reason['field']}: expected {reason.get('expected')}, received {reason.get('received')}"
        if "field" in reason
        else str(reason.get("reason") or reason)
        for reason in item["reasons"]
    )
    return "; ".join(parts)


@audit.command("verify")
def verify_audit(as_json: Json = False) -> None:
    """Recompute the hash chain and hold it against the heads kept elsewhere; exits 1 and names the first bad entry."""
    verdict = context.administrator().get("/v1/audit/verify")
    if as_json:
        show_json(verdict)
    if not verdict["ok"]:
        raise Conflict(f"the audit log was changed: {_first_bad(verdict)}")
    if verdict["unread"]:
        places = ", ".join(verdict["unread"])
        raise BrokerUnavailable(f"the chain holds, but its heads kept in the {places} could not be read: try again.")
    if not as_json:
        console.print(f"{verdict['entries']} entries, chain unbroken, {verdict['anchors']} heads kept elsewhere agree")


def _first_bad(verdict: Mapping[str, Any]) -> str:
    """What is known of where the log was changed."""
    first, against = f"the first bad entry is number {verdict['first_bad']}", verdict["contradicted"]
    if against is None:
        return f"{first}."
    known = f"the {against['place']} keeps a head of number {against['head']['sequence']} since {against['at']}"
    return f"{first}: {known}, which the log does not bear out. Up to number {verdict['agreed']} one agrees."


@audit.command("show")
def show_audit(limit: Annotated[int, typer.Option(min=1)] = 20) -> None:
    """The newest entries: who, for whom, purpose, view, rows."""
    for entry in context.administrator().get("/v1/audit", limit=limit):
        sys.stdout.write(orjson.dumps(entry).decode() + "\n")
