"""Processes of this machine: who they are beyond a number that the kernel uses again, which are ours, how they end.

Every process of a stack carries the stack's home in its environment (`MARK`), so that what belongs to the stack can
be found in ``/proc`` even if no file says so: a killed supervisor leaves no process that `down` does not know.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

MARK = "BUS_STACK_HOME"
MARK_PART = "BUS_STACK_PART"
MARK_DIGEST = "BUS_STACK_DIGEST"
SUPERVISOR = "supervisor"
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Identity:
    """A process id with its start time (clock ticks since boot): together never used twice."""

    pid: int
    start: int

    @staticmethod
    def of(pid: int) -> Identity | None:
        """The process that has this id now; None if there is none, or only a zombie."""
        try:
            text = (_PROC / str(pid) / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # the program's name stands in parentheses and may contain anything, also ")"
        fields = text[text.rindex(")") + 2 :].split()
        return None if fields[0] in "ZX" else Identity(pid, int(fields[19]))

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return Identity.of(self.pid) == self


@dataclass(frozen=True, slots=True)
class Marked:
    """A process that belongs to a stack: which part it is, and of which plan."""

    identity: Identity
    part: str
    digest: str
    leader: bool  # of its session: the part itself, not a child of it


def marks(home: Path, part: str, digest: str) -> dict[str, str]:
    """The environment that makes a process recognisable as `part` of the stack at `home`."""
    return {MARK: str(home), MARK_PART: part, MARK_DIGEST: digest}


def marked(home: Path) -> list[Marked]:
    """Every living process of the stack at `home`, except the caller and its ancestors."""
    own = _ancestry(os.getpid())
    pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    found = (_marked(pid, str(home)) for pid in pids if pid not in own)
    return [process for process in found if process is not None]


def _marked(pid: int, home: str) -> Marked | None:
    identity = Identity.of(pid)
    environment = _environment(pid)
    if identity is None or environment.get(MARK) != home:
        return None
    leader = _session(pid) == pid
    return Marked(identity, environment.get(MARK_PART, ""), environment.get(MARK_DIGEST, ""), leader)


def _environment(pid: int) -> Mapping[str, str]:
    try:
        raw = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:  # gone, or another user's: not ours in either case
        return {}
    pairs = (item.partition(b"=") for item in raw.split(b"\0") if item)
    return {os.fsdecode(key): os.fsdecode(value) for key, _, value in pairs}


def _session(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid)
    return -1


def _ancestry(pid: int) -> set[int]:
    found: set[int] = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            text = (_PROC / str(pid) / "stat").read_text()
        except OSError:
            break
        pid = int(text[text.rindex(")") + 2 :].split()[1])
    return found


def stop(processes: Iterable[Identity], grace_s: float) -> None:
    """Ask with SIGTERM, wait at most `grace_s`, then SIGKILL; returns when none of them is alive."""
    remaining = [process for process in processes if process.alive()]
    _signal(remaining, signal.SIGTERM)
    remaining = _wait(remaining, grace_s)
    _signal(remaining, signal.SIGKILL)
    _wait(remaining, 10.0)


def _signal(processes: Iterable[Identity], number: signal.Signals) -> None:
    for process in processes:
        # asked again here, because the kernel may have given the number to somebody else
        if process.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


def _wait(processes: list[Identity], timeout_s: float) -> list[Identity]:
    deadline = time.monotonic() + timeout_s
    while processes and time.monotonic() < deadline:
        time.sleep(0.02)
        processes = [process for process in processes if process.alive()]
    return processes
