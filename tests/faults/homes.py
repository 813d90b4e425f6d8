"""A home with a local stack of its own, driven through the command line as a user would."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2

from bus.cli import demo, expected
from bus.cli.api import Api
from bus.cli.steps import Steps
from bus.errors import BusError
from bus.infra.stack.process import marked
from bus.settings import Settings
from bus.wiring.site import Site
from bus.wiring.viewing import view_rows
from tests.conftest import DOWNLOADS, ROOT, eventually

BUS = Path(sys.executable).with_name("bus")
FIGURES = {
    "food_business": 12_367,
    "complaint": 74_026,
    "inspection_history": 27_600,
    "weather_daily": 1_310,
    "ward_hygiene": 52,
}
"""The rows that the real data gives, known apart from any code."""


class Home:
    """One home. ``environment``: further settings of its processes."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BUS_")}
        self.environment = {**inherited, **environment, "BUS_HOME": str(folder), "TZ": "UTC"}
        self._url = environment.get("BUS_DATABASE_URL")
        for shared in ("bin", "lib"):
            (DOWNLOADS / shared).mkdir(parents=True, exist_ok=True)
            (folder / shared).symlink_to(DOWNLOADS / shared)

    @property
    def site(self) -> Site:
        return Site.find(Settings(home=self.folder, database_url=self._url))

    @property
    def api(self) -> Api:
        site = self.site
        return Api(site.web, lambda: site.token("governance", administrator=True))

    def bus(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs ``bus`` to its end."""
        return subprocess.run(
            [BUS, *arguments], env=self.environment, cwd=ROOT, capture_output=True, text=True, input=stdin, check=False
        )

    def up(self) -> None:
        done = self.bus("up")
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{self.logs()}"

    def declare(self) -> None:
        """Departments, contracts, views and grants, as the demo does it."""
        with Steps() as steps:
            demo._declare(self.site, self.api, steps)
            demo._grant(self.site, self.api, steps)

    def pid(self, part: str) -> int:
        """The process that is a part now; waits for one that is being started again."""
        eventually(lambda: part in self.site.processes, what=f"a process {part}")
        return self.site.processes[part]

    def kill(self, part: str) -> int:
        """SIGKILL; the process id that died."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGKILL)
        return pid

    def ready(self) -> bool:
        """Whether serve says that questions can be answered."""
        try:
            return httpx2.get(f"{self.site.web}/health/ready", timeout=2).status_code == 200
        except httpx2.TransportError:
            return False

    def ask(self, view: str = "food_business", department: str = "food", **params: str) -> httpx2.Response:
        """One question at the door."""
        site = self.site
        headers = {"Authorization": f"Bearer {site.token(department)}", "Purpose": "inspection_planning"}
        query = {"limit": "1", **params}
        return httpx2.get(f"{site.web}/v1/views/{view}", params=query, headers=headers, timeout=20)

    def verified(self) -> tuple[int, list[str]]:
        """How many rows differ from the independent fold, and what the demo's own verification says."""
        said = _Lines()
        try:
            demo._verify(self.site, self.api, said)
        except BusError as error:
            return self._wrong(), [*said.lines, error.detail]
        return 0, said.lines

    def _wrong(self) -> int:
        folded = expected.views(ROOT / "producers" / "data")
        return sum(len(expected.differences(rows, view_rows(self.site, name))) for name, rows in folded.items())

    def lost(self) -> int:
        """Keys of the input files that no view has."""
        keys = {"food_business": "licence_number", "complaint": "request_number", "inspection_history": "inspection_id"}
        folded = expected.views(ROOT / "producers" / "data")
        missing = 0
        for name, key in keys.items():
            there = {row[key] for row in view_rows(self.site, name)}
            missing += len({row[key] for row in folded[name]} - there)
        return missing

    def strays(self) -> list[int]:
        """Processes with this home in their environment that `bus down` would not stop."""
        known = {process.identity.pid for process in marked(self.folder)}
        return sorted(set(_with_home(self.folder)) - known - {os.getpid()})

    def processes(self) -> Counter[str]:
        """What runs of the stack, by part."""
        return Counter(process.part for process in marked(self.folder) if process.leader)

    def logs(self) -> str:
        found = sorted((self.folder / "log").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2_500:]}" for log in found)

    def remove(self) -> None:
        done = self.bus("down")
        left = _with_home(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert done.returncode == 0, done.stderr
        assert left == [], f"processes of {self.folder} that `bus down` left: {left}"


class _Lines(Steps):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text.strip())


def _with_home(folder: Path) -> list[int]:
    """Every process whose environment names the folder as its home."""
    wanted = f"BUS_HOME={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def all_verified(lines: list[str]) -> bool:
    """Whether a verification named every view with the rows that the data gives, and one event in quarantine."""
    text = "\n".join(lines)
    views = all(f"verified {view}: {rows:,} rows, every column equal" in text for view, rows in FIGURES.items())
    return views and "verified resident" in text and "verified quarantine: 1 event" in text


def seconds_until(holds: object, *, timeout_s: float = 60.0, what: str = "the condition") -> float:
    """Waits for a condition; how long it took."""
    begun = time.monotonic()
    eventually(holds, timeout_s=timeout_s, what=what)  # type: ignore[arg-type]
    return time.monotonic() - begun


def during(process: subprocess.Popen[str], every_s: float = 0.02) -> Iterator[float]:
    """Seconds since the call, again and again, while the process runs."""
    begun = time.monotonic()
    while process.poll() is None:
        yield time.monotonic() - begun
        time.sleep(every_s)
