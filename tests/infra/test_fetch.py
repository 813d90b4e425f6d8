"""Where Java, Kafka's jars and OPA come from, and what is said where they cannot be had."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bus.errors import SetupError
from bus.infra.stack import LocalStack
from bus.infra.stack.fetch import Downloads
from bus.infra.stack.process import Identity
from tests.conftest import DOWNLOADS, ROOT, eventually

WAYS_OUT = ("install", "docker compose up", "point BUS_")


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it; the folder it names is returned, to put programs there."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


@pytest.fixture
def empty(tmp_path: Path) -> Downloads:
    """Nothing was fetched yet."""
    return Downloads(tmp_path / "downloads", lambda _: None)


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def assert_names_the_ways_out(error: SetupError, setting: str) -> None:
    assert all(way in error.detail for way in WAYS_OUT)
    assert setting in error.detail


def test_without_maven(empty: Downloads, bare_machine: Path) -> None:
    """No Maven: the three ways out are named."""
    with pytest.raises(SetupError, match="Maven") as caught:
        empty.kafka_jars()
    assert_names_the_ways_out(caught.value, "BUS_KAFKA")


def test_without_opa_and_go(empty: Downloads, bare_machine: Path) -> None:
    """Neither OPA nor Go: the three ways out are named."""
    with pytest.raises(SetupError, match="Go") as caught:
        empty.opa()
    assert_names_the_ways_out(caught.value, "BUS_OPA")


def test_without_java_and_pip(empty: Downloads, bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither Java nor pip: the three ways out are named."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SetupError, match="Java 17") as caught:
        empty.java()
    assert_names_the_ways_out(caught.value, "BUS_KAFKA")


def test_up_says_so_and_starts_nothing(tmp_path: Path, bare_machine: Path) -> None:
    """`up` on such a machine is refused as a whole, before anything is started."""
    stack = LocalStack(tmp_path / "home", kafka=False)
    with pytest.raises(SetupError):
        stack.up()
    assert stack.state() is None


def test_old_java_is_passed_over(empty: Downloads, bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Java 8 or 11 on PATH is not taken; JAVA_HOME with a newer one is."""
    program(bare_machine, "java", """echo 'openjdk version "1.8.0_392"' >&2""")
    newer = bare_machine / "jdk" / "bin"
    newer.mkdir(parents=True)
    java = program(newer, "java", """echo 'openjdk version "21.0.1" 2023-10-17' >&2""")
    monkeypatch.setenv("JAVA_HOME", str(bare_machine / "jdk"))
    assert empty.java() == java


def test_java_on_path_is_taken(empty: Downloads, bare_machine: Path) -> None:
    """Java 17 on PATH is good enough."""
    java = program(bare_machine, "java", """echo 'openjdk version "17.0.15" 2025-04-15' >&2""")
    assert empty.java() == java


def test_old_opa_is_passed_over(empty: Downloads, bare_machine: Path) -> None:
    """An OPA before 1.22 on PATH is as good as none."""
    program(bare_machine, "opa", "echo 'Version: 1.4.2'")
    with pytest.raises(SetupError):
        empty.opa()
    newer = program(bare_machine, "opa", "echo 'Version: 1.23.0'")
    assert empty.opa() == newer


def test_failing_maven_is_quoted(empty: Downloads, bare_machine: Path) -> None:
    """A Maven that fails is quoted, and what it left half done is not taken for Kafka."""
    program(bare_machine, "mvn", "echo 'Could not transfer artifact'; exit 1")
    for _ in range(2):
        with pytest.raises(SetupError, match="Could not transfer artifact"):
            empty.kafka_jars()
    assert not (empty.root / "lib" / "kafka").exists()


def test_what_was_fetched_is_not_fetched_again(bare_machine: Path) -> None:
    """With the jars in place nothing of Maven is needed."""
    told: list[str] = []
    jars = Downloads(DOWNLOADS, told.append).kafka_jars()
    assert any(path.name.startswith("kafka_2.13-4.1") for path in jars.glob("*.jar"))
    assert told == []


def test_interrupted_fetching_leaves_no_process(tmp_path: Path, bare_machine: Path) -> None:
    """Ctrl-C while something is fetched ends what fetches it, and the next attempt begins anew."""
    pid_file = tmp_path / "pid"
    program(bare_machine, "mvn", f"echo $$ > {pid_file}; exec {sys.executable} -c 'import time; time.sleep(600)'")
    script = "from pathlib import Path; from bus.infra.stack.fetch import Downloads; "
    script += f"Downloads(Path({str(tmp_path)!r}), print)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"{script}.kafka_jars()"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as fetching:
        eventually(lambda: pid_file.exists() and pid_file.read_text().strip())
        fetching.send_signal(signal.SIGINT)
        assert fetching.wait(30) != 0
    assert Identity.of(int(pid_file.read_text())) is None
    assert not (tmp_path / "lib" / "kafka").exists()
