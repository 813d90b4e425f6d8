"""``bus publish | query | quarantine | audit``: data in, data out, and what became of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import orjson
import typer

from bus.cli import context
from bus.cli.output import console, errors, show_json, show_table
from bus.core import names
from bus.errors import BrokerUnavailable, Conflict, Invalid

quarantine = typer.Typer(help="What could not be applied, kept with its reasons.", no_args_is_help=True)
audit = typer.Typer(help="Who saw what, in a log that cannot be quietly changed.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="print JSON for a script")]


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


def install(app: typer.Typer) -> None:
    """Adds the commands of this file to the top level."""
    app.command()(publish)
    app.command()(query)


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
        errors.print(f"line {refused.line}: {reasons}")
    if report.refused:
        raise typer.Exit(1)


def query(  # noqa: PLR0917 (a command's options)
    view: str,
    department: Annotated[str, typer.Option("--as", help="the asking department")],
    purpose: Annotated[str, typer.Option(help="what the data is for")],
    select: Annotated[str | None, typer.Option(help="columns, comma-separated")] = None,
    where: Annotated[list[str] | None, typer.Option(help="a filter such as ward=eq.20; repeatable")] = None,
    order: Annotated[str | None, typer.Option(help="such as ward.desc")] = None,
    limit: Annotated[int | None, typer.Option(min=0)] = None,
    as_of: Annotated[str | None, typer.Option(help="history views: as known then (RFC 3339, or a date)")] = None,
    valid_at: Annotated[str | None, typer.Option(help="history views: what held then")] = None,
    officer: Annotated[str | None, typer.Option(help="the officer who asks")] = None,
    output: Annotated[Format, typer.Option("--format", help="how to print")] = Format.TABLE,
) -> None:
    """Ask a view as a department, exactly as its own system would."""
    filters = [_filter(text) for text in where or ()]
    columns = tuple(select.split(",")) if select else ()
    answer = "json" if output is Format.TABLE else output.value
    with context.query_client(department, officer) as client:
        response = client.raw(
            view,
            purpose=purpose,
            select=columns,
            where=filters,
            order=order,
            limit=limit,
            as_of=as_of,
            valid_at=valid_at,
            answer=answer,
        )
    if output is not Format.TABLE:
        sys.stdout.buffer.write(response.content)
        return
    rows = response.json()
    shown = list(rows[0]) if rows else list(columns)
    show_table(f"{view} as {department}", shown, [[row[name] for name in shown] for row in rows])
    masked = response.headers.get("Masked-Columns")
    freshness = response.headers.get("Data-Freshness", "")
    errors.print(f"{len(rows)} rows; masked: {masked or 'nothing'}; seconds behind the source: {freshness or '–'}")


def _filter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"'{text}' is not a filter such as ward=eq.20", param_hint="--where")
    return name, value


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
