"""aiokafka's producer as the bus uses it for whole batches: idempotent, acknowledged by all replicas."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import aiokafka

from bus.infra.connection import KafkaConnection


async def started_producer(
    connection: KafkaConnection, *, batch_bytes: int, timeout_s: float, stop: Callable[[Any], Awaitable[None]]
) -> Any:
    """A started `AIOKafkaProducer`; one that cannot be started is given to ``stop``. Raises what aiokafka raises."""
    producer = aiokafka.AIOKafkaProducer(
        **connection.aiokafka(),
        acks="all",
        enable_idempotence=True,
        max_batch_size=batch_bytes,
        request_timeout_ms=int(timeout_s * 1_000),
    )
    try:
        await producer.start()
    except BaseException:
        await stop(producer)
        raise
    return producer
