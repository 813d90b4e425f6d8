"""``bus up | down | status | demo | token | credentials``: the bus on this machine."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from bus.cli import context
from bus.cli.output import Json, console, show_json, show_table
from bus.errors import BusError
from bus.settings import Settings
from bus.wiring.site import Site


def up() -> None:
    """Start what is missing of Kafka, OPA, serve and worker; harmless when all runs."""
    from bus.wiring.stack import start

    state = start(console.print)
    console.print(f"running: {', '.join(sorted(state.processes))}; portal {state.web}")


def down() -> None:
    """Stop exactly what `bus up` or `bus demo` started."""
    from bus.wiring.stack import local_stack

    stopped = local_stack(Settings(), console.print).down()
    console.print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


def demo(again: Annotated[bool, typer.Option("--again", help="publish the data once more")] = False) -> None:
    """Start everything, publish real data of four departments, ask, verify; leaves the stack running."""
    from bus.cli.demo import run_demo

    run_demo(again=again)


def status(
    department: Annotated[str | None, typer.Option("--as", help="answer this department's own questions")] = None,
    as_json: Json = False,
) -> None:
    """What runs, how far the views are, what is in quarantine; or one department's own picture."""
    if department is not None:
        _department_status(department, as_json)
        return
    found = _status()
    if as_json:
        show_json(found)
        return
    console.print(f"portal   {found['web']}\nkafka    {found['kafka']}\nopa      {found['opa']}")
    console.print(f"database {found['database']}\npolicy   {found['policy_revision']} (rules.grants)")
    console.print("processes " + ", ".join(f"{name} {pid}" for name, pid in found["processes"].items()))
    shown = ("state", "rows", "lag", "freshness_s", "newest_event")
    rows = [(name, *(view.get(item) for item in shown)) for name, view in found["views"].items()]
    show_table("Views", ("view", "state", "rows", "lag", "freshness s", "newest event"), rows)
    if found["subscriptions"]:
        columns = ("consumer", "view", "state", "position", "behind", "problem")
        show_table("Streams", columns, [tuple(item[name] for name in columns) for item in found["subscriptions"]])
    console.print(f"quarantine {found['quarantine']}")
    if found["broker"]:
        console.print(_broker(found["broker"]))
    for promise in found["promises"]:
        if promise["broken"]:
            newest = promise["newest_published"] or "never"
            text = f"an event at least every {promise['promise']}; the newest one: {newest}"
            console.print(f"promise broken: {promise['entity']} promises {text}")


def _status() -> dict[str, Any]:
    site = Site.find()
    inside = context.administrator().get("/v1/status")
    return {
        "web": site.web,
        "kafka": site.kafka,
        "opa": site.opa,
        "database": site.database,
        "policy_revision": inside["policy_revision"],
        "processes": site.processes,
        "views": inside["views"],
        "quarantine": inside["quarantine"],
        "promises": inside["promises"],
        "subscriptions": inside.get("subscriptions", []),
        "broker": inside["broker"],
    }


def _broker(found: dict[str, Any]) -> str:
    """What Kafka's ACLs are, and what somebody else did to them."""
    repaired = found["repaired"]["added"] + found["repaired"]["removed"]
    drift = f"; {repaired} changes by others put right, see bus.alarms" if repaired else ""
    if found["in_order"]:
        return f"broker   in order, {found['shares']} streams{drift}"
    return f"broker   not in order: {found['problem']}{drift}"


def _department_status(department: str, as_json: bool) -> None:
    found = context.department(department).get(f"/v1/status/{department}")
    if as_json:
        show_json(found)
        return
    show_table(
        f"{department}: what it published",
        ("entity", "published", "applied", "waiting", "refused", "promise", "views"),
        [
            (
                *(item[name] for name in ("entity", "published", "applied", "waiting", "refused")),
                f"{item['promise']} {'broken' if item['promise_broken'] else 'kept'}",
                ", ".join(item["views"]),
            )
            for item in found["entities"]
        ],
    )
    for item in found["refusals"]:
        console.print(f"refused: {item['entity']} {item['place']}: {item['reasons']}")
    show_table(
        "who read it",
        ("view", "consumer", "purpose", "answers", "rows"),
        [(item["view"], item["consumer"], item["purpose"], item["answers"], item["rows"]) for item in found["readers"]],
    )


def token(
    department: Annotated[str, typer.Argument(metavar="DEPARTMENT")],
    officer: Annotated[str | None, typer.Option(help="the officer who asks")] = None,
) -> None:
    """A short-lived token (15 minutes) from the local issuer, for the Authorization header."""
    site = Site.find()
    known = {item["id"] for item in context.administrator().get("/v1/departments")}
    if department not in known:
        raise BusError(f"There is no department '{department}'. `bus departments list` shows them.")
    sys.stdout.write(site.token(department, officer=officer) + "\n")


def credentials(department: Annotated[str, typer.Argument(metavar="DEPARTMENT")], as_json: Json = False) -> None:
    """How a department's own systems reach the broker. Demo and administrators only."""
    found = context.administrator().get(f"/v1/departments/{department}/credentials")
    if as_json:
        show_json(found)
        return
    for name, value in found.items():
        console.print(f"{name}={value}")
