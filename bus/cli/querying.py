"""``bus query``: a view asked as a department, exactly as its own system would."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from bus.cli import context
from bus.cli.output import errors, show_table
from bus.sharing.client import QueryClient

DEPARTMENT = typer.Option("--as", help="the asking department")


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


FILES = (Format.CSV, Format.NDJSON, Format.PARQUET)


def query(  # noqa: PLR0917 (a command's options)
    view: str,
    department: Annotated[str, DEPARTMENT],
    purpose: Annotated[str, typer.Option(help="what the data is for")],
    select: Annotated[str | None, typer.Option(help="columns, comma-separated")] = None,
    where: Annotated[list[str] | None, typer.Option(help="a filter such as ward=eq.20; repeatable")] = None,
    order: Annotated[str | None, typer.Option(help="such as ward.desc")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="rows at most; with --all: in one page")] = None,
    as_of: Annotated[str | None, typer.Option(help="history views: as known then (RFC 3339, or a date)")] = None,
    valid_at: Annotated[str | None, typer.Option(help="history views: what held then")] = None,
    officer: Annotated[str | None, typer.Option(help="the officer who asks")] = None,
    output: Annotated[Format, typer.Option("--format", help="how to print")] = Format.TABLE,
    every: Annotated[bool, typer.Option("--all", help="every page, one after the other")] = False,
    export: Annotated[bool, typer.Option(help="all rows as a file; needs the channel export")] = False,
    file: Annotated[Path | None, typer.Option("-o", help="where to write; left out: standard output")] = None,
) -> None:
    """Ask a view as a department, exactly as its own system would."""
    question: dict[str, Any] = {
        "purpose": purpose,
        "select": tuple(select.split(",")) if select else (),
        "where": [_filter(text) for text in where or ()],
        "order": order,
        "limit": limit,
        "as_of": as_of,
        "valid_at": valid_at,
    }
    with context.query_client(department, officer) as client:
        if export or output is Format.PARQUET:
            _export(client, view, question, output, file)
            return
        answer = "json" if output is Format.TABLE else output.value
        ask = client.raw_pages if every else _once(client)
        _print(f"{view} as {department}", ask(view, answer=answer, **question), output, file, question["select"])


def _once(client: QueryClient) -> Any:
    def ask(view: str, **question: Any) -> Iterable[httpx2.Response]:
        yield client.raw(view, **question)

    return ask


def _export(client: QueryClient, view: str, question: Mapping[str, Any], output: Format, file: Path | None) -> None:
    if output not in FILES:
        raise typer.BadParameter(f"an export is one of {', '.join(FILES)}", param_hint="--format")
    if file is not None:
        rows = client.export(view, file, answer=output.value, **question)
    elif output is Format.PARQUET and sys.stdout.isatty():
        raise typer.BadParameter("Parquet is no text: name a file with -o", param_hint="--format")
    else:
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "export"
            rows = client.export(view, part, answer=output.value, **question)
            with part.open("rb") as whole:
                while chunk := whole.read(1 << 20):
                    sys.stdout.buffer.write(chunk)
    errors.print(f"{rows} rows")


def _print(
    title: str, pages: Iterable[httpx2.Response], output: Format, file: Path | None, columns: tuple[str, ...]
) -> None:
    if output is not Format.TABLE:
        with file.open("wb") if file is not None else nullcontext(sys.stdout.buffer) as target:
            for part in _joined(pages, output):
                target.write(part)
        return
    rows: list[dict[str, Any]] = []
    for response in pages:
        rows += response.json()
    shown = list(rows[0]) if rows else list(columns)
    show_table(title, shown, [[row[name] for name in shown] for row in rows])
    masked, freshness = response.headers.get("Masked-Columns"), response.headers.get("Data-Freshness", "")
    errors.print(f"{len(rows)} rows; masked: {masked or 'nothing'}; seconds behind the source: {freshness or '–'}")


def _joined(pages: Iterable[httpx2.Response], output: Format) -> Iterator[bytes]:
    """The pages as they came, as one document: of CSV the header line once, of JSON one array."""
    for number, response in enumerate(pages):
        content = response.content
        if output is Format.JSON:
            inside = content[1:-1]
            yield (b"," if number and inside else b"" if number else b"[") + inside
        else:
            yield content.partition(b"\r\n")[2] if number and output is Format.CSV else content
    if output is Format.JSON:
        yield b"]"


def _filter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"'{text}' is not a filter such as ward=eq.20", param_hint="--where")
    return name, value
