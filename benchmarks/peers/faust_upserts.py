"""A plain Faust agent, one event at a time: decode, then the same guarded upsert, committed every 5,000 events.

The clock runs from the first commit to the last (see `run_worker`); where one was all there was, from the first event.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import uuid
from typing import Any

import fastavro
import faust
import psycopg

from benchmarks import data

UPSERT = """
INSERT INTO term (licence_term_id, licence_number, legal_name, address, description, zip_code, ward, term_start,
                  event_partition, event_offset)
VALUES (%(licence_term_id)s, %(licence_number)s, %(legal_name)s, %(address)s, %(description)s, %(zip_code)s, %(ward)s,
        %(term_start)s, %(event_partition)s, %(event_offset)s)
ON CONFLICT (licence_term_id) DO UPDATE SET licence_number = excluded.licence_number,
    legal_name = excluded.legal_name, address = excluded.address, description = excluded.description,
    zip_code = excluded.zip_code, ward = excluded.ward, term_start = excluded.term_start,
    event_offset = excluded.event_offset
WHERE excluded.event_offset > term.event_offset
"""
COMMIT_EVERY = 5_000


def main() -> None:
    given = json.loads(sys.argv[1])
    kafka, wanted = given["kafka"], given["events"]
    app = faust.App(
        f"faust-{uuid.uuid4().hex}",
        broker=f"kafka://{kafka['bootstrap']}",
        broker_credentials=faust.SASLCredentials(
            username=kafka["username"], password=kafka["password"], mechanism="SCRAM-SHA-512"
        ),
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        store="memory://",
        datadir=given["folder"],
    )
    schema = fastavro.parse_schema(data.LICENCE)
    connection = psycopg.connect(given["database"], options="-c synchronous_commit=off")
    cursor = connection.cursor()
    topic = app.topic(given["topic"], key_serializer="raw", value_serializer="raw")

    async def upsert(stream: Any) -> None:
        begun, before, count, newest = 0.0, 0, 0, {}
        async for event in stream.events():
            begun = begun or time.perf_counter()
            row: Any = fastavro.schemaless_reader(io.BytesIO(event.value[5:]), schema)
            row |= {"event_partition": event.message.partition, "event_offset": event.message.offset}
            cursor.execute(UPSERT, row)
            newest[row["licence_term_id"]] = row["ward"]
            count += 1
            if count % COMMIT_EVERY == 0 or count == wanted:
                connection.commit()
                if not before and count < wanted:
                    begun, before = time.perf_counter(), count
            if count == wanted:
                seconds = time.perf_counter() - begun
                sums = {"rows": len(newest), "wards": sum(newest.values()), "timed": count - before}
                print(json.dumps({"seconds": seconds, "events": count, **sums}), flush=True)
                os._exit(0)

    app.agent(topic)(upsert)
    faust.Worker(app, loglevel="ERROR", redirect_stdouts=False, quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main()
