"""``bus ask``: yes or no to a question that a view declares, about one row."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from bus.cli import context
from bus.cli.output import Json, console, show_json

WORDS: Final = {True: "yes", False: "no", None: "not known"}


def ask(  # noqa: PLR0917 (a command's options)
    view: str,
    question: str,
    key: Annotated[list[str], typer.Argument(help="each key column, as licence_number=20")],
    department: Annotated[str, typer.Option("--as", help="the asking department")],
    purpose: Annotated[str, typer.Option(help="what the answer is for")],
    officer: Annotated[str | None, typer.Option(help="the officer who asks")] = None,
    as_json: Json = False,
) -> None:
    """Ask a view a declared question about one row: yes or no, and not the record."""
    with context.query_client(department, officer) as client:
        said = client.ask(view, question, purpose=purpose, key=dict(_part(text) for text in key))
    if as_json:
        show_json({"view": view, "question": question, "answer": said.answer, "as_of": said.as_of})
        return
    console.print(f"{WORDS[said.answer]} (as of {said.as_of})")


def _part(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"'{text}' is not a key column such as licence_number=20", param_hint="KEY")
    return name, value
