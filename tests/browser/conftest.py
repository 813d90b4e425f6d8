"""A real Chromium on a served world."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

for room in ("web", "access"):
    sys.path.append(str(Path(__file__).parents[1] / room))

from served_world import World, served  # noqa: E402 - its folder is put on the path above

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def portal(opa_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The served world as a demonstration, so that the portal offers "ask as"."""
    folder = tmp_path_factory.mktemp("portal")
    with served(f"sqlite:///{folder / 'data'}", opa_binary, folder / "opa") as world:
        yield world


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Chromium from BUS_CHROMIUM or PATH; closed after the module, since Playwright keeps an event loop running."""
    program = os.environ.get("BUS_CHROMIUM") or shutil.which("chromium")
    if program is None:
        pytest.fail("Chromium is missing: scripts/test installs it, or BUS_CHROMIUM names it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()
