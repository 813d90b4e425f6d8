"""What the bus says to Kafka as its administrator: topics, principals, ACLs, end offsets.

Connecting blocks (kafka-python waits for its bootstrap), so an `Admin` is made at start-up or in a command, never in a
request handler.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import (
    ConfigResource,
    ConfigResourceType,
    OffsetSpec,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from bus.errors import BrokerUnavailable, BusError
from bus.infra.acl import EVERYTHING, Acl, exactly, from_kafka, to_kafka
from bus.infra.connection import KafkaConnection

__all__ = ["Acl", "Admin", "KafkaConnection"]

SCRAM_ITERATIONS = 8192
_EFFECTIVE_S = 10.0


class Admin:
    """The administrator's connection. Every method raises BrokerUnavailable if Kafka does not answer.

    `timeout_s` bounds connecting and each request. Safe to use from several threads.
    """

    def __init__(self, connection: KafkaConnection, *, timeout_s: float = 10.0) -> None:
        self._connection = connection
        milliseconds = int(timeout_s * 1_000)
        try:
            self._client = _Client(
                **connection.kafka_python(),
                client_id="bus-admin",
                bootstrap_timeout_ms=milliseconds,
                request_timeout_ms=milliseconds,
            )
        except (kafka_errors.KafkaError, OSError) as error:
            # kafka-python 3.0.12 tries a refused password again until its time-out, and then reports only that
            raise BrokerUnavailable(
                f"Kafka at {connection.bootstrap} did not let '{connection.username}' in within {timeout_s:g} s: it "
                "does not answer, or the password is wrong. Operators: `bus status`, `bus up`."
            ) from error

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def topics(self) -> set[str]:
        """The names of all topics."""
        with _translated():
            return set(self._client.list_topics())

    def ensure_topic(
        self, name: str, *, partitions: int = 1, replication: int = 1, config: Mapping[str, str] | None = None
    ) -> bool:
        """Create the topic, or bring the configuration of an existing one to `config`; true if it was created.

        Returns when every partition has a leader. Raises BusError if the topic exists with another number of
        partitions: that number never changes, since it decides where a record's key lives.
        """
        wanted = dict(config or {})
        order = {"num_partitions": partitions, "replication_factor": replication, "configs": wanted}
        with _translated():
            try:
                self._client.create_topics({name: order}, wait_for_metadata=True)
            except kafka_errors.TopicAlreadyExistsError:
                self._check_partitions(name, partitions)
                self._alter(name, wanted)
                return False
        return True

    def set_scram(self, principal: str, password: str) -> None:
        """Create the principal, or replace its password; returns when the broker lets it in with this one."""
        change = UserScramCredentialUpsertion(principal, ScramMechanism.SCRAM_SHA_512, password, SCRAM_ITERATIONS)
        with _translated():
            results = self._client.alter_user_scram_credentials([change])
        if results[principal] is not None:
            raise BusError(f"Kafka refused to change the password of {principal}: {results[principal]}")
        # what is described is only what the controller knows; the broker's own copy follows, so log in to be sure
        Admin(replace(self._connection, username=principal, password=password), timeout_s=_EFFECTIVE_S).close()

    def lock_out(self, principal: str) -> None:
        """See to it that `principal` cannot log in any more, by a password that nobody knows.

        The credential is not deleted: a Kafka 4.1.0 that restarts with a deletion in its metadata log, before the next
        snapshot, has lost the credentials of everybody (measured; see the test).
        """
        if principal in self.principals():
            self.set_scram(principal, secrets.token_urlsafe(32))

    def principals(self) -> set[str]:
        """Every principal that has a SCRAM-SHA-512 password."""
        with _translated():
            described = self._client.describe_user_scram_credentials()
        return {
            user
            for user, entry in described.items()
            if any(info["mechanism"] is ScramMechanism.SCRAM_SHA_512 for info in entry["credential_infos"])
        }

    def acls(self) -> set[Acl]:
        """Every ACL, those included that somebody else made."""
        with _translated():
            found, _ = self._client.describe_acls(EVERYTHING)
        return {from_kafka(item) for item in found}

    def ensure_acls(self, wanted: Iterable[Acl]) -> None:
        """Create what is missing of `wanted`; returns when all of it is in force. Others stay."""
        all_wanted = set(wanted)
        missing = all_wanted - self.acls()
        if not missing:
            return
        with _translated():
            failed = self._client.create_acls([to_kafka(acl) for acl in missing])["failed"]
        if failed:
            raise BusError(f"Kafka refused {len(failed)} ACLs: {', '.join({error.__name__ for error in failed})}")
        _until(lambda: all_wanted <= self.acls(), "new ACLs")

    def remove_acls(self, unwanted: Iterable[Acl]) -> None:
        """Remove exactly these; returns when none of them is in force. Absent ones are no error."""
        all_unwanted = set(unwanted)
        if not all_unwanted:
            return
        with _translated():
            results = self._client.delete_acls([exactly(acl) for acl in all_unwanted])
            for _, _, error in results:
                if error is not kafka_errors.NoError:
                    raise error()
        _until(lambda: not all_unwanted & self.acls(), "removal of ACLs")

    def end_offsets(self, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        """The offset after the last record of each (topic, partition), up to the first transaction that is still open:
        what readers can have by now. Topics that do not exist are left out."""
        return self._offsets(topics, OffsetSpec.LATEST)

    def start_offsets(self, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        """The offset of the first record that is still there, of each (topic, partition)."""
        return self._offsets(topics, OffsetSpec.EARLIEST)

    def delete_before(self, offsets: Mapping[str, int]) -> None:
        """Make all records of partition 0 of each topic before its offset unreadable. Raises BusError if one is not."""
        wanted = {TopicPartition(topic, 0): offset for topic, offset in offsets.items()}
        with _translated():
            done = self._client.delete_records(wanted) if wanted else {}
        for place, offset in wanted.items():
            if done[place]["low_watermark"] < offset:
                raise BrokerUnavailable(f"Kafka still shows what was deleted of {place.topic}.")

    def newest_ms(self, topics: Iterable[str]) -> dict[str, int]:
        """When the newest record of each topic was appended, by the broker's clock in ms since 1970. Topics that do not
        exist or are empty are left out."""
        newest: dict[str, int] = {}
        for (topic, _), found in self._found(topics, OffsetSpec.MAX_TIMESTAMP).items():
            if found.offset >= 0:
                newest[topic] = max(newest.get(topic, 0), int(found.timestamp))
        return newest

    def topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """What tells a topic from one of the same name that was deleted before. Missing topics are left out."""
        names = sorted(set(topics))
        if not names:
            return {}
        with _translated():
            described = self._client.describe_topics(names)
        return {topic["name"]: str(topic["topic_id"]) for topic in described if topic["partitions"]}

    def _offsets(self, topics: Iterable[str], spec: OffsetSpec) -> dict[tuple[str, int], int]:
        return {place: found.offset for place, found in self._found(topics, spec).items()}

    def _found(self, topics: Iterable[str], spec: OffsetSpec) -> dict[tuple[str, int], Any]:
        names = sorted(set(topics))
        if not names:
            return {}
        with _translated():
            described = self._client.describe_topics(names)
            specs = {
                TopicPartition(topic["name"], partition["partition_index"]): spec
                for topic in described
                for partition in topic["partitions"]
            }
            found = self._client.list_partition_offsets(specs, "read_committed") if specs else {}
        return {(place.topic, place.partition): entry for place, entry in found.items()}

    def _check_partitions(self, name: str, partitions: int) -> None:
        (described,) = self._client.describe_topics([name])
        actual = len(described["partitions"])
        if actual != partitions:
            raise BusError(
                f"Topic {name} has {actual} partitions, not {partitions}; the number never changes. "
                "Make a new generation of the topic and rebuild its views."
            )

    def _alter(self, name: str, wanted: Mapping[str, str]) -> None:
        if not wanted:
            return
        resource = ConfigResource(ConfigResourceType.TOPIC, name, dict(wanted))
        current = self._client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)], config_filter="all")
        values = {key: entry["value"] for key, entry in current["topic"][name].items()}
        if any(values.get(key) != value for key, value in wanted.items()):
            result = self._client.alter_configs([resource])["topic"][name]
            if result != "OK":
                raise BusError(f"Kafka refused the configuration of topic {name}: {result}")


class _Client(KafkaAdminClient):  # type: ignore[misc]
    """As it is, but a failed construction leaves no thread behind."""

    def __init__(self, **configs: Any) -> None:
        try:
            super().__init__(**configs)
        except BaseException:
            if hasattr(self, "_net"):
                self._client.close()
                self._net.stop()
            raise


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Kafka's errors as the bus's: what passes by itself is BrokerUnavailable, a refusal is BusError."""
    try:
        yield
    except kafka_errors.KafkaError as error:
        if isinstance(error, kafka_errors.RetriableError):
            raise BrokerUnavailable() from error
        raise BusError(f"Kafka refused: {error}") from error
    except OSError as error:
        raise BrokerUnavailable() from error


def _until(holds: Callable[[], bool], what: str) -> None:
    """Brokers apply what the controller accepted a moment later; wait for it."""
    deadline = time.monotonic() + _EFFECTIVE_S
    while not holds():
        if time.monotonic() > deadline:
            raise BrokerUnavailable(f"Kafka accepted, but does not show: {what}")
        time.sleep(0.02)
