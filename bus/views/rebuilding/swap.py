"""Puts tables that were built beside a view in its place, in one transaction, and back again.

A view's tables and its rows in fixed tables go by its name. ``<view>+next`` is a view being built, ``<view>+old`` what
was replaced, kept for one undo. Readers see the one or the other: a name is looked up once for each statement, and
what is under way keeps what it began with.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bus.errors import Fenced
from bus.infra.database import translated_errors, write
from bus.views.builder import CrashPoint, no_crash
from bus.views.changelog.keeping import begin_anew
from bus.views.statements import insert_into
from bus.views.store import BY_VIEW, OF_THE_NAME, VIEW, read_positions
from bus.views.tables import table_name

NEXT: Final = "+next"
OLD: Final = "+old"
_ASIDE: Final = "+aside"
_LOCK_WAIT: Final = "SET LOCAL lock_timeout = '500ms'"  # who reads for long is not made to hold up all others
Within = Callable[[Connection], None]


@dataclass(frozen=True, slots=True)
class Swapped:
    """``seq``: of the view after the swap."""

    seq: int


def swap(
    engine: Engine,
    view: str,
    epoch: int,
    shadow_epoch: int,
    *,
    first: Within = lambda _: None,
    within: Within = lambda _: None,
    behind: bool = False,
    crash_point: CrashPoint = no_crash,
) -> Swapped | None:
    """Puts ``<view>+next`` in the view's place, which becomes ``<view>+old``. None where it has not applied all that
    the view has yet, unless ``behind`` says that it need not: nothing is changed then. ``first`` and ``within`` are
    called in the transaction, before anything is locked and after the swap.

    Raises `Fenced` unless both leases are held, and `DatabaseUnavailable`, also where a reader held the tables for too
    long: to be tried again.
    """
    with translated_errors():
        with write(engine) as connection:
            _wait_shortly(connection)
            first(connection)
            seq = _begin(connection, view, epoch)
            _locked(connection, view + NEXT, shadow_epoch)
            if not behind and not _reached(connection, view):
                connection.rollback()
                return None
            crash_point("swap begun")
            discard(connection, view + OLD)
            _put_aside(connection, view)
            _move(connection, view + NEXT, view)
            connection.execute(sa.delete(VIEW).where(VIEW.c.name == view + NEXT))
            begin_anew(connection, view, raised=True)
            within(connection)
            crash_point("before swap")
        crash_point("after swap")
    return Swapped(seq)


def undo(
    engine: Engine,
    view: str,
    epoch: int,
    *,
    first: Within = lambda _: None,
    within: Within = lambda _: None,
) -> Swapped | None:
    """Puts ``<view>+old`` back; what it replaced becomes ``<view>+old`` in turn. None where there is none to go back
    to. Raises `Fenced` and `DatabaseUnavailable`."""
    with translated_errors(), write(engine) as connection:
        _wait_shortly(connection)
        first(connection)
        seq = _begin(connection, view, epoch)
        if _row(connection, view + OLD) is None:
            connection.rollback()
            return None
        undone = connection.scalar(sa.select(VIEW.c.fingerprint).where(VIEW.c.name == view))
        connection.execute(_named(view + _ASIDE, connection))
        _move(connection, view + OLD, view + _ASIDE)
        _put_aside(connection, view)
        _move(connection, view + _ASIDE, view)
        connection.execute(sa.delete(VIEW).where(VIEW.c.name == view + _ASIDE))
        connection.execute(sa.update(VIEW).where(VIEW.c.name == view).values(undone=undone))
        begin_anew(connection, view, raised=True)
        within(connection)
    return Swapped(seq)


def discard(connection: Connection, view: str) -> bool:
    """Drops a view's tables and all its rows; whether there were any."""
    row = _row(connection, view)
    if row is None:
        return False
    for table in reversed(json.loads(row.tables)):
        sa.Table(table["name"], sa.MetaData()).drop(connection, checkfirst=True)
    for kept in BY_VIEW:
        connection.execute(sa.delete(kept).where(kept.c.view == view))
    connection.execute(sa.delete(VIEW).where(VIEW.c.name == view))
    return True


def _wait_shortly(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_LOCK_WAIT)


def _begin(connection: Connection, view: str, epoch: int) -> int:
    mine = (VIEW.c.name == view) & (VIEW.c.epoch == epoch)
    raised = sa.update(VIEW).where(mine).values(seq=VIEW.c.seq + 1, crashes=0).returning(VIEW.c.seq)
    seq = connection.execute(raised).scalar_one_or_none()
    if seq is None:
        raise Fenced(view=view, epoch=epoch)
    return int(seq)


def _locked(connection: Connection, view: str, epoch: int) -> None:
    mine = sa.select(VIEW.c.name).where(VIEW.c.name == view, VIEW.c.epoch == epoch).with_for_update()
    if connection.execute(mine).first() is None:
        raise Fenced(view=view, epoch=epoch)


def _row(connection: Connection, view: str) -> Any:
    return connection.execute(sa.select(VIEW).where(VIEW.c.name == view)).first()


def _reached(connection: Connection, view: str) -> bool:
    """Whether the shadow is nowhere behind the view, in the topics that both read."""
    shadow = {(p.topic, p.partition): p.next_offset for p in read_positions(connection, view + NEXT)}
    topics = {topic for topic, _ in shadow}
    live = [p for p in read_positions(connection, view) if p.topic in topics]
    return bool(shadow) and all(shadow.get((p.topic, p.partition), 0) >= p.next_offset for p in live)


def _put_aside(connection: Connection, view: str) -> None:
    """The view's tables become those of ``<view>+old``, with its positions; nobody feeds them."""
    connection.execute(_named(view + OLD, connection))
    _move(connection, view, view + OLD)


def _named(view: str, connection: Connection) -> Any:
    return insert_into(VIEW, connection.dialect.name).values(name=view).on_conflict_do_nothing()


def _move(connection: Connection, source: str, target: str) -> None:
    """Everything of ``source`` but its name, lease and seq; both have a row."""
    row = connection.execute(sa.select(VIEW).where(VIEW.c.name == source)).mappings().one()
    tables = json.loads(row["tables"])
    for table in tables:
        name = _name_in(table.get("of", table["name"]), target)
        _rename(connection, table["name"], name)
        table["of"], table["name"] = table.get("of", table["name"]), name
    for kept in BY_VIEW:
        connection.execute(sa.update(kept).where(kept.c.view == source).values(view=target))
    moved = {column.name: row[column.name] for column in VIEW.columns if column.name not in OF_THE_NAME}
    moved["tables"] = json.dumps(tables)
    connection.execute(sa.update(VIEW).where(VIEW.c.name == target).values(**moved))


def _name_in(table: str, view: str) -> str:
    """The name of a view's table while it belongs to this generation of it."""
    suffix = view[view.index("+") :] if "+" in view else ""
    return table_name(table + suffix) if suffix else table


def _rename(connection: Connection, source: str, target: str) -> None:
    quoted = connection.dialect.identifier_preparer.quote_identifier
    connection.exec_driver_sql(f"ALTER TABLE {quoted(source)} RENAME TO {quoted(target)}")
