"""The local stack survives what happens to processes, ports and files, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.errors import SetupError
from bus.infra.kafka import Admin
from bus.infra.stack import LocalStack, Program, StackState
from bus.infra.stack.ports import is_free
from bus.infra.stack.process import Identity, marked
from tests.conftest import DOWNLOADS, ROOT, eventually

SERVER = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "{web_port}")
IDLE = (sys.executable, "-c", "import time; time.sleep(600)")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home whose processes are gone after the test, whatever it did."""
    yield tmp_path / "home"
    LocalStack(tmp_path / "home", kafka=False, opa=False).down()
    assert marked(tmp_path / "home") == []


def light(home: Path, *programs: Program, web_port: int = 0) -> LocalStack:
    """A stack of small programs: the same supervisor, up in a moment."""
    return LocalStack(home, programs=programs, kafka=False, opa=False, web_port=web_port)


def web() -> Program:
    return Program("serve", SERVER, listens=True)


def running(stack: LocalStack) -> StackState:
    state = stack.state()
    assert state is not None
    return state


def kill(pid: int) -> None:
    """SIGKILL, and wait until it is dead."""
    identity = Identity.of(pid)
    assert identity is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not identity.alive())


def test_up_twice_is_harmless_and_down_stops_exactly_that(home: Path) -> None:
    """The second `up` finds the same processes; `down` names what it stopped, once."""
    stack = light(home, web(), Program("worker", IDLE))
    first, second = stack.up(), light(home, web(), Program("worker", IDLE)).up()
    assert first.processes == second.processes
    assert first.supervisor == second.supervisor
    assert stack.down() == ["serve", "worker"]
    assert stack.state() is None
    assert [pid for pid in first.processes.values() if Identity.of(pid)] == []
    assert stack.down() == []


def test_address_stays_over_restarts(home: Path) -> None:
    """Ports are chosen once: links and client settings stay right after `down` and `up`."""
    stack = light(home, web())
    before = stack.up().web
    stack.down()
    assert stack.up().web == before


def test_killed_program_is_started_again(home: Path) -> None:
    """What dies comes back as a new process, and the record says so."""
    stack = light(home, web())
    old = stack.up().processes["serve"]
    kill(old)
    eventually(lambda: running(stack).processes.get("serve") not in (None, old))
    assert running(stack).starts["serve"] == 2


def test_killed_supervisor_is_replaced_without_touching_the_parts(home: Path) -> None:
    """After kill -9 of the supervisor its parts run on, and the next `up` adopts them."""
    stack = light(home, web())
    before = stack.up()
    kill(before.supervisor)
    after = stack.up()
    assert after.processes == before.processes
    assert after.supervisor not in (0, before.supervisor)
    kill(after.processes["serve"])
    eventually(lambda: running(stack).processes.get("serve") not in (None, before.processes["serve"]))


def test_down_without_supervisor_and_without_record(home: Path) -> None:
    """Even with the supervisor killed and its record lost, `down` finds every process of the stack."""
    stack = light(home, web(), Program("worker", IDLE))
    state = stack.up()
    kill(state.supervisor)
    (home / "run" / "state.json").unlink()
    assert stack.down() == ["serve", "worker"]
    assert is_free(int(state.web.rpartition(":")[2]))


def test_supervisor_goes_on_without_its_folder(home: Path) -> None:
    """If nothing can be written down, what dies is started again all the same."""
    stack = light(home, web())
    old = stack.up().processes["serve"]
    shutil.rmtree(home / "run")
    kill(old)
    eventually(lambda: [found for found in marked(home) if found.part == "serve" and found.identity.pid != old])
    assert stack.up().processes.keys() == {"serve"}


def test_stale_record_names_nobody(home: Path) -> None:
    """A record whose numbers now belong to somebody else's processes is neither believed nor acted upon."""
    stack = light(home, Program("worker", IDLE))
    stack.up()
    stack.down()
    with subprocess.Popen(IDLE) as bystander:
        identity = Identity.of(bystander.pid)
        assert identity is not None
        stale = {"pid": bystander.pid, "start": identity.start - 1}
        record = {"web": "", "kafka": None, "opa": None, "plan": "", "starts": {}}
        record |= {"supervisor": stale, "processes": {"worker": stale}}
        (home / "run" / "state.json").write_text(json.dumps(record))
        assert stack.state() is None
        assert stack.up().processes["worker"] != bystander.pid
        assert stack.down() == ["worker"]
        assert bystander.poll() is None
        bystander.kill()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"supervisor": 1}', "null"])
def test_damaged_record_is_as_good_as_none(home: Path, content: str) -> None:
    """A record that cannot be read is no state, and does not stand in the way."""
    (home / "run").mkdir(parents=True)
    (home / "run" / "state.json").write_text(content)
    assert light(home).state() is None
    assert light(home, Program("worker", IDLE)).up().processes.keys() == {"worker"}


def test_port_that_somebody_took_is_left_to_him(home: Path) -> None:
    """If another program has our recorded port, the stack moves and writes the new one down."""
    stack = light(home, web())
    before = stack.up().web
    stack.down()
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(before.rpartition(":")[2])))
        other.listen()
        moved = stack.up().web
        assert moved != before
        stack.down()
    assert stack.up().web == moved


def test_wanted_web_port_is_kept(home: Path) -> None:
    """An operator's own port is used as it is."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert light(home, web(), web_port=port).up().web == f"http://127.0.0.1:{port}"


def test_changed_program_is_restarted_alone(home: Path) -> None:
    """A program whose environment changed starts anew; its neighbour is not touched."""
    first = light(home, web(), Program("worker", IDLE)).up()
    second = light(home, web(), Program("worker", IDLE, env={"BATCH": "2"})).up()
    assert second.processes["serve"] == first.processes["serve"]
    assert second.processes["worker"] != first.processes["worker"]
    assert Identity.of(first.processes["worker"]) is None


def test_removed_program_is_stopped(home: Path) -> None:
    """A program that is no longer in the stack ends with the next `up`."""
    first = light(home, web(), Program("worker", IDLE)).up()
    second = light(home, web()).up()
    assert second.processes.keys() == {"serve"}
    eventually(lambda: Identity.of(first.processes["worker"]) is None)


def test_program_that_cannot_run_is_an_error_with_its_last_words(home: Path) -> None:
    """A program that dies again and again ends `up` with what it said, and nothing keeps running."""
    broken = Program("worker", (sys.executable, "-c", "raise SystemExit('no such table')"), ready=lambda: False)
    with pytest.raises(SetupError, match="no such table"):
        light(home, web(), broken).up()
    assert marked(home) == []


def test_stubborn_program_is_killed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ignores SIGTERM is killed when its time is over, with the processes it started."""
    monkeypatch.setattr("bus.infra.stack.supervisor._GRACE_S", 0.5)
    script = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); time.sleep(600)"
    )
    stack = light(home, Program("worker", (sys.executable, "-c", script)))
    stack.up()
    eventually(lambda: len([process for process in marked(home) if process.part == "worker"]) == 2)
    assert stack.down() == ["worker"]
    assert marked(home) == []


def _up_in_a_process(home: Path) -> subprocess.Popen[str]:
    """`up` of a server that is never ready, as a command would run it."""
    code = (
        "import sys; from pathlib import Path; from bus.infra.stack import LocalStack, Program; "
        f"server = Program('serve', {SERVER!r}, listens=True, ready=lambda: False); "
        f"LocalStack(Path({str(home)!r}), programs=[server], kafka=False, opa=False).up()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_during_up_leaves_no_process(home: Path) -> None:
    """Interrupted while it waits, `up` takes back what it started."""
    with _up_in_a_process(home) as command:
        eventually(lambda: any(process.part == "serve" for process in marked(home)))
        command.send_signal(signal.SIGINT)
        assert command.wait(30) != 0
    assert marked(home) == []
    assert light(home, web()).up().processes.keys() == {"serve"}


def test_two_at_once_start_one_stack(home: Path) -> None:
    """Two `up` at the same moment end with one supervisor and one process of each part."""
    code = (
        "from pathlib import Path; from bus.infra.stack import LocalStack, Program; "
        f"print(LocalStack(Path({str(home)!r}), programs=[Program('serve', {SERVER!r}, listens=True)], "
        "kafka=False, opa=False).up().processes)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=60)[0] for process in both]
    assert answers[0] == answers[1]
    assert answers[0]
    assert sorted(process.part for process in marked(home)) == ["serve", "supervisor"]


def test_secrets_and_configuration_are_private(home: Path) -> None:
    """Nothing with a secret in it can be read by others, and the first value stays."""
    stack = light(home)
    values = stack.secrets.kafka_password("market"), stack.secrets.token("opa")
    key = stack.secrets.ensure_key("bundle").read_bytes()
    again = LocalStack(home).secrets
    assert (again.kafka_password("market"), again.token("opa")) == values
    assert again.ensure_key("bundle").read_bytes() == key
    assert (home / "secrets").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (home / "secrets").iterdir()} == {0o600}


@pytest.mark.parametrize("name", ["../opa", "", "A", "a/b", "a\x00"])
def test_secret_names_are_no_paths(home: Path, name: str) -> None:
    """A department's name cannot reach another file."""
    with pytest.raises(ValueError, match="cannot name a secret"):
        light(home).secrets.kafka_password(name)


@pytest.mark.fault
def test_real_kafka_survives_a_kill_and_a_stolen_port(home: Path) -> None:
    """Kafka killed with -9 is back with its topics; with its port taken meanwhile it moves."""
    stack = LocalStack(home, opa=False, downloads=DOWNLOADS)
    state = stack.up()
    with Admin(stack.kafka_connection()) as admin:
        admin.ensure_topic("kept")
    kill(state.processes["kafka"])
    eventually(lambda: _topics(stack) == {"kept"}, timeout_s=40)
    stack.down()
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(str(state.kafka).rpartition(":")[2])))
        other.listen()
        assert stack.up().kafka != state.kafka
        assert _topics(stack) == {"kept"}
        stack.down()


def _topics(stack: LocalStack) -> set[str]:
    with contextlib.suppress(Exception), Admin(stack.kafka_connection(), timeout_s=2) as admin:
        return admin.topics()
    return set()


def test_log_is_rolled(home: Path) -> None:
    """A log that grows past its bound is kept once and starts anew, while its writer goes on."""
    script = "import time\nprint('x' * 22_000_000, flush=True)\nwhile True: print('tick', flush=True); time.sleep(0.05)"
    light(home, Program("worker", (sys.executable, "-c", script))).up()
    log, rolled = home / "log" / "worker.log", home / "log" / "worker.log.1"
    eventually(lambda: rolled.exists() and log.stat().st_size < 1_000_000)
    assert rolled.stat().st_size > 20_000_000
    eventually(lambda: log.read_text().endswith("tick\n"))
