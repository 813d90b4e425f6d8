"""Single records of the bus itself, sent one at a time and only done once Kafka has acknowledged them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from bus.errors import BrokerUnavailable
from bus.infra.connection import KafkaConnection

_WAIT_S: Final = 10.0
_BOOTSTRAP_MS: Final = 5_000


class Sender:
    """Sends with a producer that is made when first needed and made anew after trouble. Not thread-safe."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._producer: Any = None

    def send(self, topic: str, *, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Returns once Kafka has acknowledged the record. Raises `BrokerUnavailable`."""
        from kafka.errors import KafkaError

        try:
            self._sending().send(topic, key=key, value=value, headers=list(headers)).get(timeout=_WAIT_S)
        except (KafkaError, OSError) as error:
            self.close()
            raise BrokerUnavailable() from error

    def close(self) -> None:
        """Gives the connection back; the next record makes another."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=1.0)

    def _sending(self) -> Any:
        from kafka import KafkaProducer

        if self._producer is None:
            settings = {"acks": "all", "bootstrap_timeout_ms": _BOOTSTRAP_MS}
            self._producer = KafkaProducer(**self._connection.kafka_python(), **settings)
        return self._producer
