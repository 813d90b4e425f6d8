"""A whole demo on a home of its own, run once; the tests here look at it as a user would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DOWNLOADS, ROOT

BUS = Path(sys.executable).with_name("bus")


@dataclass
class Demo:
    """The running demo, and its command line."""

    home: Path
    output: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def bus(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs ``bus`` with these arguments, to its end."""
        return subprocess.run(
            [BUS, *arguments], env=self.environment, cwd=ROOT, capture_output=True, text=True, input=stdin, check=False
        )

    def json(self, *arguments: str) -> Any:
        """The JSON that a command prints; it must succeed."""
        done = self.bus(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """`bus demo` from nothing, and everything stopped afterwards."""
    home = Path(tempfile.mkdtemp(prefix="bus-demo-"))
    for shared in ("bin", "lib"):
        (DOWNLOADS / shared).mkdir(parents=True, exist_ok=True)
        (home / shared).symlink_to(DOWNLOADS / shared)
    running = Demo(home, environment={**os.environ, "BUS_HOME": str(home), "TZ": "UTC"})
    done = running.bus("demo")
    running.output = done.stdout
    try:
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{_logs(home)}"
        yield running
    finally:
        running.bus("down")
        shutil.rmtree(home, ignore_errors=True)


def _logs(home: Path) -> str:
    logs = sorted((home / "log").glob("*.log"))
    return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)
