"""The doors through which serve answers questions about rows."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bus.access.decision import Decider
from bus.infra.connection import KafkaConnection
from bus.infra.records import RecordReader
from bus.infra.stack.credentials import Secrets
from bus.settings import Settings
from bus.sharing.budget.spending import Budget
from bus.sharing.budget.store import BudgetStore
from bus.sharing.exports.door import ExportDoor
from bus.sharing.exports.reading import ExportReader
from bus.sharing.lineage import LineageDoor
from bus.sharing.minimal.answering import MinimalDoor
from bus.sharing.query import QueryDoor
from bus.sharing.readers import open_reader
from bus.sharing.watch import Watch
from bus.wiring.stores import Stores


@dataclass(frozen=True, slots=True)
class Doors:
    """Rows, files of rows, where values come from, yes or no: all behind the decisions of ``query``."""

    query: QueryDoor
    exports: ExportDoor
    lineage: LineageDoor
    minimal: MinimalDoor


def open_doors(settings: Settings, secrets: Secrets, stores: Stores, decider: Decider, kafka: KafkaConnection) -> Doors:
    """All of them, over one reader of the views database. ``kafka``: the bus's own connection, to read events again."""
    audit, reader = stores.audit, open_reader(settings.database, timeout_s=settings.query_timeout_s)
    budget = Budget(BudgetStore(stores.governance), secrets.token("mask").encode())
    query = QueryDoor(
        decider=decider,
        reader=reader,
        audit=audit,
        shapes=stores.applied,
        watch=Watch(stores.views, time.monotonic),
        budget=budget,
        contacts=lambda department: stores.directory.department(department).contact,
        mask_secret=secrets.token("mask").encode(),
    )
    lineage = LineageDoor(
        query,
        decider=decider,
        reader=reader,
        audit=audit,
        records=RecordReader(kafka),
        versions=stores.registry,
    )
    return Doors(
        query,
        ExportDoor(query, reader=ExportReader(settings.database), audit=audit),
        lineage,
        MinimalDoor(query, reader=reader, audit=audit, budget=budget),
    )
