"""What tests share: real services, started once a run, and fresh databases cloned in milliseconds.

Nothing here is imported by the product. Each test gets its own database and topic names of its own, so
tests never wait for each other's clean-up.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from bus.infra.kafka import Admin, KafkaConnection
from bus.infra.stack import LocalStack, StackState
from bus.infra.stack.fetch import Downloads
from tests.faults.figures import Line, table

ROOT = Path(__file__).resolve().parents[1]
DOWNLOADS = ROOT / ".bus"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell gives its background jobs so, and so would we
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["TZ"] = "UTC"
time.tzset()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full-length", action="store_true", help="faults in full length, as `make faults` runs them")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole stacks come first: they take longest and look at the clock; those that share one come after those that have
    one of their own, so that not more run at a time than need to."""
    items.sort(key=lambda item: (not _is_stack(item.path), "stack" in getattr(item, "fixturenames", ())))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """For several processes: one takes all whole stacks, so that each is set up once; the other files go as wholes to
    whichever is free. (Marks for `--dist loadgroup` go unread since pytest 9.2.)"""
    return ByStack(config, log)


class ByStack(LoadScopeScheduling):
    """Tests that need a stack are one scope, every other file is one."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "stacks" if _is_stack(ROOT / path) else path


@cache
def _is_stack(path: Path) -> bool:
    folder = path.relative_to(ROOT / "tests").parts[0]
    return folder in ("demo", "browser") or (folder == "faults" and "Home" in path.read_text(encoding="utf-8"))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(FaultTable(), "fault-table")


class FaultTable:
    """What the faults' tests measured, whichever process ran them, as a table at the end."""

    def __init__(self) -> None:
        self._lines: list[Line] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._lines += [Line(**dict(value)) for name, value in report.user_properties if name == "fault"]  # type: ignore[call-overload]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._lines:
            terminalreporter.section("faults")
            for line in table(self._lines):
                terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def full_length(request: pytest.FixtureRequest) -> bool:
    """Whether faults run in full length (`make faults`) or in their short form (`make test`)."""
    return bool(request.config.getoption("--full-length"))


def eventually(holds: Callable[[], object], *, timeout_s: float = 30.0, what: str = "the condition") -> None:
    """Waits for a condition; the time-out is generous, since it only bounds a failure."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come to hold in {timeout_s} s"
        time.sleep(0.02)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def unique(prefix: str) -> str:
    """A name that no other test uses."""
    return f"{prefix}_{uuid.uuid4().hex[:8]}"


def _postgresql_binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    if initdb is None:
        pytest.fail("PostgreSQL's binaries are missing: scripts/test installs them")
    return Path(initdb).resolve().parent


class Cluster:
    """A PostgreSQL of our own on loopback. It refuses to run as root, so root hands it to ``postgres``."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._bin = _postgresql_binaries()
        if os.geteuid() == 0:
            folder.chmod(0o755)
            shutil.chown(folder, "postgres", "postgres")
        self._run("initdb", "-D", self.data, "-U", "bus", "--auth=trust", "--no-sync", "--locale=C.UTF-8")
        self.start()

    @property
    def data(self) -> str:
        return str(self._folder / "data")

    def url(self, database: str) -> str:
        return f"postgresql://bus@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        options += " -c max_connections=200 -c shared_buffers=128MB"
        self._run("pg_ctl", "-D", self.data, "-l", str(self._folder / "log"), "-o", options, "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        # pg_ctl's server inherits pipes, so its output goes to a file that nobody waits for
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(command, stdout=output, stderr=output, cwd="/", check=False)
            output.seek(0)
            assert done.returncode == 0, output.read().decode()


@pytest.fixture(scope="session")
def postgresql_cluster() -> Iterator[Cluster]:
    """One PostgreSQL for the whole run, in a folder that its own user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="bus-pg-", dir="/tmp"))
    cluster = Cluster(folder)
    yield cluster
    cluster.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgresql_url(postgresql_cluster: Cluster) -> Iterator[str]:
    """A fresh database, cloned from the template, dropped afterwards."""
    name = unique("test")
    with psycopg.connect(postgresql_cluster.url("postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" STRATEGY FILE_COPY')
    yield postgresql_cluster.url(name)
    with psycopg.connect(postgresql_cluster.url("postgres"), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A fresh folder of SQLite files."""
    return f"sqlite:///{tmp_path / 'data'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The same test on both databases."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(scope="session")
def opa_binary() -> Path:
    """OPA from PATH or as the stack builds it."""
    return Downloads(DOWNLOADS, progress=print).opa()


@pytest.fixture(scope="session")
def broker_stack() -> Iterator[LocalStack]:
    """A Kafka of the run's own, with the bus's security settings, on ports of its own."""
    folder = Path(tempfile.mkdtemp(prefix="bus-test-"))
    stack = LocalStack(folder, opa=False, downloads=DOWNLOADS)
    stack.up()
    yield stack
    stack.down()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(broker_stack: LocalStack) -> KafkaConnection:
    """The bus's own connection to the run's Kafka."""
    return broker_stack.kafka_connection()


@pytest.fixture(scope="session")
def kafka_admin(kafka: KafkaConnection) -> Iterator[Admin]:
    """The administrator of the run's Kafka."""
    admin = Admin(kafka)
    yield admin
    admin.close()


@pytest.fixture(scope="session")
def broker_state(broker_stack: LocalStack) -> StackState:
    """Addresses and processes of the run's Kafka."""
    state = broker_stack.state()
    assert state is not None
    return state
