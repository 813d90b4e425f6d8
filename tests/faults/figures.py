"""What each fault cost, one line a fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """``lost``: accepted and in neither view nor quarantine; ``wrong``: rows that differ from the fold, or set aside
    without need; ``leaked``: answers with rows that no decision covers; None: not measured by this test.
    ``recovery_s``: worst, in seconds."""

    fault: str
    times: int
    lost: int | None
    wrong: int | None
    leaked: int | None
    recovery_s: float | None
    note: str


@dataclass
class Figures:
    """Where one test puts its lines. ``keep`` hands a line's members to whoever prints the table."""

    keep: Callable[[dict[str, object]], None]

    def record(
        self,
        fault: str,
        *,
        times: int = 1,
        lost: int | None = None,
        wrong: int | None = None,
        leaked: int | None = None,
        recovery_s: float | None = None,
        note: str = "",
    ) -> None:
        """Keeps a line; the demand itself is asserted here, so that no figure is printed that nobody judged."""
        line = Line(fault, times, lost, wrong, leaked, recovery_s, note)
        self.keep(asdict(line))
        assert not any((lost, wrong, leaked)), line


def table(lines: Sequence[Line]) -> list[str]:
    """The lines as text, aligned."""
    head = f"{'fault':<58}{'times':>6}{'lost':>6}{'wrong':>7}{'leaked':>8}{'recovery s':>12}  note"
    return [head, *(_text(line) for line in lines)]


def _text(line: Line) -> str:
    seconds = "-" if line.recovery_s is None else f"{line.recovery_s:.1f}"
    lost, wrong, leaked = ("-" if count is None else str(count) for count in (line.lost, line.wrong, line.leaked))
    return f"{line.fault:<58}{line.times:>6}{lost:>6}{wrong:>7}{leaked:>8}{seconds:>12}  {line.note}".rstrip()
