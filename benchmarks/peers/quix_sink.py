"""Quix Streams with its own PostgreSQL sink: the topic into a table with upserts on the primary key.

The clock runs from the end of the sink's first write to the end of its last and counts the records between them (see
`run_worker`); where one write was all there was, from the first record that Quix hands on.
"""

from __future__ import annotations

import io
import json
import sys
import time
import uuid
from typing import Any

import fastavro
from quixstreams import Application
from quixstreams.kafka.configuration import ConnectionConfig
from quixstreams.models.serializers.base import Deserializer
from quixstreams.sinks.community.postgresql import PostgreSQLSink

from benchmarks import data


class Value(Deserializer):
    """The record behind the five bytes of the wire format."""

    def __init__(self) -> None:
        super().__init__()
        self._schema = fastavro.parse_schema(data.LICENCE)

    def __call__(self, value: bytes, ctx: Any) -> Any:
        return fastavro.schemaless_reader(io.BytesIO(value[5:]), self._schema)


class TimedSink(PostgreSQLSink):
    """The sink as it is, with a clock."""

    begun = done = 0.0
    written = 0
    first: tuple[float, int] | None = None

    def add(self, *arguments: Any, **named: Any) -> Any:
        self.begun = self.begun or time.perf_counter()
        return super().add(*arguments, **named)

    def write(self, batch: Any) -> None:
        super().write(batch)
        self.written += batch.size
        self.done = time.perf_counter()
        self.first = self.first or (self.done, self.written)


def main() -> None:
    given = json.loads(sys.argv[1])
    kafka = given["kafka"]
    app = Application(
        broker_address=ConnectionConfig(
            bootstrap_servers=kafka["bootstrap"],
            security_protocol="sasl_plaintext",
            sasl_mechanism="SCRAM-SHA-512",
            sasl_username=kafka["username"],
            sasl_password=kafka["password"],
        ),
        consumer_group=f"quix-{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        commit_every=20_000,
        state_dir=given["folder"],
        loglevel="WARNING",
        auto_create_topics=False,
    )
    sink = TimedSink(
        host="127.0.0.1",
        port=given["port"],
        dbname=given["dbname"],
        user="bus",
        password="",
        table_name="term",
        schema_auto_update=False,
        primary_key_columns="licence_term_id",
        upsert_on_primary_key=True,
        include_metadata=False,
        options="-c synchronous_commit=off",
    )
    topic = app.topic(given["topic"], value_deserializer=Value(), key_deserializer="str")
    app.dataframe(topic).sink(sink)
    app.run(count=given["events"], timeout=20)
    since, before = sink.first if sink.first and sink.first[1] < sink.written else (sink.begun, 0)
    timed = {"seconds": sink.done - since, "timed": sink.written - before}
    print(json.dumps({"events": sink.written, **timed}))


if __name__ == "__main__":
    main()
