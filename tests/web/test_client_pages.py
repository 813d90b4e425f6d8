"""`QueryClient` and `bus query`: every page, one after the other, and whole files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import httpx2
import pytest
from exported_world import give
from pyarrow import parquet
from served_world import World
from typer.testing import CliRunner

from bus.cli import context
from bus.cli.main import app
from bus.errors import Unavailable
from bus.sharing.client import Answered, QueryClient
from tests.conftest import free_port

VIEW = "food_business"


@pytest.fixture
def client(world: World) -> QueryClient:
    """The laboratory's client."""
    give(world, {"id": "whole"}, {"id": "many", "consumer": "food", "view": "complaint", "fields": ["request_number"]})
    assert world.parts.issuer is not None
    return QueryClient(world.url, lambda: world.parts.issuer.token("lab"))


def test_pages_come_one_after_the_other(client: QueryClient) -> None:
    """Each row once, in order; a refusal is raised when the first page is asked for."""
    pages = list(client.pages("sample", purpose="levy", limit=3, order="score.desc", select=["sample_id", "score"]))
    assert [len(page.rows) for page in pages] == [3, 3, 2]
    assert [row["score"] for page in pages for row in page.rows] == [None, 6.0, 5.0, 4.0, 3.0, 1.5, 0.0, -2.5]
    assert pages[0].next_cursor
    assert pages[-1].next_cursor is None
    with pytest.raises(Answered, match="may not read"):
        next(client.pages("sample", purpose="inspection_planning"))


def test_an_export_is_whole_or_not_there(client: QueryClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that broke off leaves what was there before."""
    file = tmp_path / "sample.parquet"
    assert client.export("sample", file, purpose="case_investigation", where={"score": "gt.0"}) == 5
    assert parquet.read_table(file).num_rows == 5
    assert client.export("sample", tmp_path / "s.csv", purpose="case_investigation", answer="csv") == 8

    def broken(self: httpx2.Response, chunk_size: int | None = None) -> object:
        yield b"PAR1"
        raise httpx2.RemoteProtocolError("peer closed connection without sending complete message body")

    with monkeypatch.context() as patched:
        patched.setattr(httpx2.Response, "iter_bytes", broken)
        with pytest.raises(Unavailable):
            client.export("sample", file, purpose="case_investigation")
    assert parquet.read_table(file).num_rows == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.csv", "sample.parquet"]
    with pytest.raises(Answered, match="export"):
        client.export("sample", file, purpose="levy")
    with QueryClient(f"http://127.0.0.1:{free_port()}", lambda: "none") as nobody, pytest.raises(Unavailable):
        nobody.export("sample", file, purpose="levy")


def test_the_command_pages_and_exports(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--all` in every format, `--export -o` as a file."""
    assert world.parts.issuer is not None
    monkeypatch.setattr(
        context, "query_client", lambda name, _=None: QueryClient(world.url, lambda: world.parts.issuer.token(name))
    )
    give(world, {"id": "many", "consumer": "food", "view": "complaint", "fields": ["request_number"]})

    def run(*arguments: str) -> str:
        file = tmp_path / "out"  # the server of this process writes its log to standard output
        result = CliRunner().invoke(app, ["query", *arguments, "-o", str(file)])
        assert result.exit_code == 0, result.output
        return file.read_bytes().decode()

    numbers = [VIEW, "--as", "food", "--purpose", "inspection_planning", "--select", "licence_number"]
    paged = [*numbers, "--order", "ward", "--limit", "90", "--all", "--format"]
    assert len(json.loads(run(*paged, "json"))) == 400
    assert len(list(csv.reader(io.StringIO(run(*paged, "csv"))))) == 401
    assert len(run(*paged, "ndjson").splitlines()) == 400
    assert len(json.loads(run(*numbers, "--limit", "7", "--format", "json"))) == 7
    table = CliRunner().invoke(app, ["query", *paged, "table"]).stdout
    assert len([line for line in table.splitlines() if line.isdigit()]) == 400
    asked = ["complaint", "--as", "food", "--purpose", "case_investigation", "--export", "--format"]
    assert len(run(*asked, "csv").splitlines()) == 2_001
    assert CliRunner().invoke(app, ["query", *asked, "csv"]).stdout.count("\n0000") == 2_000
    assert CliRunner().invoke(app, ["query", *asked, "json"]).exit_code == 2
