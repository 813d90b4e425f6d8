"""How the command line speaks: tables for people, JSON for scripts, one line on stderr for what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bus.errors import InvalidDeclaration, InvalidSchema

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def show_json(value: Any) -> None:
    """One JSON document on stdout, unescaped and indented."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table; without a terminal, tab-separated lines that a script can cut."""
    if not console.is_terminal:
        lines = [columns, *rows]
        sys.stdout.write("".join("\t".join(_cell(value) for value in line) + "\n" for line in lines))
        return
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, Mapping | list | tuple):
        return orjson.dumps(value, default=str).decode()
    return str(value)


def read_yaml(path: Path) -> Any:
    """A YAML 1.2 document (``NO`` is text). Raises `InvalidDeclaration` with the place of the mistake."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidDeclaration(f"there is no file {path}", problems=[str(path)]) from error
    except (YAMLError, UnicodeDecodeError) as error:
        text = f"{path} is not YAML: {' '.join(str(error).split())}"
        raise InvalidDeclaration(text, problems=[text]) from error


def read_schema(path: Path) -> Any:
    """An ``.avsc`` document. Raises `InvalidSchema` with the place of the mistake."""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InvalidSchema(why=f"there is no file {path}.") from error
    except orjson.JSONDecodeError as error:
        raise InvalidSchema(why=f"{path}, line {error.lineno}: {error.msg}.") from error


def dates_as_text(doc: Any) -> Any:
    """YAML dates as ISO text, since the document travels as JSON."""
    if isinstance(doc, dict):
        return {str(name): dates_as_text(value) for name, value in doc.items()}
    if isinstance(doc, list):
        return [dates_as_text(value) for value in doc]
    return doc.isoformat() if hasattr(doc, "isoformat") else doc
