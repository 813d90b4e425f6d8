"""`bus views check` and what `apply` shows of a refusal: every problem at its file and line."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bus.cli import context
from bus.cli.located import read_located
from bus.cli.main import app
from bus.contracts.registry import Registry
from bus.errors import InvalidDeclaration
from bus.governance.declassification import Declassifications
from bus.infra.database import open_database
from bus.infra.stack.credentials import Secrets
from bus.infra.stack.opa import BUNDLE_KEY
from bus.sharing.client import Answered
from bus.views.catalogue import Declarations, shapes

SCHEMAS = Path(__file__).parents[2] / "schemas"
BAD = """\
# a comment counts as a line
view: premises
owner: market
key: [licence_number]
sources:
  licence:
    entity: market.business_licence
    rank:
      - term_start
      - licence_trm_id
  inspection: {entity: food.inspection}
lookups:
  ward_figures: {view: ward_hygiene, by: ward}
fields:
  ward: {from: licence.ward}
  legal_name: {from: licence.legal_name,
               class: open}
  dba: {from: licence.doing_busines_as, also_reported_by: [inspection.dba_nam]}
"""
FOUND = [
    (10, "Did you mean 'licence_term_id'?"),
    (13, "'ward_hygiene' is an aggregate"),
    (17, "data of market would leak"),
    (18, "Did you mean 'doing_business_as'?"),
    (18, "Did you mean 'dba_name'?"),
]


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bus runs in this home, so contracts come from files."""
    monkeypatch.setenv("BUS_HOME", str(tmp_path / "home"))
    for name in ("BUS_KAFKA", "BUS_OPA", "BUS_WEB_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    """A copy of the demo's schemas, to add files to."""
    return Path(shutil.copytree(SCHEMAS, tmp_path / "schemas"))


def check(*arguments: Path | str) -> tuple[int, list[str], Any]:
    """Exit code, lines on stdout, and what was raised."""
    result = CliRunner().invoke(app, ["views", "check", *map(str, arguments)])
    return result.exit_code, result.stdout.splitlines(), result.exception


def test_the_demos_views_are_sound() -> None:
    """All together, and one alone among its neighbours."""
    code, lines, _ = check(*sorted((SCHEMAS / "views").glob("*.yaml")))
    assert (code, len(lines)) == (0, 6)
    assert all("sound" in line for line in lines)
    assert check(SCHEMAS / "views" / "ward_hygiene.yaml")[0] == 0


def test_every_problem_at_its_line(schemas: Path) -> None:
    """In the order of lines, each with the nearest name or what to do; exit code 1."""
    file = schemas / "views" / "premises.yaml"
    file.write_text(BAD)
    code, lines, raised = check(file)
    assert code == 1
    assert [line.split(": ")[0] for line in lines] == [f"{file}:{number}" for number, _ in FOUND]
    for line, (_, text) in zip(lines, FOUND, strict=True):
        assert text in line
    assert isinstance(raised, InvalidDeclaration)
    assert str(schemas) in raised.detail


def test_files_that_refer_to_each_other(tmp_path: Path) -> None:
    """A view and one that looks it up, in one call; a circle, a missing one and a name given twice are told."""
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    view = "view: {}\nowner: food\nkey: [inspection_id]\nsources: {{i: {{entity: food.inspection}}}}\n"
    first.write_text(view.format("first") + "fields: {result: {from: i.result}}\n")
    second.write_text(view.format("second") + "lookups: {f: {view: first, by: inspection_id}}\n")
    folder = ("--schemas", SCHEMAS)
    assert check(second, first, *folder)[0] == 0
    assert "there is no view 'first'" in check(second, *folder)[1][0]
    assert "declared in another of these files" in "".join(check(first, first, *folder)[1])
    first.write_text(first.read_text() + "lookups: {s: {view: second, by: inspection_id}}\n")
    assert "first -> second -> first" in check(first, second, *folder)[1][0]


def test_a_change_that_breaks_a_neighbour(schemas: Path) -> None:
    """Whoever takes a column away is told which view needs it."""
    file = schemas / "views" / "complaint.yaml"
    kept = [line for line in file.read_text().splitlines() if "  ward:" not in line]
    file.write_text("\n".join(kept))
    code, lines, _ = check(file)
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith(f"{file}:1: ")
    assert "'ward_hygiene' reads it and would break" in lines[0]


def test_against_the_running_bus(schemas: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its contracts, its views and the declassifications in force decide, not what lies in the folder."""
    for name, value in (("KAFKA", "127.0.0.1:1"), ("OPA", "http://127.0.0.1:1"), ("WEB_PORT", "1")):
        monkeypatch.setenv(f"BUS_{name}", value)
    monkeypatch.setenv("BUS_DATABASE_URL", sqlite_url)
    engine = open_database(sqlite_url, "governance")
    registry, declarations = Registry(engine), Declarations(engine)
    for path in sorted(SCHEMAS.glob("*/*.avsc")):
        registry.register(json.loads(path.read_text()))
    document, _ = read_located(SCHEMAS / "views" / "food_business.yaml")
    declarations.apply(document, registry.contracts())
    file = schemas / "views" / "food_business.yaml"
    text = file.read_text().replace("{from: licence.legal_name,", "{from: licence.legal_name, class: open,")
    file.write_text(text)
    lines = check(file)[1]
    number = next(at for at, line in enumerate(text.splitlines(), 1) if "class: open" in line)
    assert [line.split(": ")[0] for line in lines] == [f"{file}:{number}"]
    key = Secrets(Path(os.environ["BUS_HOME"])).ensure_key(BUNDLE_KEY).read_bytes()
    columns = {column.name: column for column in shapes(declarations, registry.contracts())["food_business"].columns}
    Declassifications(engine, key, lambda _: None).apply(
        {
            "view": "food_business",
            "field": "legal_name",
            "source": "market.business_licence.legal_name",
            "from": "conditional",
            "to": "open",
            "legal_basis": "x",
            "officer": "a@market",
            "approver": "b@governance",
            "valid_until": dt.datetime.now(dt.UTC).date() + dt.timedelta(days=2),
        },
        lambda _: columns,
        os_user="root",
    )
    code, lines, _ = check(file)
    assert (code, lines) == (
        0,
        ["view food_business: sound, and no more open than its sources (against the running bus)"],
    )
    ward = schemas / "views" / "ward_hygiene.yaml"
    assert "there is no view 'complaint'" in check(ward)[1][0]


def test_without_contracts(tmp_path: Path) -> None:
    """It says where it looked and what to name."""
    file = tmp_path / "a.yaml"
    file.write_text("view: a\n")
    code, _, raised = check(file, "--schemas", tmp_path / "nothing")
    assert code == 1
    assert "--schemas" in raised.detail


def test_lines_of_a_document(tmp_path: Path) -> None:
    """Members by path, items of lists, dates as text; a file that is not YAML is refused with its place."""
    file = tmp_path / "a.yaml"
    file.write_text("a:\n  b: [x,\n      y]\n  c: 2026-01-01\n")
    assert read_located(file) == (
        {"a": {"b": ["x", "y"], "c": "2026-01-01"}},
        {"a": 1, "a.b": 2, "a.b.x": 2, "a.b.y": 3, "a.c": 4},
    )
    file.write_text("a: [\n")
    with pytest.raises(InvalidDeclaration, match="line 2"):
        read_located(file)
    file.write_text("")
    assert read_located(file) == (None, {})


class Refusing:
    """The administrator's API of a bus that refuses."""

    def put(self, path: str, body: Any) -> Any:
        assert (path, body["view"]) == ("/v1/declarations/premises", "premises")
        problems = ["fields.dba: no such field", "sources.licence: no rank"]
        raise Answered(
            {"detail": "2 problems", "problems": problems, "places": ["fields.dba.from", "sources.licence.rank.x"]}
        )


def test_a_refused_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the running bus refuses is shown at the lines of the file that was sent."""
    monkeypatch.setattr(context, "administrator", Refusing)
    file = tmp_path / "premises.yaml"
    file.write_text(BAD)
    result = CliRunner().invoke(app, ["views", "apply", str(file)])
    assert result.stdout.splitlines() == [
        f"{file}:8: sources.licence: no rank",
        f"{file}:18: fields.dba: no such field",
    ]
    assert isinstance(result.exception, InvalidDeclaration)
    assert "nothing was applied" in result.exception.detail
    file.write_text("view: 5\n")
    assert f"{file}:1: view: '5' is not an id" in CliRunner().invoke(app, ["views", "apply", str(file)]).stdout
