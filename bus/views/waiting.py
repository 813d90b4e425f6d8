"""Waits until views have applied everything that was published before the call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from bus.errors import UnknownView, ViewRebuilding
from bus.views.catalogue import Shape
from bus.views.store import ViewStore

_PAUSE_S = 0.1
_HEALING_S = 5.0


def wait(
    store: ViewStore,
    shapes: Mapping[str, Shape],
    end_offsets: Callable[[Iterable[str]], Mapping[tuple[str, int], int]],
    names: Sequence[str],
    timeout_s: float,
) -> None:
    """Returns when each view has applied everything up to the end offsets at the time of the call and is live, and each
    aggregate was computed from such views. ``end_offsets``: by (topic, partition), of topics.

    Raises `UnknownView`, and `ViewRebuilding` naming the first view that was not ready in time or has stopped.
    """
    for name in names:
        if name not in shapes:
            raise UnknownView(view=name)
    views = _with_what_they_read(names, shapes)
    topics = {contract.topic for shape in views for contract in shape.contracts}
    ends = end_offsets(topics)
    deadline = time.monotonic() + timeout_s
    entities = [shape for shape in views if shape.contracts]
    _until(deadline, entities, lambda shape: _applied(store, shape, ends))
    for aggregate in (shape for shape in views if not shape.contracts):
        _until_computed(min(deadline, time.monotonic() + _HEALING_S), deadline, store, aggregate)


def _with_what_they_read(names: Sequence[str], shapes: Mapping[str, Shape]) -> list[Shape]:
    """The views, and all that they are computed from, in the order of ``shapes``: aggregates after what they read."""
    needed, waiting = set[str](), list(names)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += shapes[name].view.reads
    return [shape for name, shape in shapes.items() if name in needed]


def _until(deadline: float, shapes: Sequence[Shape], ready: Callable[[Shape], bool]) -> None:
    for shape in shapes:
        while not ready(shape):
            if time.monotonic() > deadline:
                raise ViewRebuilding(view=shape.view.name)
            time.sleep(_PAUSE_S)


def _live(store: ViewStore, shape: Shape) -> bool:
    state = store.state(shape.view.name)
    if state is not None and state.state == "stopped":
        raise ViewRebuilding(f"View {shape.view.name} has stopped: {state.reason}", view=shape.view.name)
    return state is not None and state.state == "live" and shape.fingerprint in (state.fingerprint, state.undone)


def _applied(store: ViewStore, shape: Shape, ends: Mapping[tuple[str, int], int]) -> bool:
    if not _live(store, shape):
        return False
    topics = {contract.topic for contract in shape.contracts}
    at = {(p.topic, p.partition): p.next_offset for p in store.positions(shape.view.name)}
    return all(at.get(place, 0) >= end for place, end in ends.items() if place[0] in topics)


def _until_computed(healed_by: float, deadline: float, store: ViewStore, shape: Shape) -> None:
    """An aggregate is computed in the transactions of what it reads, so it has all of that once it is live. One that
    could not be computed is tried again by its worker, since what was just applied may have healed it."""
    while True:
        state = store.state(shape.view.name)
        stopped = state is not None and state.state == "stopped"
        if (not stopped or time.monotonic() > healed_by) and _live(store, shape):
            return
        if time.monotonic() > deadline:
            raise ViewRebuilding(view=shape.view.name)
        time.sleep(_PAUSE_S)
