"""What the portal's first page shows: departments, entities, views and what was set aside. Blocking reads."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bus.contracts.directory import Department, Purpose
from bus.core.contracts import Contract
from bus.views.catalogue import Shape
from bus.views.store import ViewState
from bus.web.parts import Parts

KEPT_S = 2.0
_REASONS = 5


@dataclass(frozen=True, slots=True)
class ViewLine:
    """One view: what it is and how it is doing. ``state`` None: no worker has taken it up yet."""

    shape: Shape
    state: ViewState | None
    freshness: Mapping[str, float]

    @property
    def behind(self) -> float | None:
        """Seconds behind the source that is furthest behind; None where that is not known."""
        known = [seconds for seconds in self.freshness.values() if math.isfinite(seconds)]
        return max(known) if known and len(known) == len(self.freshness) else None


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything on the first page but the answers. ``reasons``: why events were set aside, with how often."""

    departments: Sequence[Department]
    purposes: Sequence[Purpose]
    contracts: Sequence[Contract]
    views: Sequence[ViewLine]
    quarantined: int
    reasons: Sequence[tuple[str, str, int]]
    revision: str

    @property
    def live(self) -> int:
        return sum(line.state is not None and line.state.state == "live" for line in self.views)

    @property
    def rows(self) -> int:
        return sum(line.state.rows for line in self.views if line.state is not None)

    def view(self, name: str) -> ViewLine | None:
        return next((line for line in self.views if line.shape.view.name == name), None)

    def contact(self, department: str) -> str:
        return next((item.contact for item in self.departments if item.id == department), "")


def read(parts: Parts) -> Overview:
    """The overview as it is now; counts rows, so it takes a while."""
    states = parts.views.states()
    listed = [shape for shape in parts.shapes().values() if shape.view.listed]
    return Overview(
        departments=parts.directory.departments(),
        purposes=parts.directory.purposes(),
        contracts=sorted(parts.registry.contracts().values(), key=lambda contract: contract.id),
        views=[
            ViewLine(shape, states.get(shape.view.name), parts.views.freshness(shape.view.name)) for shape in listed
        ],
        quarantined=parts.quarantined(),
        reasons=_reasons(parts),
        revision=parts.decider.policy_revision(),
    )


def _reasons(parts: Parts) -> list[tuple[str, str, int]]:
    """Entity and reason of the newest events set aside, the most frequent first; no value of any event."""
    counted: Counter[tuple[str, str]] = Counter()
    for kept in parts.refused(200):
        for reason in kept.entry.reasons[:1]:
            field, expected = reason.get("field"), reason.get("expected") or reason.get("reason")
            counted[kept.entry.entity, f"{field}: {expected}" if field else str(expected or "")] += 1
    return [(entity, reason, count) for (entity, reason), count in counted.most_common(_REASONS)]


class Kept:
    """The overview, read again after two seconds. ``clock``: monotonic. Thread-safe by being replaced whole."""

    def __init__(self, parts: Parts, clock: Callable[[], float]) -> None:
        self._parts, self._clock = parts, clock
        self._kept: tuple[float, Overview] | None = None

    def now(self) -> Overview:
        """The overview, at most two seconds old."""
        kept = self._kept
        if kept is None or self._clock() - kept[0] > KEPT_S:
            kept = (self._clock(), read(self._parts))
            self._kept = kept
        return kept[1]
