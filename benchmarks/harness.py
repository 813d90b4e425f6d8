"""How figures are taken: interleaved repeats, work checked before a speed is said, ratios within each repeat."""

from __future__ import annotations

import dataclasses
import gc
import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

PACKAGES = (
    "aiokafka", "fastavro", "pyruhvro", "pyarrow", "sqlalchemy", "psycopg", "pgpq", "fastapi", "uvicorn",
    "faust-streaming", "kafka-python", "confluent-kafka", "quixstreams", "datasette",
)  # fmt: skip


class WorkMissing(AssertionError):
    """A run did not do its work, so it has no speed."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: how much work it did in how many seconds."""

    work: float
    seconds: float
    extra: Mapping[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.work / self.seconds


@dataclass(frozen=True, slots=True)
class Goal:
    """``subject``'s rate is compared with ``reference``'s (the slowest of several) within each repeat."""

    name: str
    subject: str
    reference: str | tuple[str, ...]
    at_least: float


@dataclass(frozen=True, slots=True)
class Plan:
    """One figure: its runs by name (each checks its own work), and what is wanted of them."""

    figure: str
    unit: str
    runs: Mapping[str, Callable[[], Sample | Mapping[str, Sample]]]
    goals: Sequence[Goal]
    missing: Mapping[str, str] = field(default_factory=dict)
    """Goals that this form does not measure, with the reason."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median of the repeats, and how far they lie apart."""

    median: float
    low: float
    high: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values), tuple(round(value, 4) for value in values))


@dataclass(frozen=True, slots=True)
class Line:
    """One goal, judged. ``ratio`` is None where it was not measured."""

    figure: str
    name: str
    goal: float | None
    ratio: Spread | None
    verdict: Literal["met", "not met", "not measured"]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What one figure came to."""

    figure: str
    unit: str
    rates: Mapping[str, Spread]
    extras: Mapping[str, Mapping[str, float]]
    lines: Sequence[Line]


def require(condition: bool, what: str) -> None:
    """Raises `WorkMissing` unless the work was done. Not `assert`: it must hold under ``python -O`` too."""
    if not condition:
        raise WorkMissing(what)


def measure(plan: Plan, repeats: int, say: Callable[[str], None]) -> Result:
    """Runs everything once after the other, ``repeats`` times. Raises `WorkMissing` for a run that cheats."""
    samples: dict[str, list[Sample]] = {}
    for repeat in range(repeats):
        for name, run in plan.runs.items():
            gc.collect()
            found = run()
            for label, sample in ({name: found} if isinstance(found, Sample) else found).items():
                require(sample.work > 0 and sample.seconds > 0, f"{label} did no work")
                samples.setdefault(label, []).append(sample)
                say(f"{plan.figure}  {repeat + 1}/{repeats}  {label:<44} {sample.rate:>12,.0f} {plan.unit}")
    rates = {name: Spread.of([sample.rate for sample in taken]) for name, taken in samples.items()}
    extras = {name: _medians([sample.extra for sample in taken]) for name, taken in samples.items()}
    lines = [_judge(plan.figure, goal, samples) for goal in plan.goals]
    lines += [Line(plan.figure, name, None, None, "not measured", why) for name, why in plan.missing.items()]
    return Result(plan.figure, plan.unit, rates, extras, lines)


def _judge(figure: str, goal: Goal, samples: Mapping[str, Sequence[Sample]]) -> Line:
    references = (goal.reference,) if isinstance(goal.reference, str) else goal.reference
    absent = [name for name in (goal.subject, *references) if name not in samples]
    if absent:
        return Line(figure, goal.name, goal.at_least, None, "not measured", f"no run of: {', '.join(absent)}")
    rows = zip(samples[goal.subject], *(samples[name] for name in references), strict=True)
    ratio = Spread.of([subject.rate / min(other.rate for other in others) for subject, *others in rows])
    return Line(figure, goal.name, goal.at_least, ratio, "met" if ratio.median >= goal.at_least else "not met")


def _medians(extras: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = extras[0] if extras else {}
    return {name: round(statistics.median(extra[name] for extra in extras), 4) for name in names}


def machine() -> dict[str, Any]:
    """What the figures were taken on; no names, no paths."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "cpu": _cpu_model(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return models[0] if models else platform.machine()


def versions() -> dict[str, str]:
    """Of what took part."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def write(path: Path, results: Sequence[Result], **stated: Any) -> None:
    """The results as JSON. Figures that were not taken this time keep what an earlier run said of them."""
    earlier = json.loads(path.read_text())["figures"] if path.exists() else {}
    about = {"machine": machine(), "versions": versions(), **stated}
    taken = {result.figure: {**dataclasses.asdict(result), **about} for result in results}
    path.write_text(json.dumps({"figures": dict(sorted({**earlier, **taken}.items()))}, indent=1) + "\n")


def table(results: Sequence[Result]) -> str:
    """Rates, then goals, as text for a terminal."""
    lines = []
    for result in results:
        for name, spread in result.rates.items():
            rate = f"{spread.median:>12,.0f} {result.unit}  ({spread.low:,.0f} to {spread.high:,.0f})"
            extra = "  ".join(f"{key} {value:g}" for key, value in result.extras.get(name, {}).items())
            lines.append(f"{result.figure:<3} {name:<46}{rate}  {extra}".rstrip())
    lines.append("")
    for line in (line for result in results for line in result.lines):
        goal = f"≥ {line.goal:g}" if line.goal is not None else "-"
        ratio = line.ratio
        found = f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "-"
        lines.append(f"{line.figure:<3} {line.name:<58} goal {goal:<7} ratio {found:<24} {line.verdict}  {line.note}")
    return "\n".join(line.rstrip() for line in lines)
