"""The supervisor: one process of its own session that starts what is missing and restarts what dies.

It reads its plan from standard input. SIGTERM stops the whole stack; SIGUSR1 ends only the supervisor and leaves the
parts running for the next one, which takes over every process that still fits its plan.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from bus.errors import BusError
from bus.infra.stack.files import locked, private_folder
from bus.infra.stack.plan import Part, Plan
from bus.infra.stack.ports import answers
from bus.infra.stack.process import SUPERVISOR, Identity, Marked, marked, marks, stop
from bus.infra.stack.state import Record

_TICK_S = 0.2
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_STEADY_S = 30.0
"""A part that ran this long was well: its next end starts again with the shortest pause."""
_LOG_BYTES = 20 * 2**20
_INFRASTRUCTURE = frozenset({"kafka", "opa"})
_GRACE_S = 15.0


class Keeper:
    """Keeps one part running."""

    def __init__(self, part: Part, home: Path) -> None:
        self.part = part
        self.process: Identity | None = None
        self.starts = 0
        self._home = home
        self._log = home / "log" / f"{part.name}.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._started = 0.0
        self._not_before = 0.0

    def adopt(self, process: Identity) -> None:
        """Take over a process that a former supervisor started."""
        self.process = process
        self._started = time.monotonic()

    def tend(self, now: float) -> bool:
        """Start the part if it is due; true if anything changed. `now` is monotonic seconds."""
        changed = self._notice_end(now)
        if self.process is None and now >= self._not_before and all(answers(port) for port in self.part.after):
            self._start(now)
            changed = True
        if self._log.exists() and self._log.stat().st_size > _LOG_BYTES:
            _roll(self._log)
        return changed

    def _notice_end(self, now: float) -> bool:
        if self._child is not None:
            self._child.poll()  # collects the zombie
        if self.process is None or self.process.alive():
            return False
        code = None if self._child is None else self._child.returncode
        if now - self._started > _STEADY_S:
            self._pause_s = _FIRST_PAUSE_S
        _say(f"{self.part.name} (process {self.process.pid}) ended with {code}; again in {self._pause_s:.1f} s")
        self._not_before = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self.process = self._child = None
        return True

    def _start(self, now: float) -> None:
        environment = {**os.environ, **dict(self.part.env), **marks(self._home, self.part.name, self.part.digest)}
        self._started = now
        try:
            with self._log.open("ab") as log:
                self._child = subprocess.Popen(
                    self.part.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            _say(f"{self.part.name} cannot be started: {error}")
            self._not_before = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            return
        self.process = Identity.of(self._child.pid)
        self.starts += 1
        _say(f"{self.part.name} started as process {self._child.pid}")


class Supervisor:
    """Keeps the parts of one plan running until it is told to end."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._home = Path(plan.home)
        self._keepers = [Keeper(part, self._home) for part in plan.parts]
        self._told: signal.Signals | None = None
        self._wake_read, self._wake_write = os.pipe()

    def run(self) -> None:
        """Supervise; returns when told to end, with the stack stopped if the signal says so."""
        self._listen()
        self._take_over()
        self._record()
        recorded = True
        while self._told is None:
            try:
                recorded = self._tend() and recorded
                if not recorded:
                    self._record()
                    recorded = True
            except OSError as error:  # a full disk, say: the parts matter more than the record of them
                recorded = False
                _say(f"going on after: {error}")
            self._sleep()
        _say(f"ending on {self._told.name}")
        if self._told is not signal.SIGUSR1:
            stop_parts(self._home)
            self._path.unlink(missing_ok=True)

    def _tend(self) -> bool:
        """See to every part; true if nothing changed."""
        now = time.monotonic()
        return not [keeper.part.name for keeper in self._keepers if keeper.tend(now)]

    def _listen(self) -> None:
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only so that it wakes us

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._told = signal.Signals(number)

    def _sleep(self) -> None:
        select.select([self._wake_read], [], [], _TICK_S)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 512)

    def _take_over(self) -> None:
        """Keep what fits the plan, stop every other process that carries our mark."""
        leaders = {(process.part, process.digest): process for process in marked(self._home) if process.leader}
        for keeper in self._keepers:
            fitting = leaders.pop((keeper.part.name, keeper.part.digest), None)
            if fitting is not None:
                keeper.adopt(fitting.identity)
                _say(f"{keeper.part.name} goes on as process {fitting.identity.pid}")
        kept = {(keeper.part.name, keeper.part.digest) for keeper in self._keepers if keeper.process}
        strangers = [process.identity for process in _parts(self._home) if (process.part, process.digest) not in kept]
        stop(strangers, _GRACE_S)

    @property
    def _path(self) -> Path:
        return self._home / "run" / "state.json"

    def _record(self) -> None:
        processes = {keeper.part.name: keeper.process for keeper in self._keepers if keeper.process}
        me = Identity.of(os.getpid())
        assert me is not None  # noqa: S101
        plan = self._plan
        starts = {keeper.part.name: keeper.starts for keeper in self._keepers}
        Record(plan.web, plan.kafka, plan.opa, plan.digest, me, processes, starts).write(self._path)


def stop_parts(home: Path) -> list[str]:
    """Stop every process of the stack at `home` except supervisors; return the names of the parts that ran.

    What uses Kafka and OPA goes first, so that it can say goodbye to them. Raises BusError if anything stays.
    """
    found = _parts(home)
    stop([process.identity for process in found if process.part not in _INFRASTRUCTURE], _GRACE_S)
    for _ in range(3):  # again for what a dying part may have started meanwhile
        stop([process.identity for process in _parts(home)], _GRACE_S)
    if remaining := _parts(home):
        raise BusError(f"these processes do not end: {[process.identity.pid for process in remaining]}")
    return sorted({process.part for process in found})


def _parts(home: Path) -> list[Marked]:
    return [process for process in marked(home) if process.part != SUPERVISOR]


def start(plan: Plan) -> int:
    """Start a supervisor for `plan` in a session of its own; return its process id.

    It ends by itself if it does not get the whole plan.
    """
    home = Path(plan.home)
    private_folder(home / "log")
    private_folder(home / "run")
    environment = {**os.environ, **marks(home, SUPERVISOR, plan.digest), "PYTHONPATH": _python_path()}
    # the plan goes through a pipe, since it may hold secrets
    reader, writer = os.pipe()
    log = os.open(home / "log" / "supervisor.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        redirect = [(os.POSIX_SPAWN_DUP2, source, target) for source, target in ((reader, 0), (log, 1), (log, 2))]
        argv = [sys.executable, "-m", __package__]
        pid = os.posix_spawn(sys.executable, argv, environment, file_actions=redirect, setsid=True)
    except BaseException:
        os.close(writer)
        raise
    finally:
        os.close(reader)
        os.close(log)
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(plan.to_json().encode())
    return pid


def _python_path() -> str:
    package_root = str(Path(__file__).resolve().parents[3])
    return os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH", "")]))


def _roll(log: Path) -> None:
    """Keep the last log beside the current one; the writer goes on in its open file, which is now short."""
    shutil.copyfile(log, log.with_suffix(".log.1"))
    os.truncate(log, 0)


def _say(text: str) -> None:
    """One line for ``supervisor.log``, which is this process's standard output."""
    with contextlib.suppress(OSError):  # the same full disk must not end the supervisor
        sys.stdout.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")
        sys.stdout.flush()


def main() -> None:
    """Read the plan from standard input and supervise it."""
    plan = Plan.from_json(sys.stdin.read())
    with locked(Path(plan.home) / "run" / "supervisor.lock", timeout_s=30.0):
        Supervisor(plan).run()
