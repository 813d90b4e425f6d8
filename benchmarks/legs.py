"""Where the time of an event goes between its being sent and its being seen in a view, leg by leg (B5).

All clocks are `perf_counter`, which all processes of a machine share on Linux.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

LEGS: Final = ("acknowledged", "fetched", "decoded", "taken", "begun", "committed", "seen")
"""What an event waits for, one after the other. ``begun`` and ``committed``: the transaction of one view."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One event: its place in the topic, when it was sent and when Kafka had acknowledged it."""

    partition: int
    offset: int
    sent: float
    acknowledged: float


@dataclass(slots=True)
class Passed:
    """One round in the worker. ``places``: partition, first offset and the one after the last; ``begun``,
    ``committed``: of each view's transaction, views sorted by name."""

    places: list[tuple[int, int, int]]
    fetched: float
    decoded: float
    taken: float = 0.0
    begun: list[float] = field(default_factory=list)
    committed: list[float] = field(default_factory=list)


def read(path: Path) -> list[Passed]:
    """What a worker wrote."""
    return [Passed(**given) for given in json.loads(path.read_text())]


def legs(
    events: Iterable[Sent],
    rounds: Sequence[Passed],
    seen: Mapping[int, tuple[Sequence[int], Sequence[float]]],
    view: int,
) -> dict[str, list[float]]:
    """The seconds of each leg, for one view (its number by name) and all events. ``seen``: of each partition the
    positions that were seen and when. A round whose transactions were tried more than once is left out."""
    found: dict[str, list[float]] = {leg: [] for leg in LEGS}
    whole = [one for one in rounds if len(one.begun) == len(one.committed) > view]
    where: dict[int, list[tuple[int, int, Passed]]] = {}
    for one in whole:
        for partition, base, after in one.places:
            where.setdefault(partition, []).append((base, after, one))
    for event in events:
        some = where.get(event.partition, [])
        index = bisect.bisect_right(some, event.offset, key=lambda place: place[0]) - 1
        if index < 0 or some[index][1] <= event.offset:
            continue
        one = some[index][2]
        offsets, times = seen[event.partition]
        times_of = (
            *(event.sent, event.acknowledged, one.fetched, one.decoded, one.taken, one.begun[view]),
            *(one.committed[view], times[bisect.bisect_right(offsets, event.offset)]),
        )
        for leg, before, after in zip(LEGS, times_of, times_of[1:], strict=False):
            found[leg].append(max(0.0, after - before))  # an acknowledgement is noticed later than it came
    return found


def share(values: Sequence[float], part: float) -> float:
    """The value below which that part of them is, in milliseconds."""
    return sorted(values)[int(len(values) * part)] * 1_000 if values else float("nan")
