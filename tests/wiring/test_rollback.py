"""``bus policy history | rollback`` on the databases of an installation, with the audit log of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bus.audit.log import AuditLog
from bus.cli.main import app
from bus.infra.database import open_database
from bus.settings import Settings
from bus.wiring.rules import signed_rules

POLICIES = Path(__file__).parents[2] / "policies"


def test_rules_are_taken_back_by_two_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle that serve gives out follows, the audit log has who did it, one person alone is refused."""
    policies = shutil.copytree(POLICIES, tmp_path / "policies")
    place = {"HOME": str(tmp_path), "DATABASE": f"sqlite:///{tmp_path / 'data'}", "POLICIES": str(policies)}
    for name, value in {**place, "KAFKA": "127.0.0.1:9", "OPA": "http://127.0.0.1:9", "WEB_PORT": "9"}.items():
        monkeypatch.setenv(f"BUS_{name}", value)
    settings = Settings()
    governance = open_database(settings.database, "governance")
    bundle = signed_rules(settings, governance, lambda _: None)
    first = bundle()
    assert bundle() == first
    (policies / "bus" / "views" / "resident.rego").unlink()
    second = bundle()
    assert second != first

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["policy", *words])
        return done.exit_code, done.output

    people = ["--author", "li.na", "--reason", "it was needed"]
    assert run("rollback", "1", *people, "--approver", "LI.NA")[0] != 0
    assert bundle() == second
    assert run("rollback", "1", *people, "--approver", "wang.wei")[0] == 0
    third = bundle()
    assert third not in (first, second)
    assert '"rollback_of": 1' in run("history", "--json")[1].replace('":1', '": 1')
    (entry,) = [entry.body for entry in AuditLog(governance).recent() if entry.body.get("kind") == "rules_rollback"]
    assert (entry["from"], entry["to"], entry["author"], entry["approver"]) == (2, 1, "li.na", "wang.wei")
    governance.dispose()
