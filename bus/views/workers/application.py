"""The Faust application of a worker: two agents; no tables, no web server, no topics of its own (E9 to E13, K6)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import faust

from bus.infra.kafka import KafkaConnection

CONTROL: Final = "bus.control"


class _App(faust.App):  # type: ignore[misc]
    """Without the folders that Faust makes for tables in the working directory: there are no tables."""

    def _create_directories(self) -> None:
        pass


def application(
    name: str, kafka: KafkaConnection, build: Callable[[Any], Awaitable[None]], nudge: Callable[[], None]
) -> tuple[Any, Any]:
    """The application and its bounded channel. ``build`` is awaited with whatever is put there, one after the other,
    and must not raise; ``nudge`` is called for each event of the control topic."""
    app = _App(
        name,
        broker=f"kafka://{kafka.bootstrap.replace(',', ';')}",
        broker_credentials=faust.SASLCredentials(
            username=kafka.username,
            password=kafka.password,
            mechanism="SCRAM-SHA-512",
            ssl_context=kafka.ssl_context(),
        ),
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=False,
        consumer_auto_offset_reset="latest",
        key_serializer="raw",
        value_serializer="raw",
        store="memory://",
    )
    rounds = app.channel(maxsize=2)

    async def building(channel: Any) -> None:
        async for following in channel:
            await build(following)

    async def listening(messages: Any) -> None:
        async for _ in messages:
            nudge()

    app.agent(rounds, name="build")(building)
    app.agent(app.topic(CONTROL, value_serializer="raw", key_serializer="raw"), name="control")(listening)
    return app, rounds
