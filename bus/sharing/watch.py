"""What readers are told of a view itself: whether it is live, and how far behind its sources it is.

Read at most four times a second, whatever the number of questions; a view that stops being live is
refused within that time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bus.errors import ViewRebuilding
from bus.views.catalogue import Shape
from bus.views.store import ViewState, ViewStore

KEPT_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Standing:
    """A view that may be shown: its state, and the seconds it is behind the newest event of each source. ``stale``: why
    it is not caught up, where its declaration lets it be shown all the same."""

    state: ViewState
    freshness: Mapping[str, float]
    stale: str = ""

    @property
    def header(self) -> str:
        """``licence=1.2, inspection=0.4``; a source that was never read to its end has no figure."""
        return ", ".join(
            f"{source}={seconds:.1f}" for source, seconds in self.freshness.items() if math.isfinite(seconds)
        )


class Watch:
    """Keeps what the builders wrote about their views for a quarter of a second. ``clock``: monotonic."""

    def __init__(self, store: ViewStore, clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock
        self._kept: dict[str, tuple[float, ViewState | None, Mapping[str, float]]] = {}

    async def standing(self, shape: Shape) -> Standing:
        """Raises `ViewRebuilding` unless the view is live with tables of this shape, or shows what it has."""
        view = shape.view.name
        kept = self._kept.get(view)
        if kept is None or self._clock() - kept[0] > KEPT_S:
            kept = (self._clock(), *await asyncio.to_thread(self._look, view))
            self._kept[view] = kept
        _, state, freshness = kept
        if state is None or state.fingerprint != shape.fingerprint:
            raise ViewRebuilding(view=view, state=state.state if state else "new", reason=state.reason if state else "")
        if state.state == "live":
            return Standing(state, freshness)
        if not shape.view.stale:
            raise ViewRebuilding(view=view, state=state.state, reason=state.reason)
        return Standing(state, freshness, stale=state.reason or "it is being built: rows may be missing or old")

    def _look(self, view: str) -> tuple[ViewState | None, Mapping[str, float]]:
        return self._store.state(view), self._store.freshness(view)
