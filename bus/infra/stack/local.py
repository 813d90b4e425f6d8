"""The local stack as its users hold it: prepare, up, down, state."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bus.errors import BrokerUnavailable, SetupError
from bus.infra.connection import KafkaConnection
from bus.infra.stack import supervisor
from bus.infra.stack.credentials import Secrets
from bus.infra.stack.fetch import Downloads, Progress
from bus.infra.stack.files import locked, private_folder
from bus.infra.stack.kafka import ADMINISTRATOR, KafkaNode
from bus.infra.stack.opa import OPA_TOKEN, OpaServer
from bus.infra.stack.plan import Part, Plan, Program
from bus.infra.stack.ports import LOOPBACK, Ports, answers
from bus.infra.stack.process import SUPERVISOR, Identity, marked, stop
from bus.infra.stack.state import Record, StackState

_READY_S = 90.0
_FAILED_STARTS = 4
_LOG_LINES = 5


class LocalStack:
    """Kafka, OPA and `programs` on this machine, with everything that they keep under `home`.

    `kafka` and `opa` say whether that part is ours; leave out what is configured from outside. `web_port` 0 chooses a
    free port at first start and keeps it. `downloads` is where Kafka's jars and OPA are kept (default: `home`), so
    that several homes can share them. `progress` gets one line of text at a time.
    """

    def __init__(
        self,
        home: Path,
        *,
        programs: Sequence[Program] = (),
        kafka: bool = True,
        opa: bool = True,
        web_port: int = 0,
        downloads: Path | None = None,
        progress: Progress = lambda _: None,
    ) -> None:
        self.home = home.resolve()
        self.secrets = Secrets(self.home)
        self._programs = tuple(programs)
        self._kafka = kafka
        self._opa = opa
        self._web_port = web_port
        self._downloads = downloads or self.home
        self._progress = progress

    def prepare(self) -> None:
        """Fetch what is missing: minutes at first, nothing later. Raises SetupError naming the ways out."""
        self._fetch()

    def up(self) -> StackState:
        """Start what is missing and return when everything is ready; harmless when it is.

        Interrupted or failing, it stops what it started. Raises SetupError if a part cannot be started.
        """
        fetched = self._fetch()
        with locked(self._run_folder / "up.lock"):
            fresh = not marked(self.home)
            try:
                plan = self._plan(*fetched)
                self._supervise(plan)
                return self._await_ready(plan)
            except BaseException:
                if fresh or not self._supervisors():
                    with _undisturbed():
                        self._stop()
                raise

    def down(self) -> list[str]:
        """Stop exactly what was started, and return the names of what ran; harmless when nothing does."""
        with locked(self._run_folder / "up.lock"):
            return self._stop()

    def state(self) -> StackState | None:
        """What runs now; None if nothing does."""
        record = Record.read(self._run_folder / "state.json")
        return record.state() if record else None

    def kafka_connection(self, principal: str = ADMINISTRATOR) -> KafkaConnection:
        """How `principal` reaches the local Kafka. Raises SetupError if the stack is not up."""
        state = self.state()
        if state is None or state.kafka is None:
            raise SetupError(why="its Kafka does not run", ways_out="`bus up`; or point BUS_KAFKA at yours")
        return self._connection(state.kafka, principal)

    @property
    def _run_folder(self) -> Path:
        return self.home / "run"

    def _connection(self, bootstrap: str, principal: str) -> KafkaConnection:
        return KafkaConnection(bootstrap=bootstrap, username=principal, password=self.secrets.kafka_password(principal))

    def _fetch(self) -> tuple[Path | None, Path | None, Path | None]:
        """Java, Kafka's jars, OPA; None for what is not ours."""
        downloads = Downloads(self._downloads, self._progress)
        with locked(downloads.root / "fetch.lock", timeout_s=1_800):
            java, jars = (downloads.java(), downloads.kafka_jars()) if self._kafka else (None, None)
            return java, jars, downloads.opa() if self._opa else None

    def _plan(self, java: Path | None, jars: Path | None, opa: Path | None) -> Plan:
        """Choose the ports, write the configurations, and say what shall run."""
        private_folder(self._run_folder)
        running = {process.part for process in marked(self.home)}
        ports = Ports(self._run_folder / "ports.json")
        web_runs = any(program.listens and program.name in running for program in self._programs)
        web_port = ports.take("web", ours=web_runs, wanted=self._web_port)
        web = f"http://{LOOPBACK}:{web_port}"
        parts: list[Part] = []
        if java and jars:
            numbers = [ports.take(name, ours="kafka" in running) for name in ("kafka", "kafka_controller")]
            node = KafkaNode(self.home, java, jars, numbers[0], numbers[1])
            parts.append(self._kafka_part(node))
        if opa:
            server = OpaServer(self.home, opa, ports.take("opa", ours="opa" in running), web)
            parts.append(server.part(server.configure(self.secrets)))
        listening = {part.name: part.port for part in parts}
        addresses = {
            "kafka": f"{LOOPBACK}:{listening['kafka']}" if "kafka" in listening else None,
            "opa": f"http://{LOOPBACK}:{listening['opa']}" if "opa" in listening else None,
        }
        # a program may wait for another program too: the worker's password is set by serve
        listening |= {program.name: web_port for program in self._programs if program.listens}
        words = {"home": str(self.home), "web_port": str(web_port), "web": web} | addresses
        parts += [_program_part(program, words, listening, web_port) for program in self._programs]
        return Plan(str(self.home), tuple(parts), web, addresses["kafka"], addresses["opa"])

    def _kafka_part(self, node: KafkaNode) -> Part:
        part = node.part(node.configure(self.secrets))
        if not node.formatted:
            # without the mark it never ran, so there is nothing in it that anybody could miss
            shutil.rmtree(node.data, ignore_errors=True)
            _run_bounded(node.format_argv(self.secrets))
            node.mark_formatted()
        return part

    def _supervisors(self) -> list[Identity]:
        return [process.identity for process in marked(self.home) if process.part == SUPERVISOR]

    def _supervise(self, plan: Plan) -> None:
        """See to it that a supervisor runs with exactly this plan."""
        ours = [process for process in marked(self.home) if process.part == SUPERVISOR]
        if ours and all(process.digest == plan.digest for process in ours):
            return
        self._dismiss_supervisor()
        self._progress(f"starting {', '.join(part.name for part in plan.parts) or 'nothing'} ...")
        supervisor.start(plan)

    def _dismiss_supervisor(self) -> None:
        """End the supervisor and leave its parts running."""
        supervisors = self._supervisors()
        for process in supervisors:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGUSR1)
        deadline = time.monotonic() + 3.0
        while any(process.alive() for process in supervisors) and time.monotonic() < deadline:
            time.sleep(0.02)
        stop(supervisors, grace_s=0.0)
        for process in supervisors:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)

    def _stop(self) -> list[str]:
        self._dismiss_supervisor()
        names = supervisor.stop_parts(self.home)
        (self._run_folder / "state.json").unlink(missing_ok=True)
        return names

    def _await_ready(self, plan: Plan) -> StackState:
        begun = time.monotonic()
        waiting = {part.name: self._probe(part, plan) for part in plan.parts}
        why = "its supervisor did not start"
        while time.monotonic() < begun + _READY_S:
            state = self._state_of(plan)
            if state is not None:
                waiting = {name: ready for name, ready in waiting.items() if not _is_ready(state, name, ready)}
                if not waiting:
                    return state
                why = f"{', '.join(waiting)} did not become ready"
                if any(state.starts.get(name, 0) >= _FAILED_STARTS for name in waiting):
                    break
            time.sleep(0.05)
        raise SetupError(why=f"{why}{self._last_words(waiting)}", ways_out=self._ways_out())

    def _state_of(self, plan: Plan) -> StackState | None:
        record = Record.read(self._run_folder / "state.json")
        if record is None or record.plan != plan.digest or not record.supervisor.alive():
            return None
        return record.state()

    def _probe(self, part: Part, plan: Plan) -> Callable[[], bool]:
        if part.name == "kafka":
            return lambda: answers(part.port) and self._kafka_answers(str(plan.kafka))
        if part.name == "opa":
            return lambda: answers(part.port) and self._opa_answers(str(plan.opa))
        own = next(program.ready for program in self._programs if program.name == part.name)
        return own or (lambda: part.port == 0 or answers(part.port))

    def _kafka_answers(self, bootstrap: str) -> bool:
        from bus.infra.kafka import Admin  # late: kafka-python takes a while to load, and most commands only look

        try:
            Admin(self._connection(bootstrap, ADMINISTRATOR), timeout_s=5.0).close()
        except BrokerUnavailable:
            return False
        return True

    def _opa_answers(self, url: str) -> bool:
        headers = {"Authorization": f"Bearer {self.secrets.token(OPA_TOKEN)}"}
        request = urllib.request.Request(f"{url}/health", headers=headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=2.0) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _last_words(self, names: Mapping[str, object]) -> str:
        said = []
        for name in names:
            log = self.home / "log" / f"{name}.log"
            lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:] if log.exists() else []
            said.append(f" [{log}: {' / '.join(lines) or 'empty'}]")
        return "".join(said)

    def _ways_out(self) -> str:
        return f"read the logs in {self.home / 'log'}; or `docker compose up`; or point BUS_KAFKA and BUS_OPA at yours"


def _is_ready(state: StackState, name: str, ready: Callable[[], bool]) -> bool:
    if name not in state.processes:
        return False
    try:
        return ready()
    except OSError:
        return False


def _program_part(
    program: Program, words: Mapping[str, str | None], listening: Mapping[str, int], web_port: int
) -> Part:
    return Part(
        name=program.name,
        argv=tuple(_fill(argument, words) for argument in program.argv),
        env=tuple(sorted((key, _fill(value, words)) for key, value in program.env.items())),
        port=web_port if program.listens else 0,
        after=tuple(listening[name] for name in program.after if name in listening),
    )


def _fill(text: str, words: Mapping[str, str | None]) -> str:
    """Replace the words in braces; whatever else stands in braces (JSON, say) stays as it is."""
    for word, value in words.items():
        text = text.replace("{" + word + "}", value or "")
    return text


def _run_bounded(argv: Sequence[str]) -> None:
    """Run a short command to its end. Raises SetupError with its last words if it fails."""
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    if process.returncode != 0:
        why = f"Kafka's data folder could not be formatted: {output.decode(errors='replace')[-500:]}"
        raise SetupError(why=why, ways_out="read the message; or `docker compose up`; or point BUS_KAFKA at yours")


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold back further Ctrl-C while cleaning up."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
