"""Social security keeps its own table of the food businesses that passed inspection, always as the bus has them.

Run it beside a running demo: ``python -m consumers.social passed.db``. Stop or kill it at any moment and run it again:
it goes on where its table is, because the place in the stream is kept in the same transaction as the rows. Copy it:
change the view, the purpose and the columns; everything else stays.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Iterator

from bus import Batch, Delete, Notice, Subscriber, Upsert
from bus.errors import BusError

VIEW, PURPOSE = "food_business", "employment_support"
COLUMNS = ("licence_number", "legal_name", "ward", "last_result")
TABLES = """
CREATE TABLE IF NOT EXISTS business (
    key TEXT PRIMARY KEY, licence_number INTEGER, legal_name TEXT, ward INTEGER, last_result TEXT, snapshot INTEGER
);
CREATE TABLE IF NOT EXISTS place (id INTEGER PRIMARY KEY CHECK (id = 1), cursor TEXT, snapshot INTEGER);
INSERT OR IGNORE INTO place VALUES (1, NULL, 0);
"""
UPSERT = "INSERT OR REPLACE INTO business VALUES (?, ?, ?, ?, ?, ?)"


def open_table(path: str) -> sqlite3.Connection:
    """The table and the place in the stream, in one file."""
    table = sqlite3.connect(path, isolation_level=None)
    table.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + TABLES)
    return table


def keep(table: sqlite3.Connection, batch: Batch) -> None:
    """Applies a batch and moves the place behind it, both or neither."""
    with transaction(table):
        (snapshot,) = table.execute("SELECT snapshot FROM place").fetchone()
        for change in batch:
            snapshot = apply(table, change, snapshot)
        table.execute("UPDATE place SET cursor = ?, snapshot = ?", (batch.cursor, snapshot))


def apply(table: sqlite3.Connection, change: Upsert | Delete | Notice, snapshot: int) -> int:
    """One change. Every row remembers in which snapshot it was seen last; what a snapshot did not bring is gone."""
    match change:
        case Upsert(key, row):
            table.execute(UPSERT, (key, *(row.get(name) for name in COLUMNS), snapshot))
        case Delete(key):
            table.execute("DELETE FROM business WHERE key = ?", (key,))
        case Notice():
            if change.kind == "snapshot_begins":
                snapshot += 1
            elif change.kind == "snapshot_ends":
                table.execute("DELETE FROM business WHERE snapshot < ?", (snapshot,))
            print(f"{change.kind}: {change.document.get('reason') or 'as agreed'}", flush=True)
    return snapshot


@contextlib.contextmanager
def transaction(table: sqlite3.Connection) -> Iterator[None]:
    """All or nothing."""
    table.execute("BEGIN IMMEDIATE")
    try:
        yield
        table.execute("COMMIT")
    except BaseException:
        table.execute("ROLLBACK")
        raise


def main(path: str = "passed.db", *options: str) -> int:
    """Follows the view for ever, or with ``--once`` until nothing more is there; exit code 1 and one line when the bus
    refuses or the grant ends."""
    table = open_table(path)
    (cursor,) = table.execute("SELECT cursor FROM place").fetchone()
    try:
        with Subscriber.connect("social", VIEW, purpose=PURPOSE, cursor=cursor) as changes:
            for batch in changes.batches(until_caught_up="--once" in options):
                keep(table, batch)
                if batch.caught_up:
                    (count,) = table.execute("SELECT count(*) FROM business").fetchone()
                    print(f"{count} food businesses that passed", flush=True)
    except BusError as error:
        print(error.detail, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; run it again to go on", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
