"""Commands are loaded when they are run; lists of them show what they say of themselves."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer

from bus.cli.commands import COMMANDS, VIEWS
from bus.cli.later import Later
from bus.cli.main import app
from bus.cli.views import views

HEAVY = {"sqlalchemy", "pyarrow", "kafka", "faust", "fastapi", "httpx2", "pydantic", "joserfc", "ruamel.yaml"}


def standing(group: typer.Typer, names: set[str]) -> list[Later]:
    """What stands for the commands of a group."""
    found: Any = typer.main.get_command(group)
    return [command for name, command in found.commands.items() if name in names]


@pytest.mark.parametrize("later", standing(app, set(COMMANDS)) + standing(views, set(VIEWS)), ids=lambda one: one.name)
def test_a_list_shows_the_first_line_of_a_commands_own_help(later: Later) -> None:
    """The table of lines cannot tell another story than the command."""
    said = later.loaded.help.partition("\n\n")[0]
    assert " ".join(said.split()) == later.help
    assert later.loaded.name == later.name


def loaded_by(code: str) -> set[str]:
    """The modules of a fresh interpreter after that."""
    script = f"import sys\n{code}\nprint('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_loads_no_command() -> None:
    """What there is can be asked without paying for any of it."""
    assert not loaded_by("from bus.cli.main import app\napp(['--help'], standalone_mode=False)") & HEAVY


def test_the_processes_do_not_load_each_other() -> None:
    """A worker speaks no HTTP and draws no page."""
    found = loaded_by("import bus.cli.processes, bus.wiring.worker")
    assert "faust" in found
    assert not found & {"fastapi", "httpx2", "bus.wiring.server", "bus.wiring.stack"}
