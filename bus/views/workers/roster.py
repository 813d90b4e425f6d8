"""The views that one worker builds: taking leases, making tables, noticing changes, saying what state a view is in.

Everything here blocks (databases, Kafka's administration) and is called from one thread beside the event loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Engine

from bus.contracts.registry import SchemaSource
from bus.core.contracts import Contract
from bus.core.names import without_generation
from bus.errors import BrokerUnavailable, BusError, Fenced, Unavailable, UnknownEntity
from bus.infra.database import translated_errors
from bus.infra.kafka import Admin, KafkaConnection
from bus.views.applied import applied_shape
from bus.views.builder import Builder, CrashPoint, Place
from bus.views.catalogue import Declarations, Shape, shape_of, shapes
from bus.views.changelog.keeping import Logs
from bus.views.defects import report
from bus.views.derived.enrolment import Enrolment
from bus.views.rebuilding.generation import prepare, remove, set_state, start_positions
from bus.views.rebuilding.rebuild import Rebuilds
from bus.views.rebuilding.requests import Request, Requests
from bus.views.rebuilding.swap import NEXT
from bus.views.store import VIEW, ViewState, ViewStore
from bus.views.workers.beat import note_ends
from bus.views.workers.held import Held
from bus.views.workers.holes import known_ids, reason_to_stop
from bus.views.workers.lease import Leases
from bus.views.workers.sharing_out import Workers

log = structlog.get_logger(__name__)
MAX_CRASHES = 2  # deaths without progress before a batch is tried aside (F12)


class Roster:
    """What one worker holds. ``tick`` is called every fifth of a lease, at most a second apart; leases are renewed by
    another thread (`bus.views.workers.renewal`), which says what is `lost`."""

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
        requests: Requests | None = None,
        logs: Logs | None = None,
    ) -> None:
        self._engine, self._declarations, self._registry, self._kafka = engine, declarations, registry, kafka
        self._crash, self._requests, self._logs = crash_point, requests, logs
        self._leases = Leases(engine, worker, lease_s)
        self.workers = Workers(engine, worker, lease_s)
        self._admin: Admin | None = None
        self._guard = threading.Lock()
        self.held: dict[str, Held] = {}
        self.shapes: dict[str, Shape] = {}
        self.applied: dict[str, Shape] = {}
        self.contracts: dict[str, Contract] = {}
        self._last_ends: Mapping[Place, int] = {}
        self._asked: Mapping[str, Request] = {}
        self._states: dict[str, ViewState] = {}
        self._seqs: dict[str, int] = {}
        self.busy = False
        self._store = ViewStore(engine)  # makes the fixed tables
        self._rebuilds = Rebuilds(engine, self._store, self._leases, self, crash_point=crash_point)

    def tick(self) -> None:
        """Takes what is free, follows changed declarations and requests, refreshes aggregates, gives back what others
        should have. Trouble with a database or Kafka is raised as `Unavailable` after what could be done; the next tick
        goes on."""
        trouble = self._look_at_topics()
        self.workers.look()
        self._asked = self._requests.all() if self._requests is not None else {}
        self._states = self._store.states(count=False)
        self._look_at_traffic()
        self._read_declarations()
        if self._logs is not None:
            self._logs.look()
        self._drop_undeclared()
        for name, shape in self.shapes.items():
            self._guarded(name, shape)
        self._mark_live()
        self._give_back()
        if trouble is not None:
            raise trouble

    def _look_at_traffic(self) -> None:
        """Whether live views of any worker have got events since the last tick."""
        states = self._states.items()
        seqs = {name: state.seq for name, state in states if state.state == "live" and "+" not in name}
        self.busy = any(self._seqs.get(name, seq) != seq for name, seq in seqs.items())
        self._seqs = seqs

    @property
    def expecting(self) -> bool:
        """Whether another worker is about to give a view back for this one."""
        return self.workers.has_fewer()

    def leases(self) -> list[tuple[str, int]]:
        """The (view, epoch) pairs to renew."""
        return [(held.name, held.epoch) for held in list(self.held.values())]

    def lost(self, views: set[str]) -> None:
        """These leases are another's now."""
        for name in views:
            self.forget(self.held.get(name))

    def starts_and_ids(self, shape: Shape) -> tuple[Mapping[Place, int], Mapping[str, str]]:
        """Where the view's partitions begin now, and the ids of its topics."""
        topics = {contract.topic for contract in shape.contracts}
        admin = self._connected()
        return admin.start_offsets(topics), admin.topic_ids(topics)

    def ends(self) -> Mapping[Place, int]:
        """Where partitions ended when Kafka was last asked."""
        return self._last_ends

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
        shadow = self.held.get(held.name + NEXT)
        if shadow is not None:  # it is built by whoever has the view
            self.forget(shadow)
            self._leases.release([(shadow.name, shadow.epoch)])

    def stop_view(self, held: Held, reason: str) -> None:
        """The view cannot go on: it says so and is fed no more, until its declaration changes or a worker starts."""
        held.reading, held.stopping = False, reason
        if self.held.get(held.name) is not held:
            return  # its declaration changed meanwhile; the new generation is not what is in trouble
        set_state(self._engine, held.name, held.epoch, "stopped", reason)
        held.stopping = ""
        log.error("view_stopped", view=held.name, reason=reason)

    def close(self) -> None:
        """Gives all leases back."""
        held = [(h.name, h.epoch) for h in self.held.values()]
        for one in self.held.values():
            one.reading = False
        self.held.clear()
        self._rebuilds.close()
        self._leases.release(held)
        self.workers.leave()
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
        held, state = self.held.get(name), self._states.get(name)
        if held is None:
            if not self.workers.may_take(name) or not self._computable(shape):
                return
            epoch = self._leases.acquire(name)
            if epoch is None:
                return
            self.workers.took(name)
            held = self.take(self.applied[name], epoch)
        elif (other := self._other_shape(held, shape)) is not None:
            held = self.take(other, held.epoch)
        if state is not None:
            self._rebuilds.follow(held, shape, state, self._asked.get(name))
            held = self.held.get(name, held)
        self._refresh(held)
        if self._logs is not None and state is not None:
            self._logs.follow(held.shape, held.epoch, state)
        if not held.reading and not held.targets and held.builder is not None:
            self.start(held)

    def _other_shape(self, held: Held, declared: Shape) -> Shape | None:
        """The shape to go on with, where it is another by now: an aggregate's as it is declared; that of the tables
        where they were changed or swapped and what was to follow failed."""
        if held.builder is None:
            changed = held.shape.fingerprint != declared.fingerprint
            return declared if changed and self._computable(declared) else None
        applied = self.applied[held.name]
        return applied if not held.targets and held.shape.fingerprint != applied.fingerprint else None

    def _computable(self, shape: Shape) -> bool:
        """Whether the tables that are there have what an aggregate needs: a view that it reads may be built anew."""
        if shape.view.kind != "aggregate":
            return True
        try:
            shape_of(shape.view, self.contracts, self.applied)
        except BusError:
            return False
        return True

    def _refresh(self, held: Held) -> None:
        """A view computed from others is filled where nobody keeps it up to date."""
        if held.enrolment is not None and held.enrolment.refresh():
            held.live = False

    def take(self, shape: Shape, epoch: int) -> Held:
        """Builds the view of that shape under that epoch from now on, with tables that are made if they are missing."""
        if shape.contracts:  # an aggregate's tables are made when they are filled
            prepare(self._engine, shape, epoch)
        with translated_errors(), self._engine.connect() as connection:
            crashes = connection.scalar(sa.select(VIEW.c.crashes).where(VIEW.c.name == shape.view.name)) or 0
        held = Held(shape, epoch, careful=crashes >= MAX_CRASHES)
        if shape.view.reads:
            held.enrolment = Enrolment(self._engine, shape, epoch, crash_point=self._crash)
        if shape.contracts:
            held.builder = Builder(self._engine, shape, epoch, crash_point=self._crash)
        with self._guard:
            before, self.held[shape.view.name] = self.held.get(shape.view.name), held
        if before is not None:
            before.reading = False
        self.applied.setdefault(shape.view.name, shape)
        log.info("view_taken", view=held.name, epoch=epoch, careful=held.careful)
        return held

    def start(self, held: Held) -> None:
        """Finds where to read from. What the topic no longer has and the view does not have either is never skipped."""
        self._refresh(held)
        if held.enrolment is not None and not held.enrolment.is_kept():
            return  # a view that it looks up has no tables yet
        admin = self._connected()
        starts, ends = admin.start_offsets(held.topics), admin.end_offsets(held.topics)
        if {topic for topic, _ in ends} != held.topics:
            return  # a topic is not there yet
        ids = admin.topic_ids(held.topics)
        held.positions = positions = start_positions(self._engine, held.name, held.epoch, starts, ids)
        state = self._store.state(held.name)
        held.ids = known_ids(state.origins if state else None)
        reason = reason_to_stop(held.topics, held.ids, ids, positions=positions, starts=starts, ends=ends)
        if held.builder is not None:
            held.builder.learn()
        held.targets = dict(ends)  # once nothing can fail any more: without them the next tick starts it again
        if reason:
            self.stop_view(held, reason)
        else:
            held.reading = True

    def _give_back(self) -> None:
        """One view for a worker that has two fewer; what is being built beside stays with its view."""
        if not self.workers.has_more():
            return
        free = [h for h in self.held.values() if not h.shadow and h.name + NEXT not in self.held]
        for held in sorted(free, key=lambda h: (not h.live, h.name), reverse=True)[:1]:
            held.reading = False
            with self._guard:
                self.held.pop(held.name, None)
            self._leases.release([(held.name, held.epoch)])
            self.workers.gave()
            log.info("view_given_back", view=held.name)

    def _mark_live(self) -> None:
        for held in list(self.held.values()):
            try:
                if held.stopping:  # the database did not take it when the view was stopped
                    self.stop_view(held, held.stopping)
                elif held.builder is not None and not held.live and held.caught_up and self._reads_live(held):
                    set_state(self._engine, held.name, held.epoch, "live")
                    held.live = True
                    log.info("view_live", view=held.name)
            except Fenced:
                self.forget(held)

    def _reads_live(self, held: Held) -> bool:
        """Whether the views looked up are live."""
        states = [self._states.get(name) for name in held.shape.view.reads]
        return all(state is not None and state.state == "live" for state in states)

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
        states = {name: self._states[name] for name in self.shapes if name in self._states}
        applied = {name: applied_shape(self.shapes[name], s.fingerprint, s.shape) for name, s in states.items()}
        self.applied = {**self.shapes, **applied}

    def _drop_undeclared(self) -> None:
        """Drops views that are declared no more, with all their generations; and a shadow that nobody builds."""
        declared = set(self._declarations.all())
        gone = [name for name in self._states if without_generation(name) not in declared]
        for name in sorted(gone):
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

    def _look_at_topics(self) -> BusError | None:
        """Where the partitions of all held views end now, and whether they are the same topics still; what keeps us
        from it."""
        everything = list(self.held.values())
        topics = {topic for held in everything for topic in held.topics}
        if not topics:
            return None
        try:
            at_ms = _now_ms()
            self._last_ends, ids = self._connected().end_offsets(topics), self._connected().topic_ids(topics)
        except BrokerUnavailable as error:
            return error
        for held in everything:
            reason = reason_to_stop(held.topics, held.ids, ids)
            if held.reading and reason:
                self.stop_view(held, reason)
        note_ends(self._engine, self.leases(), self._last_ends, at_ms)
        return None

    def _connected(self) -> Admin:
        if self._admin is None:
            self._admin = Admin(self._kafka, timeout_s=5.0)
        return self._admin


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
