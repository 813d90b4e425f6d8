"""The process that writes streams as it runs, until every stream is where its view is; says what that took.

The clock runs from the first append to the last acknowledgement: connecting and the lease are nobody's speed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence

from bus.access.broker import STREAMS
from bus.access.store import GrantStore
from bus.infra.database import open_database
from bus.infra.kafka import Admin
from bus.settings import Settings
from bus.sharing.streams.notices import Record
from bus.sharing.streams.overview import subscriptions
from bus.sharing.streams.sending import KafkaSink
from bus.sharing.streams.store import StreamStore
from bus.views.changelog.reading import ChangeLog
from bus.wiring.site import connection
from bus.wiring.streams import writing

_LOOK_S = 0.1


class TimedSink(KafkaSink):
    """Notes how much was appended, and when."""

    first = last = cpu = 0.0
    appended = 0

    async def append_all(self, pages: Mapping[str, Sequence[Record]]) -> Mapping[str, int | Exception]:
        if not self.first:
            self.first, self.cpu = time.perf_counter(), time.process_time()
        offsets = await super().append_all(pages)
        self.last = time.perf_counter()
        self.appended += sum(len(records) for topic, records in pages.items() if isinstance(offsets[topic], int))
        return offsets


async def main(streams: int) -> None:
    settings = Settings()
    principal = connection(settings, str(settings.kafka), STREAMS)
    sink = TimedSink(principal, lambda: Admin(principal))
    store = StreamStore(open_database(settings.database, "streams", durable=False))
    log = ChangeLog(open_database(settings.database, "views", read_only=True))
    revision = GrantStore(open_database(settings.database, "governance")).revision()
    async with writing(settings, str(settings.opa), sink) as process:
        running = asyncio.create_task(process.run())
        while not await asyncio.to_thread(_settled, store, log, f".{revision}", streams):
            await asyncio.sleep(_LOOK_S)
            if running.done():
                running.result()
        cpu = time.process_time() - sink.cpu if sink.first else 0.0
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    seconds = sink.last - sink.first
    sys.stdout.write(json.dumps({"appended": sink.appended, "seconds": seconds, "cpu_s": cpu}) + "\n")


def _settled(store: StreamStore, log: ChangeLog, revision: str, streams: int) -> bool:
    """Whether so many streams are where their views are, under the terms of these grants."""
    found = [item for item in subscriptions(store, log.standings) if item["policy_revision"].endswith(revision)]
    there = [item for item in found if item["state"] == "running" and not item["behind"] and not item["problem"]]
    return len(there) == streams


if __name__ == "__main__":
    asyncio.run(main(int(json.loads(sys.argv[1])["streams"])))
