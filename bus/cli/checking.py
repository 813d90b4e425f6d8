"""``bus views check | apply | declassify``: declarations with every mistake at its line, and how open views may be."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bus.cli import context
from bus.cli.files import read_yaml
from bus.cli.located import read_located, refuse
from bus.cli.output import Json, console, show_json, show_table
from bus.core import names
from bus.core.declarations import problems_of, read_view
from bus.core.problems import Lines, Problems, numbered
from bus.core.views import View
from bus.errors import InvalidDeclaration, SetupError
from bus.sharing.client import Answered
from bus.wiring.site import Site

if TYPE_CHECKING:
    from bus.wiring.declared import Declared


def check_views(
    files: Annotated[list[Path], typer.Argument(help="declarations; they may refer to each other")],
    schemas: Annotated[
        Path | None, typer.Option(help="check against the contracts in this folder, not those of the running bus")
    ] = None,
) -> None:
    """Check views without applying them: every problem at its line, against the running bus or the schemas folder."""
    from bus.views.shapes import check_declared

    known = _known(files[0], schemas)
    read = [(file, *_read(file)) for file in files]
    given = [(view, problems) for _, view, problems, _ in read]
    _refuse_twice(given)
    check_declared(known.views, given, known.contracts, known.lowered, sound=known.sound)
    found = [
        line
        for file, _, problems, lines in read
        for line in numbered(problems.found, problems.places, lines, str(file))
    ]
    refuse(found, f"checked against {known.where}")
    for view, _ in given:
        console.print(f"view {view.name}: sound, and no more open than its sources (against {known.where})")


def _read(file: Path) -> tuple[View, Problems, Lines]:
    document, lines = read_located(file)
    problems = problems_of(document)
    return read_view(document, problems), problems, lines


def _refuse_twice(given: list[tuple[View, Problems]]) -> None:
    seen = set[str]()
    for view, problems in given:
        if view.name in seen:
            problems.add("view", f"'{view.name}' is declared in another of these files too")
        seen.add(view.name)


def _known(file: Path, schemas: Path | None) -> Declared:
    """The running bus, else the folder that is named, or is called `schemas` and holds the file, or is in this one."""
    from bus.wiring.declared import declared_here, declared_in

    if schemas is None:
        try:
            return declared_here(Site.find())
        except SetupError:
            above = (folder for folder in file.resolve().parents if folder.name == "schemas")
            schemas = next(above, Path("schemas"))
    if not schemas.is_dir():
        raise InvalidDeclaration(f"the bus does not run here and there is no folder {schemas}: name it with --schemas.")
    return declared_in(schemas, read_yaml)


def apply_view(file: Path) -> None:
    """Declare or change a view; running workers build it. A refusal names every problem at its line."""
    document, lines = read_located(file)
    name = document.get("view") if isinstance(document, dict) else None
    if not names.is_id(name):
        problems = problems_of(document)
        read_view(document, problems)
        refuse(numbered(problems.found, problems.places, lines, str(file)), "nothing was applied")
    try:
        answer = context.administrator().put(f"/v1/declarations/{name}", document)
    except Answered as error:
        refuse(_numbered(error.document, lines, file), "nothing was applied")
        raise
    console.print(f"view {name}: {'applied' if answer['changed'] else 'unchanged'}")


def _numbered(problem: Mapping[str, Any], lines: Lines, file: Path) -> list[str]:
    """The lines of a refusal over HTTP; none where it is about something else than the document."""
    problems, places = problem.get("problems"), problem.get("places")
    if not isinstance(problems, list) or not isinstance(places, list) or len(problems) != len(places):
        return []
    return numbered([str(text) for text in problems], [str(place) for place in places], lines, str(file))


def declassify(file: Path) -> None:
    """Let one column show one field more openly than its contract does, signed, until a day."""
    document, lines = read_located(file)
    body = {"document": document, "os_user": getpass.getuser()}
    try:
        answer = context.administrator().post("/v1/declassifications", body)
    except Answered as error:
        refuse(_numbered(error.document, lines, file), "nothing was declassified")
        raise
    console.print(f"declassification {answer['id']}: {document['view']}.{document['field']} is {document['to']}")
    console.print(answer["notice"])


def list_declassifications(as_json: Json = False) -> None:
    """All declassifications, and whether each is in force."""
    found = context.administrator().get("/v1/declassifications")
    if as_json:
        show_json(found)
        return
    stated = ("to", "officer", "valid_until", "state")
    rows = [
        (item["id"], f"{item['view']}.{item['field']}", item["source"], *(item.get(name) for name in stated))
        for item in found
    ]
    show_table("Declassifications", ("id", "column", "shows", "as", "officer", "until", "state"), rows)


def reclassify(
    number: Annotated[str, typer.Argument(metavar="ID")],
    officer: Annotated[str, typer.Option(help="who takes it back")],
    reason: Annotated[str, typer.Option(help="why; it goes into the log")],
) -> None:
    """Take a declassification back, at once: the column is as guarded as its sources again."""
    context.administrator().post(f"/v1/declassifications/{number}/revoke", {"officer": officer, "reason": reason})
    console.print(f"declassification {number} is revoked")
