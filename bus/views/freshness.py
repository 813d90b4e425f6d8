"""How fresh a view is, by source: its newest event, the events that wait, and where it is in each partition."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bus.views.catalogue import Shape
from bus.views.store import Position


@dataclass(frozen=True, slots=True)
class SourceFreshness:
    """One source of a view: an entity, or a view that it is computed from. ``entity`` is empty for a view.

    ``newest_ms``: time of the newest event applied, None before there is one; ``lag``: events known to wait;
    ``behind_s``: seconds since the view was last known to hold everything there was, ``inf`` before it first did.
    """

    source: str
    entity: str
    newest_ms: int | None
    lag: int
    behind_s: float
    positions: tuple[Position, ...]

    def age_s(self, now_ms: int) -> float | None:
        """Seconds since the newest event, None before there is one."""
        return None if self.newest_ms is None else max(0.0, (now_ms - self.newest_ms) / 1_000)


def by_source(
    shape: Shape, shapes: Mapping[str, Shape], positions: Callable[[str], Sequence[Position]], now_ms: int
) -> list[SourceFreshness]:
    """The sources of a view in their order, then the views that it reads, each as fresh as its stalest source.

    ``positions`` of a view by name; ``shapes``: every declared view.
    """
    known = positions(shape.view.name)
    found = [
        _source(source.name, contract.id, [at for at in known if at.topic == contract.topic], now_ms)
        for source, contract in zip(shape.view.sources, shape.contracts, strict=True)
    ]
    read = [shapes[name] for name in shape.view.reads if name in shapes]
    return [*found, *(_view(base.view.name, by_source(base, shapes, positions, now_ms)) for base in read)]


def _source(name: str, entity: str, positions: Sequence[Position], now_ms: int) -> SourceFreshness:
    """A partition that never had an event has no time, and none to wait for."""
    times = [at.source_time_ms for at in positions if at.source_time_ms is not None]
    complete = [math.inf if at.complete_ms is None else max(0.0, (now_ms - at.complete_ms) / 1_000) for at in positions]
    lag = sum(max(0, at.end_offset - at.next_offset) for at in positions)
    behind_s = max(complete, default=math.inf)
    return SourceFreshness(name, entity, max(times, default=None), lag, behind_s, tuple(positions))


def _view(name: str, sources: Sequence[SourceFreshness]) -> SourceFreshness:
    """The oldest of what its sources have newest: a figure over it is not fresher than that."""
    times = [source.newest_ms for source in sources]
    known = [at for at in times if at is not None]
    newest = min(known) if known and len(known) == len(times) else None
    behind_s = max((source.behind_s for source in sources), default=math.inf)
    return SourceFreshness(name, "", newest, sum(source.lag for source in sources), behind_s, ())
