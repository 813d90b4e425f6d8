"""What is measured: the bus as it runs (Kafka, OPA and serve as processes), and a PostgreSQL, on loopback."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import orjson
import psycopg

from benchmarks import data
from bus.access.identity import Issuer
from bus.cli.api import Api
from bus.contracts.registry_client import RegistryClient
from bus.infra.kafka import Admin, KafkaConnection
from bus.infra.stack import LocalStack, Program
from bus.publishing.publisher import Publisher
from bus.wiring.site import ISSUER_KEY

ROOT = Path(__file__).resolve().parents[1]
_READY_S = 60.0
Place = tuple[str, int]


class World:
    """One running bus with the two contracts of the figures; its folder goes when it is closed."""

    def __init__(self, downloads: Path, say: Callable[[str], None]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bus-bench-"))
        self.home = self.folder / "home"
        command = (sys.executable, "-m", "bus.cli", "serve")
        environment = {"BUS_HOME": "{home}", "BUS_WEB_PORT": "{web_port}", "BUS_KAFKA": "{kafka}", "BUS_OPA": "{opa}"}
        environment |= {"TZ": "UTC", "PYTHONPATH": str(ROOT)}
        serve = Program("serve", command, environment, ready=self._serving, after=("kafka",), listens=True)
        self.stack = LocalStack(self.home, programs=(serve,), downloads=downloads, progress=say)
        self.postgresql: Postgresql | None = None
        self.published: tuple[list[dict[str, Any]], list[dict[str, Any]]] | None = None

    def __enter__(self) -> World:
        try:
            state = self.stack.up()
            self.web, self.bootstrap, self.opa = str(state.web), str(state.kafka), str(state.opa)
            self._declare()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops what was started here and removes its data."""
        self.stack.down()
        if self.postgresql is not None:
            self.postgresql.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def database(self) -> str:
        """The served bus's own databases."""
        return f"sqlite:///{self.home / 'data'}"

    @property
    def kafka(self) -> KafkaConnection:
        return self.stack.kafka_connection()

    def token(self, department: str, *, administrator: bool = False) -> str:
        issuer = Issuer(self.stack.secrets.ensure_key(ISSUER_KEY).read_bytes())
        return issuer.token(department, administrator=administrator, lifetime_s=900)

    @property
    def api(self) -> Api:
        """The administrator's."""
        return Api(self.web, lambda: self.token("governance", administrator=True))

    def registry(self) -> RegistryClient:
        return RegistryClient(f"{self.web}/registry", lambda: self.token(data.DEPARTMENT))

    def publisher(self) -> Publisher:
        """The department's own, as producers hold it; whatever is refused would be missing work."""

        def refuse(entries: Sequence[Any]) -> None:
            raise AssertionError(f"{len(entries)} records were refused, first {entries[0].reasons}")

        connection = self.stack.kafka_connection(data.DEPARTMENT)
        return Publisher(data.DEPARTMENT, connection=connection, registry=self.registry(), quarantine=refuse)

    def events(self, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Licence terms and inspections in their topics, ``count`` events each (as many as the first caller says)."""
        if self.published is None:
            found = data.licences(count), data.inspections(count)
            with self.publisher() as publisher:
                publisher.publish_many("licence", found[0])
                publisher.publish_many("inspection", found[1])
            self.published = found
        return self.published

    def ends(self, topic: str) -> dict[Place, int]:
        with Admin(self.kafka) as admin:
            return admin.end_offsets([topic])

    def schema_id(self, entity: str) -> int:
        return max(self.registry().ids(entity))

    def pg(self) -> Postgresql:
        """A PostgreSQL, started at first use."""
        self.postgresql = self.postgresql or Postgresql()
        return self.postgresql

    def fresh(self, kind: str) -> str:
        """The URL of an empty database: `sqlite` or `postgresql`."""
        if kind == "postgresql":
            return self.pg().fresh()
        return f"sqlite:///{self.folder / uuid.uuid4().hex}"

    def grant(self, view: str, fields: Sequence[str]) -> None:
        """What the reader may see of a view: half of its wards, one column masked, no limit in the way."""
        today = dt.datetime.now(dt.UTC).date()
        document = {
            "set": "bench",
            "author": "li.na@governance",
            "approver": "wang.wei@governance",
            "grants": [
                {
                    "id": "bench-reader",
                    "consumer": data.READER,
                    "view": view,
                    "purpose": data.PURPOSE,
                    "channels": ["query"],
                    "fields": list(fields),
                    "masks": {"legal_name": {"keep_first": 3}},
                    "rows": {
                        "all": [
                            {"field": "ward", "op": "gte", "value": 1},
                            {"field": "ward", "op": "lte", "value": data.WARDS // 2},
                        ]
                    },
                    "valid": {"from": today.isoformat(), "to": (today + dt.timedelta(days=2)).isoformat()},
                    "limits": {"per_minute": 10_000_000, "rows": 1_000},
                    "legal_basis": "none: made-up records",
                }
            ],
        }
        self.api.put("/v1/grants/sets/bench", {"document": document, "os_user": "bench"})

    def _declare(self) -> None:
        api = self.api
        for name in (data.DEPARTMENT, data.READER):
            contact = f"data@{name}.example"
            api.post("/v1/departments", {"id": name, "title": {"zh": name, "en": name}, "contact": contact})
        purpose = {"id": data.PURPOSE, "title": {"zh": "测量", "en": "Measuring"}, "legal_basis": "none"}
        api.post("/v1/purposes", purpose)
        for schema in data.SCHEMAS:
            subject = f"dept.{data.DEPARTMENT}.{schema['name'].lower()}-value"
            api.post(f"/registry/subjects/{subject}/versions", {"schema": orjson.dumps(schema).decode()})

    def _serving(self) -> bool:
        state = self.stack.state()
        try:
            return state is not None and httpx2.get(f"{state.web}/health/ready", timeout=2).status_code == 200
        except httpx2.TransportError:
            return False


class Postgresql:
    """A PostgreSQL of our own with its default durability. It refuses to run as root, so root hands it over."""

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
        initdb = str(found[-1]) if found else shutil.which("initdb")
        if initdb is None:
            raise SystemExit("PostgreSQL's binaries are missing: scripts/test installs them")
        self._bin = Path(initdb).resolve().parent
        self._folder = Path(tempfile.mkdtemp(prefix="bus-bench-pg-", dir="/tmp"))
        if os.geteuid() == 0:
            self._folder.chmod(0o755)
            shutil.chown(self._folder, "postgres", "postgres")
        self.port = free_port()
        self._run("initdb", "-D", self._data, "-U", "bus", "--auth=trust", "--locale=C.UTF-8")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' "
        options += "-c shared_buffers=256MB -c max_wal_size=4GB"
        self._run("pg_ctl", "-D", self._data, "-l", str(self._folder / "log"), "-o", options, "-w", "start")

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def url(self, database: str) -> str:
        return f"postgresql://bus@127.0.0.1:{self.port}/{database}"

    def fresh(self) -> str:
        name = f"bench_{uuid.uuid4().hex[:10]}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
            connection.execute("CHECKPOINT")
        return self.url(name)

    def drop(self, url: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            name = url.rpartition("/")[2]
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def close(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        # pg_ctl's server inherits pipes, so its output goes to a file that nobody waits for
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(command, stdout=output, stderr=output, cwd="/", check=False)
            output.seek(0)
            if done.returncode != 0:
                raise RuntimeError(output.read().decode())


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def child(
    module: str, given: dict[str, Any], *, timeout_s: float = 300.0, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Runs a module with JSON in its argument; the JSON of its last line. Raises with its last words if it fails.
    ``environment``: beside this process's own."""
    command = [sys.executable, "-m", module, orjson.dumps(given).decode()]
    told = {**os.environ, "TZ": "UTC", **(environment or {})}
    done = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{module} failed: {done.stderr[-2_000:] or done.stdout[-2_000:]}")
    # terminal escapes of a peer's library may stand before it
    lines = [line[line.index('{"') :] for line in done.stdout.splitlines() if '{"' in line]
    if not lines:
        raise RuntimeError(f"{module} said nothing: {done.stdout[-2_000:]} {done.stderr[-2_000:]}")
    found: dict[str, Any] = orjson.loads(lines[-1])
    return found


@contextlib.contextmanager
def served(command: Sequence[str], url: str, folder: Path) -> Iterator[None]:
    """A peer's web server, from when it answers until the block ends."""
    with (folder / f"{uuid.uuid4().hex}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, "TZ": "UTC"})
        try:
            _await_answer(url, process)
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)


def _await_answer(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(url, timeout=5).status_code < 500:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} does not serve")
        time.sleep(0.05)
