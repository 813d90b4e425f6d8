"""One throw-away PostgreSQL from Debian's binaries."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opa_process import free_port

BINARIES = Path("/usr/lib/postgresql/15/bin")


@contextmanager
def running_postgresql() -> Iterator[str]:
    """The URL of an empty database that forgets everything, on loopback."""
    folder = Path(tempfile.mkdtemp(prefix="pg-access-"))
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(folder, "postgres")
    data, port = folder / "data", free_port()

    def run(*argv: str) -> None:
        subprocess.run([*user, *argv], check=True, stdout=subprocess.DEVNULL, cwd="/")

    try:
        run(str(BINARIES / "initdb"), "-D", str(data), "-A", "trust", "-U", "bus", "-E", "UTF8", "--no-sync")
        options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off -c max_connections=50"
        run(str(BINARIES / "pg_ctl"), "-D", str(data), "-o", options, "-l", str(folder / "log"), "-w", "start")
        try:
            yield f"postgresql://bus@127.0.0.1:{port}/postgres"
        finally:
            run(str(BINARIES / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
