"""``bus up | down | status | demo | token | credentials | serve | worker | streams``, and ``bus policy``."""

from __future__ import annotations

import getpass
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bus.access.bundle import policy_files
from bus.access.rules.lint import CAPABILITIES, builtins_of, check_rules
from bus.cli import context
from bus.cli.output import console, show_json, show_table
from bus.errors import BusError
from bus.settings import Settings
from bus.wiring.site import Site

Json = Annotated[bool, typer.Option("--json", help="print JSON for a script")]
policy = typer.Typer(help="The access rules: test, build, show.", no_args_is_help=True)


def install(app: typer.Typer) -> None:
    """Adds the commands of this file to the top level."""
    for command in (up, down, status, demo, token, credentials, serve, worker, streams):
        app.command()(command)


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


def serve() -> None:
    """Serve HTTP: the doors, the registry, governance, the portal. Runs in the foreground."""
    from bus.wiring.server import serve as run

    run(Settings())


def worker() -> None:
    """Build views out of the departments' events. Runs in the foreground; several share the views."""
    from bus.wiring.worker import work

    work(Settings())


def streams() -> None:
    """Write what consumers may see of views to their topics. Runs in the foreground; one process writes at a time."""
    from bus.wiring.streams import stream

    stream(Settings())


@policy.command("test")
def test_policy() -> None:
    """Check the rules: what they may call, what a view's rule may say, and their own tests with OPA."""
    from bus.wiring.stack import opa_binary

    settings = Settings()
    check_rules(policy_files(settings.policies), builtins_of(settings.policies))
    opa, files = opa_binary(settings), sorted(settings.policies.rglob("*.rego"))
    only_these = ["--capabilities", str(settings.policies / CAPABILITIES), *map(str, files)]
    checks: list[list[str]] = [["check", "--strict", *only_these], ["test", *only_these]]
    if any(subprocess.run([opa, *check], check=False).returncode != 0 for check in checks):
        raise BusError("the rules' tests failed; nothing was changed.")


@policy.command("build")
def build_policy(output: Annotated[Path, typer.Option("--output", "-o")] = Path("rules.tar.gz")) -> None:
    """Build and sign the bundle that OPA would fetch."""
    from bus.wiring.rules import build_rules

    bundle, revision = build_rules(Site.find())
    output.write_bytes(bundle)
    console.print(f"{output}: revision {revision}, {len(bundle)} bytes")


@policy.command("history")
def policy_history(as_json: Annotated[bool, typer.Option("--json", help="print JSON for a script")] = False) -> None:
    """Every published revision of the rules, the newest first."""
    from bus.wiring.rules import rules_history

    found = rules_history(Site.find())
    if as_json:
        show_json(found)
        return
    members = ("revision", "at", "rollback_of", "author", "approver", "reason", "verified")
    show_table("Rules", members, [tuple(item.get(name) for name in members) for item in found])


@policy.command("rollback")
def rollback_policy(
    revision: Annotated[int, typer.Argument(metavar="REVISION", help="`bus policy history` shows them")],
    author: Annotated[str, typer.Option(help="who wants it")],
    approver: Annotated[str, typer.Option(help="who approves it, somebody else")],
    reason: Annotated[str, typer.Option(help="why, for the record")],
) -> None:
    """Put older rules in force again, under a new revision number. Two people answer for it."""
    from bus.wiring.rules import rollback_rules

    people = {"author": author, "approver": approver, "reason": reason}
    made = rollback_rules(Site.find(), revision, **people, os_user=getpass.getuser())
    console.print(f"the rules of revision {revision} are in force again as revision {made}")


@policy.command("show")
def show_policy() -> None:
    """The revisions in force, rules and grants."""
    console.print(context.administrator().get("/v1/status")["policy_revision"])
