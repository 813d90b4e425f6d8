"""The head of the chain, kept elsewhere every minute: a log that was cut off or rewritten whole is found by it.

Two places, so that who can write the governance database and one of them still cannot change the log quietly: a file
that only grows, meant for another user's or another machine's disk, and a topic that only the bus may write.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from bus.audit.log import Head
from bus.errors import AuditUnavailable, BrokerUnavailable
from bus.infra.connection import KafkaConnection
from bus.infra.sending import Sender
from bus.infra.stack.files import private_folder

log = structlog.get_logger(__name__)
ANCHOR_TOPIC: Final = "bus.audit"
_POLL_MS: Final = 500


@dataclass(frozen=True, slots=True)
class Anchor:
    """A head as ``place`` keeps it since ``at`` (RFC 3339)."""

    head: Head
    at: str
    place: str


class Place(Protocol):
    """Where heads are kept, oldest first. Both methods raise a `BusError` where it cannot be reached."""

    @property
    def name(self) -> str: ...
    def keep(self, head: Head, at: str) -> None: ...
    def kept(self) -> Sequence[Anchor]: ...


class FileAnchors:
    """A file with one JSON line for each head; it is only ever appended to, and each line is on disk when told so."""

    name: Final = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, head: Head, at: str) -> None:
        """Appends a head. Raises `AuditUnavailable` where the file cannot be written."""
        try:
            private_folder(self._path.parent)
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(handle, _as_json(head, at) + b"\n")
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise AuditUnavailable() from error

    def kept(self) -> Sequence[Anchor]:
        """Every head; none before the first was kept. Raises `AuditUnavailable` where the file cannot be read."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise AuditUnavailable() from error
        return _readable(lines, self.name)


class TopicAnchors:
    """A topic that is kept for ever and that departments can neither write nor read."""

    name: Final = "topic"

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection, self._sender = connection, Sender(connection)

    def keep(self, head: Head, at: str) -> None:
        """Returns once Kafka has acknowledged the head. Raises `BrokerUnavailable`."""
        self._sender.send(ANCHOR_TOPIC, key=b"head", value=_as_json(head, at))

    def kept(self) -> Sequence[Anchor]:
        """Every head in the topic. Raises `BrokerUnavailable`, also where not all of it came in time."""
        from kafka.errors import KafkaError

        try:
            return _readable(_records(self._connection), self.name)
        except (KafkaError, OSError) as error:
            raise BrokerUnavailable() from error

    def close(self) -> None:
        """Gives the connection back."""
        self._sender.close()


def _records(connection: KafkaConnection) -> list[bytes]:
    """The values of the whole topic, up to its end as it is now."""
    from kafka import KafkaConsumer, TopicPartition
    from kafka.errors import KafkaTimeoutError

    partition = TopicPartition(ANCHOR_TOPIC, 0)
    settings = {"group_id": None, "enable_auto_commit": False, "auto_offset_reset": "none"}
    consumer = KafkaConsumer(**connection.kafka_python(), **settings)
    try:
        consumer.assign([partition])
        (begin,), (end,) = (
            offsets.values() for offsets in (consumer.beginning_offsets([partition]), consumer.end_offsets([partition]))
        )
        consumer.seek(partition, begin)
        found: list[bytes] = []
        while consumer.position(partition) < end:
            polled = consumer.poll(timeout_ms=_POLL_MS)
            if not polled and consumer.position(partition) < end:
                raise KafkaTimeoutError("the topic of anchors did not answer in time")
            found += [record.value for records in polled.values() for record in records]
        return found
    finally:
        consumer.close()


def _as_json(head: Head, at: str) -> bytes:
    return json.dumps({"sequence": head.sequence, "hash": head.hash, "at": at}).encode()


def _readable(lines: Iterable[bytes], place: str) -> list[Anchor]:
    """A line that was cut off by a crash is left out; one that was forged does not read as a head or contradicts."""
    found = []
    for line in lines:
        try:
            document = json.loads(line)
            found.append(Anchor(Head(int(document["sequence"]), str(document["hash"])), str(document["at"]), place))
        except (ValueError, KeyError, TypeError):
            log.warning("a line among the audit log's anchors cannot be read", place=place)
    return found
