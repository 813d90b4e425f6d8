"""The views that one worker builds: taking leases, making tables, noticing changes, saying what state a view is in.

Everything here blocks (databases, Kafka's administration) and is called from one thread beside the event loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Engine

from bus.contracts.registry import SchemaSource
from bus.core.contracts import Contract
from bus.errors import BrokerUnavailable, BusError, Fenced, Unavailable, UnknownEntity
from bus.infra.database import translated_errors
from bus.infra.kafka import Admin, KafkaConnection
from bus.views.aggregates import Aggregate
from bus.views.beat import beat
from bus.views.builder import Builder, CrashPoint, Place
from bus.views.catalogue import Declarations, Shape, shapes
from bus.views.defects import report
from bus.views.generation import prepare, remove, set_state, start_positions
from bus.views.lease import Leases
from bus.views.store import VIEW, ViewStore

log = structlog.get_logger(__name__)
MAX_CRASHES = 2  # deaths without progress before a batch is tried aside (F12)


@dataclass(eq=False, slots=True)
class Held:
    """A view that this worker builds. ``positions``: next offset to apply, by place; ``targets``: ends seen at the
    start, which make it live; ``builder`` is None for an aggregate, ``aggregate`` for all others. ``reading``: whether
    a reader may feed it; ``careful``: whether its next batch is tried in a process of its own first; ``reason``: why an
    aggregate could not be computed."""

    shape: Shape
    epoch: int
    builder: Builder | None = None
    aggregate: Aggregate | None = None
    positions: dict[Place, int] = field(default_factory=dict)
    targets: dict[Place, int] = field(default_factory=dict)
    reading: bool = False
    live: bool = False
    careful: bool = False
    reason: str = ""

    @property
    def name(self) -> str:
        return self.shape.view.name

    def outdated(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether this is an aggregate over a view that has another shape by now."""
        return self.aggregate is not None and self.aggregate.outdated(shapes)

    @property
    def topics(self) -> frozenset[str]:
        return frozenset(contract.topic for contract in self.shape.contracts)

    @property
    def caught_up(self) -> bool:
        """Whether everything that was there at the start is applied."""
        return self.reading and all(self.positions.get(place, 0) >= end for place, end in self.targets.items())


class Roster:
    """What one worker holds. ``tick`` is called every fifth of a lease, at most a second apart."""

    def __init__(
        self,
        engine: Engine,
        *,
        declarations: Declarations,
        registry: SchemaSource,
        kafka: KafkaConnection,
        worker: str,
        lease_s: float,
        crash_point: CrashPoint,
    ) -> None:
        self._engine, self._declarations, self._registry, self._kafka = engine, declarations, registry, kafka
        self._crash = crash_point
        self._leases = Leases(engine, worker, lease_s)
        self._admin: Admin | None = None
        self._guard = threading.Lock()
        self.held: dict[str, Held] = {}
        self.shapes: dict[str, Shape] = {}
        self.contracts: dict[str, Contract] = {}
        self._last_ends: Mapping[Place, int] = {}
        ViewStore(engine)  # makes the fixed tables

    def tick(self) -> None:
        """Renews, takes what is free, follows changed declarations, refreshes aggregates. Trouble with a database or
        Kafka is raised as `Unavailable` after what could be done; the next tick goes on."""
        ends, trouble = self._ends()
        lost = beat(self._engine, [(h.name, h.epoch) for h in list(self.held.values())], ends, _now_ms())
        for name in lost:
            self.forget(self.held.get(name))
        self._read_declarations()
        self._drop_undeclared()
        for name, shape in self.shapes.items():
            self._guarded(name, shape)
        self._mark_live()
        if trouble is not None:
            raise trouble

    def is_behind(self, held: Held) -> bool:
        """Whether events were waiting for this view when Kafka was last asked."""
        return held.reading and any(self._last_ends.get(place, 0) > at for place, at in held.positions.items())

    def range_of(self, place: Place) -> tuple[int, int]:
        """Where the partition begins and ends now."""
        admin = self._connected()
        return admin.start_offsets([place[0]]).get(place, 0), admin.end_offsets([place[0]]).get(place, 0)

    def forget(self, held: Held | None) -> None:
        """The lease is another's now, or the declaration is another: readers must not feed this view any more."""
        if held is None:
            return
        held.reading = False
        with self._guard:
            if self.held.get(held.name) is not held:
                return
            del self.held[held.name]
        log.warning("view_lost", view=held.name, epoch=held.epoch)

    def stop_view(self, held: Held, reason: str) -> None:
        """The view cannot go on: it says so and is fed no more, until its declaration changes or a worker starts."""
        held.reading = False
        if self.held.get(held.name) is not held:
            return  # its declaration changed meanwhile; the new generation is not what is in trouble
        log.error("view_stopped", view=held.name, reason=reason)
        set_state(self._engine, held.name, held.epoch, "stopped", reason)

    def close(self) -> None:
        """Gives all leases back."""
        held = [(h.name, h.epoch) for h in self.held.values()]
        for one in self.held.values():
            one.reading = False
        self.held.clear()
        self._leases.release(held)
        if self._admin is not None:
            self._admin.close()

    def _guarded(self, name: str, shape: Shape) -> None:
        """One view's turn: being fenced loses this view only, and a defect of one holds up no other."""
        try:
            self._one(name, shape)
        except Fenced:
            self.forget(self.held.get(name))
        except Unavailable:
            raise
        except Exception as error:
            report("view_failed", error, view=name)

    def _one(self, name: str, shape: Shape) -> None:
        held = self.held.get(name)
        if held is None:
            epoch = self._leases.acquire(name)
            if epoch is None:
                return
            held = self._take(shape, epoch)
        elif held.shape.fingerprint != shape.fingerprint or held.outdated(self.shapes):
            held.reading = False
            held = self._take(shape, held.epoch)
        if held.aggregate is not None:
            self._refresh(held, held.aggregate)
        elif not held.reading and not held.targets and held.builder is not None:
            self._start(held)

    def _refresh(self, held: Held, aggregate: Aggregate) -> None:
        """An aggregate that cannot be computed says so, and is tried again with each tick: data may change."""
        try:
            aggregate.refresh()
        except (Fenced, Unavailable):
            raise
        except Exception as error:
            reason = f"its figures could not be computed: {type(error).__name__}"
            if held.reason != reason:
                report("aggregate_failed", error, view=held.name)
                set_state(self._engine, held.name, held.epoch, "stopped", reason)
            held.reason = reason
        else:
            held.reason = ""

    def _take(self, shape: Shape, epoch: int) -> Held:
        prepare(self._engine, shape, epoch)
        with translated_errors(), self._engine.connect() as connection:
            crashes = connection.scalar(sa.select(VIEW.c.crashes).where(VIEW.c.name == shape.view.name)) or 0
        held = Held(shape, epoch, careful=crashes >= MAX_CRASHES)
        if shape.view.kind == "aggregate":
            held.aggregate = Aggregate(self._engine, shape, self.shapes, epoch, crash_point=self._crash)
        else:
            held.builder = Builder(self._engine, shape, epoch, crash_point=self._crash)
        with self._guard:
            self.held[shape.view.name] = held
        log.info("view_taken", view=held.name, epoch=epoch, careful=held.careful)
        return held

    def _start(self, held: Held) -> None:
        """Finds where to read from. What the topic no longer has and the view does not have either is never skipped."""
        admin = self._connected()
        starts, ends = admin.start_offsets(held.topics), admin.end_offsets(held.topics)
        if {topic for topic, _ in ends} != held.topics:
            return  # a topic is not there yet
        positions = start_positions(self._engine, held.name, held.epoch, starts)
        held.targets = dict(ends)
        held.positions = positions
        for place, at in positions.items():
            if not starts.get(place, 0) <= at <= ends.get(place, 0):
                self.stop_view(held, hole(place, at, starts.get(place, 0), ends.get(place, 0)))
                return
        held.reading = True

    def _mark_live(self) -> None:
        for held in list(self.held.values()):
            if held.builder is not None and not held.live and held.caught_up:
                try:
                    set_state(self._engine, held.name, held.epoch, "live")
                except Fenced:
                    self.forget(held)
                    continue
                held.live = True
                log.info("view_live", view=held.name)

    def _read_declarations(self) -> None:
        declared = self._declarations.all()
        entities = {entity for view in declared.values() for entity in view.entities}
        contracts = {}
        for entity in sorted(entities):
            try:
                contracts[entity] = self._registry.contract(entity)
            except UnknownEntity:
                log.warning("contract_missing", entity=entity)
        self.contracts = contracts
        self.shapes = shapes(self._declarations, contracts)

    def _drop_undeclared(self) -> None:
        declared = set(self._declarations.all())
        with translated_errors(), self._engine.connect() as connection:
            there = set(connection.execute(sa.select(VIEW.c.name)).scalars())
        for name in sorted(there - declared):
            held = self.held.get(name)
            epoch = held.epoch if held is not None else self._leases.acquire(name)
            if epoch is None:
                continue
            if held is not None:
                held.reading = False
            remove(self._engine, name, epoch)
            with self._guard:
                self.held.pop(name, None)
            log.info("view_dropped", view=name)

    def _ends(self) -> tuple[Mapping[Place, int], BusError | None]:
        """Where the partitions of all held views end now; nothing while Kafka does not answer."""
        topics = {topic for held in self.held.values() for topic in held.topics}
        try:
            self._last_ends = self._connected().end_offsets(topics) if topics else {}
            return self._last_ends, None
        except BrokerUnavailable as error:
            return {}, error

    def _connected(self) -> Admin:
        if self._admin is None:
            self._admin = Admin(self._kafka, timeout_s=5.0)
        return self._admin


def hole(place: Place, at: int, start: int, end: int) -> str:
    """Why a view cannot go on from where it is."""
    topic, partition = place
    if at < start:
        return (
            f"{topic}/{partition} begins at offset {start}, the view has applied up to {at}: {start - at} events are "
            "gone. Rebuild it from a snapshot, or change its declaration to start from what there is."
        )
    return f"{topic}/{partition} ends at offset {end}, the view has applied up to {at}: the topic was made anew."


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
