"""A department's way onto the bus: each change checked against its contract and sent to the department's topic."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import kafka
import kafka.errors

from bus.contracts.quarantine import Quarantined
from bus.contracts.registry import SchemaSource
from bus.contracts.validation import Violation
from bus.core.contracts import Contract
from bus.core.events import DELETE, UPSERT, headers
from bus.core.names import entity_id
from bus.errors import BusError, ContractRetired, ContractViolation, TooLarge
from bus.errors import Refused as Forbidden
from bus.infra.kafka import KafkaConnection
from bus.publishing.bulk import BulkSender, translated
from bus.publishing.csv_rows import FIRST_ROW, typed_rows
from bus.publishing.events import Ack, EventIds, Refused, Report, quarantined
from bus.publishing.json_lines import items
from bus.publishing.preparing import TOO_LARGE, Preparer, preparer_for

_STOP_S: Final = 5.0


class Publisher:
    """Publishes one department's changes. Connects at first use; safe to use from several threads.

    ``quarantine``: where refused rows of `publish_many` go. ``timeout_s``: how long Kafka may take to answer.
    Entities are named ``business_licence`` or ``market.business_licence``.
    """

    def __init__(
        self,
        department: str,
        *,
        connection: KafkaConnection,
        registry: SchemaSource,
        quarantine: Callable[[Sequence[Quarantined]], None],
        timeout_s: float = 30.0,
    ) -> None:
        self.department = department
        self._connection = connection
        self._registry = registry
        self._quarantine = quarantine
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._producer: Any = None
        self._preparers: dict[str, Preparer] = {}
        self._ids = EventIds()
        self._sequenced: set[str] = set()

    def publish(
        self,
        entity: str,
        record: Mapping[str, Any],
        *,
        sequence: int | None = None,
        time: dt.datetime | None = None,
        corrects: str | None = None,
    ) -> Ack:
        """Sends one record's new state; returns when Kafka has it on all replicas in sync.

        ``sequence``: the source's own order of changes; an entity once published with sequences always needs one.
        ``time``: when it happened, if not now. ``corrects``: the id of the event that this one corrects.
        Raises `ContractViolation`, `TooLarge`, `UnknownEntity`, `BrokerUnavailable` (then send it again).
        """
        preparer = self._preparer(entity)
        event = preparer.upsert(record)
        if isinstance(event, tuple):
            raise _violation(preparer.contract, event)
        stated = {"time": _rfc3339(time), "sequence": sequence, "corrects": corrects}
        return self._send(preparer.contract, event.key, event.value, UPSERT, stated)

    def delete(self, entity: str, key: Mapping[str, Any], *, version: Any = None, sequence: int | None = None) -> Ack:
        """Says that a record is gone. ``key``: its key fields; ``version``: the value of the contract's version field
        at the deletion, where the contract names one. Raises as `publish`."""
        preparer = self._preparer(entity)
        event = preparer.delete(key, version)
        if isinstance(event, tuple):
            raise _violation(preparer.contract, event)
        stated = {"sequence": sequence, "version": event.version}
        return self._send(preparer.contract, event.key, None, DELETE, stated)

    def publish_many(
        self,
        entity: str,
        records: Iterable[Any],
        *,
        progress: Callable[[int], None] | None = None,
        first_line: int = 1,
    ) -> Report:
        """Sends many records (mappings, or `Delete` among them), in whole batches; order is kept for each key.

        Refused records do not stop the rest: they are in the report and in quarantine, with their line
        (``first_line`` for the first record) and reasons. ``progress`` is told how many records are done.
        Raises `BrokerUnavailable` when Kafka does not take them; sending all of them again does no harm.
        """
        preparer = self._preparer(entity)
        if preparer.contract.id in self._sequenced:
            raise _without_sequence(preparer.contract)

        def set_aside(refused: list[tuple[Any, Refused]]) -> None:
            self._quarantine([quarantined(preparer.contract, record, why) for record, why in refused])

        sender = BulkSender(
            preparer,
            self._connection,
            ids=self._ids,
            quarantine=set_aside,
            progress=progress,
            timeout_s=self._timeout_s,
        )
        return asyncio.run(sender.run(records, first_line=first_line))

    def load(self, entity: str, path: Path, *, progress: Callable[[int], None] | None = None) -> Report:
        """Sends every row of a CSV file (plain or .gz) with a header of the contract's fields, as `publish_many`."""
        contract = self._preparer(entity).contract
        return self.publish_many(entity, typed_rows(contract, path), progress=progress, first_line=FIRST_ROW)

    def publish_lines(
        self, entity: str, lines: Iterable[str], *, progress: Callable[[int], None] | None = None
    ) -> Report:
        """Sends JSON lines (see `bus.publishing.json_lines`), as `publish_many`; line numbers start at 1."""
        contract = self._preparer(entity).contract
        return self.publish_many(entity, items(contract, lines), progress=progress)

    def close(self) -> None:
        """Ends the connection. What was acknowledged is safe; nothing else is under way."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            try:
                producer.flush(timeout=self._timeout_s)
            except kafka.errors.KafkaError:
                _give_up(producer)  # `publish` has told what Kafka never took
            else:
                producer.close(timeout=self._timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _preparer(self, entity: str) -> Preparer:
        """The newest contract of one of this department's entities, ready to write events."""
        name = entity_id(entity if "." in entity else f"{self.department}.{entity}")
        owner = name.partition(".")[0]
        if owner != self.department:
            raise Forbidden(f"{self.department} may not publish {name}: only {owner}, its owner, may.")
        contract = self._registry.contract(name)
        if contract.retired:
            raise ContractRetired(entity=name, owner=contract.owner)
        known = self._preparers.get(name)
        if known is None or known.contract is not contract:
            known = self._preparers[name] = preparer_for(self._registry, contract)
        return known

    def _send(
        self, contract: Contract, key: str, value: bytes | None, operation: str, stated: Mapping[str, Any]
    ) -> Ack:
        self._check_sequence(contract, stated["sequence"])
        event_id = self._ids.next()
        event_headers = headers(
            event_id=event_id,
            department=contract.department,
            entity=contract.entity,
            operation=operation,
            **stated,
        )
        try:
            sent = self._connected().send(contract.topic, key=key.encode(), value=value, headers=event_headers)
            place = sent.get(timeout=self._timeout_s)
        except kafka.errors.MessageSizeTooLargeError as error:
            raise TooLarge(limit="an event of at most 1 MiB") from error
        except (kafka.errors.KafkaError, OSError) as error:
            self._renew()
            raise translated(error, contract.topic) from error
        return Ack(place.topic, place.partition, place.offset, event_id)

    def _check_sequence(self, contract: Contract, sequence: int | None) -> None:
        """A missing sequence is older than every other, so such an event would change nothing: refuse it here."""
        if sequence is not None:
            self._sequenced.add(contract.id)
        elif contract.id in self._sequenced:
            raise _without_sequence(contract)

    def _renew(self) -> None:
        """The next event gets a new producer: an idempotent one that gave up on an event while the broker was away
        waits for ever for what became of it (kafka-python 3.0.12, measured: no further event was sent)."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            _give_up(producer)

    def _connected(self) -> Any:
        """The producer for single events; the settings that safety rests on are all stated (E14, E14b, E15)."""
        with self._lock:
            if self._producer is None:
                milliseconds = int(self._timeout_s * 1_000)
                self._producer = kafka.KafkaProducer(
                    **self._connection.kafka_python(),
                    acks="all",
                    enable_idempotence=True,
                    delivery_timeout_ms=max(milliseconds, 1_000),
                    request_timeout_ms=max(milliseconds // 2, 500),
                    max_block_ms=milliseconds,
                    bootstrap_timeout_ms=milliseconds,
                    allow_auto_create_topics=False,
                )
            return self._producer


def _give_up(producer: Any) -> None:
    """Ends a producer with what it still holds; `close` alone would raise and leave its thread running."""
    producer._sender.force_close()  # noqa: SLF001
    with contextlib.suppress(kafka.errors.KafkaError):
        producer.close(timeout=_STOP_S)


def _violation(contract: Contract, faults: tuple[Violation, ...]) -> BusError:
    """The first fault as the error, all of them as its member ``violations``."""
    first = faults[0]
    if first.field == TOO_LARGE:
        return TooLarge(limit=first.expected)
    return ContractViolation(
        entity=contract.id,
        field=first.field,
        expected=first.expected,
        received=first.received,
        violations=[fault.as_reason() for fault in faults],
    )


def _without_sequence(contract: Contract) -> ContractViolation:
    return ContractViolation(
        entity=contract.id,
        field="ce_sequence",
        expected="a sequence, as earlier events of this entity had one",
        received="none",
    )


def _rfc3339(time: dt.datetime | None) -> str | None:
    if time is None:
        return None
    if time.tzinfo is None:
        raise ContractViolation(
            entity="an event", field="ce_time", expected="an instant with its time zone", received="one without"
        )
    return time.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
