"""``bus subscribe``: a view's rows and changes as JSON lines, as a department's own system would get them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bus.sharing.formats import document


def subscribe(
    view: str,
    department: Annotated[str, typer.Option("--as", help="the subscribing department")],
    purpose: Annotated[str, typer.Option(help="what the data is for")],
    from_cursor: Annotated[str | None, typer.Option(help="go on after the line that had this cursor")] = None,
    until_caught_up: Annotated[bool, typer.Option(help="end when nothing more is there")] = False,
) -> None:
    """Follow a view: first every row, then each change, one JSON object a line with the cursor after it.

    A line has `event` (upsert, delete or notice) and `cursor`; an upsert has `key` and `row`, a delete `key`, a notice
    what it tells, such as its `kind`. Ctrl-C ends it; --from-cursor goes on with nothing missing.
    """
    from bus.sharing.subscribing.changes import event_of
    from bus.wiring.subscribing import Subscriber  # late: loads Kafka and Avro

    with Subscriber.connect(department, view, purpose=purpose, cursor=from_cursor) as changes:
        for batch in changes.batches(until_caught_up=until_caught_up):
            for change, cursor in zip(batch.changes, batch.cursors, strict=True):
                name, members = event_of(change)
                line = document({"event": name, **members, "cursor": cursor})
                sys.stdout.write(line.decode() + "\n")
            sys.stdout.flush()
