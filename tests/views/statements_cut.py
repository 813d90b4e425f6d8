"""Ends a builder's transaction between two of its statements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine


class Cut(Exception):
    """Stands for the end of the process: nothing that a builder knows of."""


@contextmanager
def statements_of(engine: Engine, passed: Callable[[int], None]) -> Iterator[None]:
    """Calls ``passed`` with a number after each statement of every transaction that writes a view: 0 after the one that
    raises its ``seq``."""

    def begun(connection: Connection) -> None:
        connection.info["statements"] = None

    def executed(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("BEGIN"):  # on SQLite a statement too, and perhaps sent before `begun` is called
            begun(connection)
        count = connection.info.get("statements")
        if count is None and not statement.replace('"', "").startswith("UPDATE view SET seq="):
            return
        connection.info["statements"] = 0 if count is None else count + 1
        passed(connection.info["statements"])

    event.listen(engine, "begin", begun)
    event.listen(engine, "after_cursor_execute", executed)
    try:
        yield
    finally:
        event.remove(engine, "begin", begun)
        event.remove(engine, "after_cursor_execute", executed)


@contextmanager
def cut_after(engine: Engine, number: int) -> Iterator[None]:
    """The transaction ends after its statement ``number``; after the last one nothing happens."""

    def passed(count: int) -> None:
        if count == number:
            raise Cut

    with statements_of(engine, passed):
        yield
