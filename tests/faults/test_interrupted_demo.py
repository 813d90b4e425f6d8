"""Ctrl-C at any moment of `bus demo`: nothing is orphaned, and the next one ends as the first would have."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from figures import Figures
from homes import BUS, Home, all_verified, during, seconds_until

from tests.conftest import ROOT

pytestmark = pytest.mark.fault


@dataclass(frozen=True, slots=True)
class Moment:
    """So many seconds after the demo has said these words."""

    words: str
    seconds: float


PHASES = (
    ("", 3.0),
    ("Starting", 10.0),
    ("Registering", 3.0),
    ("Publishing", 12.0),
    ("Building", 6.0),
    ("Issuing", 1.0),
    ("Asking", 1.0),
    ("Verifying", 4.0),
)
"""What the demo says, and about how long each step takes at most."""


def moments(count: int, dice: random.Random) -> list[Moment]:
    """Random moments, spread over all phases in turn."""
    chosen = [PHASES[index % len(PHASES)] for index in range(count)]
    return [Moment(words, dice.uniform(0.0, seconds)) for words, seconds in chosen]


@contextmanager
def started(home: Home) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """`bus demo` as the leader of a process group of its own, as a shell starts it, and the file it writes to."""
    with tempfile.NamedTemporaryFile(mode="w", suffix=".txt") as output:
        environment = {**home.environment, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [BUS, "demo"], env=environment, cwd=ROOT, stdout=output, stderr=output, text=True, start_new_session=True
        )
        try:
            yield process, Path(output.name)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def interrupt(home: Home, moment: Moment) -> tuple[bool, str]:
    """Runs the demo and interrupts it at the moment: whether it still ran then, and what it said."""
    with started(home) as (process, output):
        since: float | None = None
        for seconds in during(process):
            if since is None and moment.words in output.read_text():
                since = seconds
            if since is not None and seconds >= since + moment.seconds:
                break
        interrupted = process.poll() is None
        if interrupted:
            os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=60)
        said = output.read_text()
        assert process.returncode == (130 if interrupted else 0), said
    return interrupted, said


def check_afterwards(home: Home, said: str) -> None:
    """No process is left that `bus down` would not stop; what was said last is one clear line."""
    seconds_until(lambda: home.strays() == [], timeout_s=5, what=f"the end of every stray process {home.strays()}")
    assert "Traceback" not in said, said


def finish(home: Home) -> None:
    """The next demo on this home succeeds, with the figures of an undisturbed one."""
    done = home.bus("demo")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{home.logs()}"
    assert all_verified(done.stdout.splitlines()), done.stdout


def test_interrupted_at_random_moments(make_home: Callable[..., Home], figures: Figures, full_length: bool) -> None:
    """130, nothing orphaned, and the next demo verifies the same figures with one event in quarantine."""
    dice = random.Random()
    times, worst_s, homes = 0, 0.0, list[Home]()
    if full_length:
        chosen = moments(10, dice)
    else:
        chosen = [Moment("Starting", dice.uniform(0, 4)), Moment("Publishing", dice.uniform(0, 8))]
    for moment in chosen:
        if full_length or not homes:
            homes.append(make_home())
        interrupted, said = interrupt(homes[-1], moment)
        times += interrupted
        check_afterwards(homes[-1], said)
        if full_length:
            finish(homes[-1])
            homes[-1].bus("down")
    if not full_length:
        worst_s = seconds_until(lambda: finish(homes[0]) is None, timeout_s=240)
    where = ", ".join(f"{moment.words or 'at once'}+{moment.seconds:.1f}" for moment in chosen)
    # `finish` has compared every row of every view with the input files
    figures.record(
        "Ctrl-C in `bus demo`",
        times=times,
        lost=0,
        wrong=0,
        recovery_s=worst_s or None,
        note=f"{where}; time: next demo",
    )
    assert times >= len(chosen) - 3
