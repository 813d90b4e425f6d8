"""A small bus for worker tests: its own departments, topics, contracts and views on the run's Kafka."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from kafka import KafkaProducer
from run_worker import WorkerProcess
from views_world import FixedRegistry, Topics, demo_schemas, demo_views

from bus.contracts.registry import Registry
from bus.infra.database import open_database
from bus.infra.kafka import Admin, KafkaConnection
from bus.views.catalogue import Declarations, Shape, shapes
from bus.views.oracle.verify import Event, dump, dump_rows, fold
from bus.views.store import VIEW, ViewStore
from bus.views.waiting import wait

PARTITIONS = 2


def eventually(holds: Callable[[], object], *, timeout_s: float = 30.0, what: str = "the condition") -> None:
    """Waits for a condition; the time-out is generous, since it only bounds a failure."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come to hold in {timeout_s} s"
        time.sleep(0.02)


class Bus:
    """Contracts registered, topics made, views declared; events go to Kafka and into the ledger that is folded."""

    def __init__(self, url: str, kafka: KafkaConnection, admin: Admin, logs: Path) -> None:
        self.url, self.kafka, self.admin, self.logs = url, kafka, admin, logs
        suffix = uuid.uuid4().hex[:8]
        self.licence, self.inspection = f"m{suffix}.licence", f"f{suffix}.inspection"
        governance = open_database(url, "governance")
        self.registry, self.declarations = Registry(governance), Declarations(governance)
        self.ids = {}
        documents = demo_schemas(suffix)
        for document in documents:
            registered = self.registry.register(document)
            self.ids[registered.contract.id] = registered.id
            admin.ensure_topic(registered.contract.topic, partitions=PARTITIONS)
        admin.ensure_topic("bus.control", partitions=1)
        self.topics = Topics(FixedRegistry(*documents))
        self.topics.ids = self.ids
        for view in demo_views(suffix):
            self.declarations.apply(view, self.registry.contracts())
        self.engine = open_database(url, "views", durable=False)
        self.store = ViewStore(self.engine)
        self.producer = KafkaProducer(**kafka.kafka_python(), linger_ms=20, acks="all", enable_idempotence=True)
        self.processes: list[WorkerProcess] = []

    @property
    def shapes(self) -> dict[str, Shape]:
        return shapes(self.declarations, self.registry.contracts())

    def publish(self, event: Event) -> None:
        """Appends to the ledger and to Kafka, same partition, same offset."""
        self.topics.append(event)
        self.send_raw(event.entity, event.partition, self.topics.log(event.entity, event.partition)[-1])

    def send_raw(self, entity: str, partition: int, message: Any) -> None:
        self.producer.send(
            f"dept.{entity}", value=message.value, key=message.key, headers=list(message.headers), partition=partition
        )

    def flush(self) -> None:
        self.producer.flush()

    def worker(
        self,
        *,
        crash: float = 0.0,
        seed: int = 0,
        lease_s: float = 0.5,
        batch_events: int = 500,
        **more: Any,
    ) -> WorkerProcess:
        """Starts a worker process. ``more``: what else `run_worker.run` takes."""
        kafka = {name: getattr(self.kafka, name) for name in ("bootstrap", "username", "password")}
        given = {"database": self.url, "kafka": kafka, "seed": seed, "crash": crash}
        given |= {"lease_s": lease_s, "batch_events": batch_events, **more}
        process = WorkerProcess(given, self.logs / f"worker-{len(self.processes)}.log")
        self.processes.append(process)
        return process

    def wait(self, *names: str, timeout_s: float = 60.0) -> None:
        self.flush()
        wait(self.store, self.shapes, self.admin.end_offsets, names or tuple(self.shapes), timeout_s)

    def dump(self, name: str) -> bytes:
        with self.engine.connect() as connection:
            return dump(connection, self.shapes[name])

    def expected(self, name: str) -> bytes:
        shape = self.shapes[name]
        return dump_rows(shape.columns, fold(shape.view, self.registry.contracts(), self.topics.events))

    def check(self) -> None:
        """Every view that is built from topics equals the fold of the ledger."""
        for name, shape in self.shapes.items():
            if shape.contracts:
                assert self.dump(name) == self.expected(name), name

    def signs(self) -> dict[str, tuple[int, int]]:
        """The epoch and the number of the last sign of life of each view's builder."""
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(VIEW.c.name, VIEW.c.epoch, VIEW.c.beat)).all()
        return {row.name: (row.epoch, row.beat) for row in rows}

    def output(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-3_000:] for path in sorted(self.logs.glob("worker-*.log")))

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        self.producer.close(timeout=5)
        self.engine.dispose()
