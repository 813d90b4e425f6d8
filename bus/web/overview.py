"""What the portal's first page shows: departments, entities, views and what was set aside. Blocking reads."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bus.contracts.directory import Department, Purpose
from bus.core.contracts import Contract
from bus.governance.disagreements import Between
from bus.governance.promises.store import Promise
from bus.views.catalogue import Shape
from bus.views.freshness import SourceFreshness, by_source
from bus.views.store import ViewState
from bus.web.discrepancies import door
from bus.web.parts import Parts

KEPT_S = 2.0
_REASONS = 5


@dataclass(frozen=True, slots=True)
class ViewLine:
    """One view: what it is and how it is doing. ``state`` None: no worker has taken it up yet."""

    shape: Shape
    state: ViewState | None
    sources: Sequence[SourceFreshness]


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything on the portal's pages but the answers. ``reasons``: why events were set aside, with how often;
    ``promises`` of freshness by entity; ``between``: where departments disagree; ``now_ms``: when this was read."""

    departments: Sequence[Department]
    purposes: Sequence[Purpose]
    contracts: Sequence[Contract]
    views: Sequence[ViewLine]
    quarantined: int
    reasons: Sequence[tuple[str, str, int]]
    revision: str
    promises: Mapping[str, Promise]
    between: Sequence[Between]
    now_ms: int

    @property
    def late(self) -> list[Promise]:
        """The promises that are broken."""
        return [promise for promise in self.promises.values() if promise.broken]

    @property
    def disagreements(self) -> int:
        """How many discrepancies are open."""
        return sum(between.count.open for between in self.between)

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
    states, shapes, now_ms = parts.views.states(), parts.shapes(), int(time.time() * 1_000)
    listed = [shape for shape in shapes.values() if shape.view.listed]
    return Overview(
        departments=parts.directory.departments(),
        purposes=parts.directory.purposes(),
        contracts=sorted(parts.registry.contracts().values(), key=lambda contract: contract.id),
        views=[
            ViewLine(shape, states.get(shape.view.name), by_source(shape, shapes, parts.views.positions, now_ms))
            for shape in listed
        ],
        quarantined=parts.quarantined(),
        reasons=_reasons(parts),
        revision=parts.decider.policy_revision(),
        promises=parts.promises(),
        between=door(parts).counts(),
        now_ms=now_ms,
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
