"""``bus policy``: the access rules, their tests, bundles and revisions."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from bus.access.bundle import policy_files
from bus.access.rules.lint import CAPABILITIES, builtins_of, check_rules
from bus.cli import context
from bus.cli.output import Json, console, show_json, show_table
from bus.errors import BusError
from bus.settings import Settings
from bus.wiring.site import Site

policy = typer.Typer(help="The access rules: test, build, show.", no_args_is_help=True)


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
def policy_history(as_json: Json = False) -> None:
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
