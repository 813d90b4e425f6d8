"""A view that this worker builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from bus.views.builder import Builder, Place
from bus.views.catalogue import Shape
from bus.views.derived.enrolment import Enrolment


@dataclass(eq=False, slots=True)
class Held:
    """A view that this worker builds, with the shape that its tables have. ``positions``: next offset to apply, by
    place; ``targets``: ends seen at the start, which make it live; ``builder`` is None for an aggregate,
    ``enrolment`` for a view that reads no others. ``reading``: whether a reader may feed it; ``careful``: whether its
    next batch is tried in a process of its own first; ``stopping``: why it was stopped, until the database says so."""

    shape: Shape
    epoch: int
    builder: Builder | None = None
    enrolment: Enrolment | None = None
    positions: dict[Place, int] = field(default_factory=dict)
    targets: dict[Place, int] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)
    reading: bool = False
    live: bool = False
    careful: bool = False
    stopping: str = ""

    @property
    def name(self) -> str:
        return self.shape.view.name

    @property
    def shadow(self) -> bool:
        """Whether it is built beside a view of another name."""
        return "+" in self.name

    @property
    def topics(self) -> frozenset[str]:
        return frozenset(contract.topic for contract in self.shape.contracts)

    @property
    def caught_up(self) -> bool:
        """Whether everything that was there at the start is applied."""
        return self.reading and all(self.positions.get(place, 0) >= end for place, end in self.targets.items())


class Crew(Protocol):
    """What a rebuild needs of the roster."""

    held: dict[str, Held]

    def take(self, shape: Shape, epoch: int) -> Held:
        """Begins to build the view under that epoch."""

    def start(self, held: Held) -> None:
        """Finds where to read from."""

    def forget(self, held: Held | None) -> None:
        """Builds the view no more."""

    def starts_and_ids(self, shape: Shape) -> tuple[Mapping[Place, int], Mapping[str, str]]:
        """Where the view's partitions begin now, and the ids of its topics."""

    def ends(self) -> Mapping[Place, int]:
        """Where partitions ended when Kafka was last asked."""
