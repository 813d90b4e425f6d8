"""``bus departments | contracts | grants``: what there is, and who may see it."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from bus.cli import context
from bus.cli.files import dates_as_text, read_schema, read_yaml
from bus.cli.output import Json, console, show_json, show_table
from bus.core.contracts import parse_contract

PORTION = 1_000
departments = typer.Typer(help="The departments and their principals on the broker.", no_args_is_help=True)
contracts = typer.Typer(help="What events must look like.", no_args_is_help=True)
grants = typer.Typer(help="Who may read what, for which purpose.", no_args_is_help=True)


@departments.command("add")
def add_department(
    name: Annotated[str, typer.Argument(metavar="ID", help="lower-case id, such as `tax`")],
    title_zh: Annotated[str, typer.Option(help="title in Chinese")],
    title_en: Annotated[str, typer.Option(help="title in English")],
    contact: Annotated[str, typer.Option(help="mail address that answers questions")],
    attribute: Annotated[
        list[str] | None, typer.Option(help="name=value that row conditions may read, such as district=7")
    ] = None,
) -> None:
    """Enrol a department: its entry, its principal on the broker, its ACLs."""
    attributes = dict(map(_attribute, attribute or ()))
    body = {"id": name, "title": {"zh": title_zh, "en": title_en}, "contact": contact, "attributes": attributes}
    context.administrator().post("/v1/departments", body)
    console.print(f"department {name} is enrolled; `bus credentials {name}` shows how it connects")


def _attribute(text: str) -> tuple[str, Any]:
    """``name=value``: a number, true and false as such, anything else as text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"'{text}' is not name=value")
    try:
        return name, orjson.loads(value)
    except orjson.JSONDecodeError:
        return name, value


@departments.command("list")
def list_departments(as_json: Json = False) -> None:
    """All departments."""
    found = context.administrator().get("/v1/departments")
    if as_json:
        show_json(found)
        return
    rows = [(item["id"], item["title"].get("zh"), item["title"].get("en"), item["contact"]) for item in found]
    show_table("Departments", ("id", "zh", "en", "contact"), rows)


@contracts.command("check")
def check_contract(file: Path) -> None:
    """Check an .avsc file without registering it."""
    contract = parse_contract(read_schema(file))
    console.print(f"{contract.id}: {len(contract.fields)} fields, key {', '.join(contract.key)}: well formed")


@contracts.command("register")
def register_contract(
    file: Path,
    department: Annotated[
        str | None, typer.Option("--as", help="register as this department; else as administrator")
    ] = None,
) -> None:
    """Register a contract and its topic. An administrator also enrols a department that is not known yet."""
    schema = read_schema(file)
    contract = parse_contract(schema)
    api = context.department(department) if department else context.administrator()
    if department is None:
        _enrol_unknown(contract.department, contract.contact)
    body = {"schema": orjson.dumps(schema).decode()}
    answer = api.post(f"/registry/subjects/{contract.subject}/versions", body)
    console.print(f"{contract.id}: schema id {answer['id']}, topic {contract.topic}")


def _enrol_unknown(department: str, contact: str) -> None:
    api = context.administrator()
    if department not in {item["id"] for item in api.get("/v1/departments")}:
        title = {"zh": department, "en": department}
        api.post("/v1/departments", {"id": department, "title": title, "contact": contact})


@contracts.command("list")
def list_contracts(as_json: Json = False) -> None:
    """All contracts with owner and key."""
    found = context.administrator().get("/v1/contracts")
    if as_json:
        show_json(found)
        return
    rows = [
        (item["id"], item["owner"], ",".join(item["key"]), item["schema_id"], item["version"], item["retired"])
        for item in found
    ]
    show_table("Contracts", ("entity", "owner", "key", "schema id", "version", "retired"), rows)


@contracts.command("retire")
def retire_contract(
    entity: Annotated[str, typer.Argument(metavar="DEPARTMENT.ENTITY")],
    department: Annotated[
        str | None, typer.Option("--as", help="retire as this department; else as administrator")
    ] = None,
) -> None:
    """No new versions and no events from now on; refused while a view reads it. Topic and data stay."""
    api = context.department(department) if department else context.administrator()
    answer = api.post(f"/v1/contracts/{entity}/retire", {})
    console.print(f"{answer['id']} is retired: it takes no new versions and no events; its topic and data stay")


@grants.command("apply")
def apply_grants(file: Path) -> None:
    """Replace a set of grants by this file: all or nothing, in force when the command returns."""
    body = {"document": dates_as_text(read_yaml(file)), "os_user": getpass.getuser()}
    answer = context.administrator().put(f"/v1/grants/sets/{file.stem}", body)
    for what in ("added", "changed", "revoked"):
        for grant_id in answer[what]:
            console.print(f"{what:8} {grant_id}")
    if not any(answer[what] for what in ("added", "changed", "revoked")):
        console.print("nothing changed")
    console.print(answer["notice"])


@grants.command("list")
def list_grants(
    consumer: Annotated[str | None, typer.Option("--as", help="only those of this department")] = None,
    as_json: Json = False,
) -> None:
    """All grants, or one department's."""
    found = _all_grants(consumer)
    if as_json:
        show_json(found)
        return
    rows = [
        (item["id"], item["consumer"], item["view"], item["purpose"], ",".join(item["channels"]), item["valid"]["to"])
        for item in found
    ]
    show_table("Grants", ("id", "consumer", "view", "purpose", "channels", "until"), rows)


def _all_grants(consumer: str | None) -> list[dict[str, Any]]:
    """In portions, as the bus gives them."""
    api, found = context.administrator(), list[dict[str, Any]]()
    while page := api.get("/v1/grants", consumer=consumer, after=found[-1]["id"] if found else None, limit=PORTION):
        found += page
        if len(page) < PORTION:
            break
    return found


@grants.command("show")
def show_grant(
    grant_id: Annotated[str | None, typer.Argument()] = None,
    consumer: Annotated[str | None, typer.Option("--as", help="how this department uses each of its grants")] = None,
    as_json: Json = False,
) -> None:
    """One grant in full; with --as how a department connects: address, topic, group, schema, curl and Python."""
    if (grant_id is None) is (consumer is None):
        raise typer.BadParameter("name one grant, or a department with --as")
    if grant_id is not None:
        show_json(context.administrator().get(f"/v1/grants/{grant_id}"))
        return
    found = context.administrator().get("/v1/connections", consumer=consumer)
    if as_json:
        show_json(found)
        return
    for recipe in found:
        console.print(_recipe(recipe), markup=False, highlight=False, soft_wrap=True)
    if not found:
        console.print(f"no grant of {consumer} is in force")


def _recipe(recipe: Mapping[str, Any]) -> str:
    """One way to use a grant, to be pasted."""
    named = ("address", "topic", "group", "subject", "bootstrap_servers")
    facts = [f"{name:18}{recipe[name]}" for name in named if recipe[name]]
    title = f"{recipe['grant']}: {recipe['channel']} {recipe['view']} for {recipe['purpose']}"
    return "\n".join([title, *facts, "", recipe["curl"], "", recipe["python"]])


@grants.command("revoke")
def revoke_grant(
    grant_id: str,
    officer: Annotated[str, typer.Option(help="who takes it back")],
    reason: Annotated[str, typer.Option(help="why; it goes into the log")],
) -> None:
    """Take a grant back, at once."""
    context.administrator().post(f"/v1/grants/{grant_id}/revoke", {"officer": officer, "reason": reason})
    console.print(f"grant {grant_id} is revoked")
