"""The documents keep up with the code: what they name is there, and every setting is explained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from bus.cli.main import app
from bus.settings import Settings
from tests.conftest import ROOT

GUIDES = (ROOT / "docs" / "guide.en.md", ROOT / "docs" / "guide.zh.md")
DOCUMENTS = (
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "producers" / "data" / "README.md",
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link of a document is a file of the repository."""
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)#]+)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name}: {target}"


def _commands() -> list[str]:
    found = set()
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        found |= {match.strip() for match in re.findall(r"(?:^|`|/)bus ((?:[a-z]+ ?){1,2})", text, re.MULTILINE)}
    groups = {"departments", "contracts", "views", "grants", "quarantine", "audit", "policy"}
    return sorted({" ".join(name.split()[: 2 if name.split()[0] in groups else 1]) for name in found})


@pytest.mark.parametrize("command", _commands())
def test_every_command_in_a_document_exists(command: str) -> None:
    """Whatever a document tells people to type is a command, with a help text."""
    found: Any = typer.main.get_command(app)
    for word in command.split():
        assert word in found.commands, f"there is no `bus {command}`"
        found = getattr(found.commands[word], "loaded", found.commands[word])
    assert found.help


def test_the_operator_guide_names_every_setting_that_points_elsewhere() -> None:
    """The settings of outside systems and of the web address are in the guide."""
    text = GUIDES[0].read_text(encoding="utf-8")
    for name in Settings.model_fields:
        if (
            name.startswith(("kafka", "opa", "database", "bundle", "web_", "tls", "home"))
            and name != "kafka_replication"
        ):
            assert f"BUS_{name.upper()}" in text, name


def test_both_guides_have_the_same_sections() -> None:
    """Chinese is as complete as English: the same number of sections, commands and tables."""
    counts = [
        (text.count("\n## "), text.count("\n```"), len(re.findall(r"\n\|[-|]+\|", text)))
        for text in (guide.read_text(encoding="utf-8") for guide in GUIDES)
    ]
    (english_sections, _, _), (chinese_sections, _, _) = counts
    assert english_sections == chinese_sections
