"""Carries the changes of a view's rows into every view computed from it, in the transaction that changes them.

Who writes a view does not ask who holds the views computed from it: the row of each view names those (``dependents``),
and the first statement of every transaction checks that the writer knows exactly these. So what is computed from a view
is never behind it, and a writer that has not heard of a new one writes nothing until it has.

Why the result is exact though two workers write two views that feed one third at the same time, under READ COMMITTED:
Let D be computed from X and Y. A transaction that changed X locks D's VIEW row before it reads anything for D, and
keeps the lock until it ends; so does one that changed Y. Say X's came first. It may have read Y as it was before, but
what it wrote is committed when Y's gets the lock, and each statement after that sees it: Y's computes anew whatever its
own changes touch, from X's new rows. Nothing else of D depended on both. If D is a view with sources of its own, its
writer holds the same lock from its first statement on. Who begins to keep D up to date (`derived.enrolment`) locks X
and Y first: a transaction that wrote either is over by then or has to wait, and then finds ``dependents`` changed.
On SQLite there is one writer at a time.

Locks are taken in one order (`graph.in_order`: what is read before what reads it, then by name), the writer's own view
being the first, so there is no circle of waiting. Where two workers see different orders for a moment, because a view
is being declared anew, PostgreSQL ends one of the transactions and its batch is tried again.

What happens when a view's tables are swapped is in `derived.followed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection, Engine

from bus.errors import DependentFailed, DependentsChanged
from bus.infra.database import translated_errors, write
from bus.views.catalogue import Shape
from bus.views.changelog.writing import LogRows
from bus.views.decoding.batches import Batch
from bus.views.derived.figures import Figures
from bus.views.derived.graph import NONE, Node, Nodes, followable, in_order, read_nodes, release, shapes_in, written
from bus.views.derived.lookups import Lookups
from bus.views.store import VIEW
from bus.views.tables import Records

T = TypeVar("T")
log = structlog.get_logger(__name__)
FAILED: Final = "its figures could not be computed"
_NOT_KEPT: Final = "not kept"  # no row has these bases
_TRIES: Final = 20
_PASSING: Final = ("08", "40", "53", "55", "57", "58")  # SQLSTATE classes of trouble that passes by itself
_SQLITE_TROUBLE: Final = (1, 19, 20, 25)  # ERROR, CONSTRAINT, MISMATCH, RANGE: these do not


@dataclass(frozen=True, slots=True)
class _Link:
    """One view to carry changes into. ``node``: as its row was when the statements were built; ``logged``: appends to
    its log what ``work`` touched."""

    node: Node
    work: Figures | Lookups
    logged: LogRows


class Dependents:
    """Everything computed from one view, as its builder must know it. A `Follower`, the last of a builder's."""

    def __init__(self, engine: Engine, shape: Shape, *, crash_point: Callable[[str], None] = lambda _: None) -> None:
        self._engine, self._shape, self._crash = engine, shape, crash_point
        self._own: Node | None = None
        self._lookups: Lookups | None = None
        self._links: tuple[_Link, ...] = ()
        self._loaded = False

    # --- what the builder asks ---

    @property
    def known(self) -> dict[str, str]:
        """What the view's VIEW row has while the views computed from it are the ones known here, and while its own
        look-ups are kept up to date by those who write the views looked up."""
        dependents = self._own.text if self._own else NONE
        if not self._shape.view.lookups:
            return {"dependents": dependents}
        enrolled = self._own is not None and self._own.enrolled and self._lookups is not None
        return {"dependents": dependents, "bases": self._own.bases if enrolled and self._own else _NOT_KEPT}

    @property
    def loaded(self) -> bool:
        """Whether it has been read what is computed from the view."""
        return self._loaded

    @property
    def wants_rows(self) -> bool:
        return bool(self._links) or bool(self._shape.view.lookups)

    def events(self, connection: Connection, records: Records, batch: Batch) -> None:
        """Nothing is computed from events."""

    def rows(self, connection: Connection, touched: sa.Table) -> None:
        """Brings over what this view looks up, then carries the touched rows on. Raises `DependentsChanged` where a
        view further on is not as it was, and `DependentFailed` naming one that cannot be computed: the batch is to be
        tried again after `reload` or `give_up`."""
        if connection.execute(sa.select(sa.literal_column("1")).select_from(touched).limit(1)).first() is None:
            return
        if self._lookups is not None:
            self._lookups.written(connection, touched)
            self._crash("looked up")
        self.carry(connection, touched)

    def carry(self, connection: Connection, touched: sa.Table) -> None:
        """Carries the touched rows into every view computed from this one. Raises as `rows` does."""
        begun = [lock(connection, link.node) for link in self._links]
        at = {self._shape.view.name: touched}
        for link, (seq, log_from) in zip(self._links, begun, strict=True):
            try:
                link.work.follow(connection, at)
                if log_from is not None:
                    link.logged.append(connection, seq)
            except (sa.exc.DBAPIError, ArithmeticError) as error:
                if passes(error):
                    raise
                raise DependentFailed(view=link.node.name, why=why(error)) from error
            if isinstance(link.work, Lookups):
                at[link.node.name] = link.work.touched
            self._crash("carried")

    # --- what changed meanwhile ---

    def retried(self, apply: Callable[[], T]) -> T:
        """The result of a transaction that begins with `known` and calls `rows`, tried again with what is computed from
        the view now. Raises `DependentsChanged` where that changes faster, or where the view's own look-ups wait to be
        filled by whoever holds it: to be tried again in a moment."""
        if not self._loaded:
            self.reload()
        for _ in range(_TRIES):
            try:
                return apply()
            except DependentsChanged:
                self.reload()
                if self._shape.view.lookups and not (self._own and self._own.enrolled):
                    raise
            except DependentFailed as failure:
                self.give_up(failure)
        raise DependentsChanged(view=self._shape.view.name)

    def reload(self) -> None:
        """Learns which views are computed from this one now. Those that nobody keeps any more are taken out of
        ``dependents``. Raises `DependentsChanged` where they change faster than they are read."""
        for _ in range(_TRIES):
            with translated_errors(), self._engine.connect() as connection:
                nodes = read_nodes(connection)
            gone = self._learn(nodes)
            if gone is None:
                return
            self._take_out(nodes[gone[0]], gone[1], nodes)
        raise DependentsChanged(view=self._shape.view.name)

    def relearn(self, connection: Connection) -> Nodes:
        """The same inside a transaction that has the view's lock; views that nobody can keep are released."""
        while True:
            nodes = read_nodes(connection)
            gone = self._learn(nodes)
            if gone is None:
                return nodes
            base, view = gone
            rest = {name: link for name, link in nodes[base].dependents.items() if name != view}
            release(connection, view)
            connection.execute(sa.update(VIEW).where(VIEW.c.name == base).values(dependents=written(rest)))

    def _learn(self, nodes: Nodes) -> tuple[str, str] | None:
        """Takes over what the rows say; or the first (view, dependent) that nobody keeps."""
        name, dialect = self._shape.view.name, self._engine.dialect.name
        found, waiting = dict[str, Node](), [name] if name in nodes else []
        while waiting:
            base = waiting.pop()
            for view in nodes[base].dependents:
                if not followable(nodes, base, view):
                    return base, view
                if view not in found:
                    found[view] = nodes[view]
                    waiting.append(view)
        self._links = tuple(self._link(found[view], nodes) for view in in_order(nodes, found))
        self._own, bases = nodes.get(name), shapes_in(nodes, self._shape.view)
        self._lookups = Lookups(self._shape, bases, dialect) if self._shape.view.lookups and bases else None
        self._loaded = True
        return None

    def _link(self, node: Node, nodes: Nodes) -> _Link:
        shape, dialect = node.shape, self._engine.dialect.name
        bases = shapes_in(nodes, shape.view) if shape else None
        if shape is None or bases is None:  # `followable` has looked
            raise DependentsChanged(view=node.name)
        figures = shape.view.kind == "aggregate"
        work = Figures(shape, bases, dialect, self._crash) if figures else Lookups(shape, bases, dialect)
        return _Link(node, work, LogRows(shape, work.touched))

    def _take_out(self, base: Node, view: str, nodes: Nodes) -> None:
        """Only what was read is replaced: where somebody else was faster the row is read again."""
        rest = written({name: link for name, link in base.dependents.items() if name != view})
        node = nodes.get(view)
        mistaken = node is not None and (node.shape is None or base.name in node.shape.view.reads)
        with translated_errors(), write(self._engine) as connection:
            row = (VIEW.c.name == base.name) & (VIEW.c.dependents == base.text)
            if connection.execute(sa.update(VIEW).where(row).values(dependents=rest)).rowcount and mistaken:
                release(connection, view)
        log.info("dependent_gone", view=base.name, dependent=view)

    def give_up(self, failure: DependentFailed) -> None:
        """A view that cannot be computed is stopped, so that the views it reads go on. Raises what `reload` does."""
        view, reason = failure.members["view"], str(failure.members["why"])
        log.error("dependent_stopped", view=view, base=self._shape.view.name, reason=reason)
        with translated_errors(), write(self._engine) as connection:
            stop(connection, view, reason)
        self.reload()


def lock(connection: Connection, node: Node) -> tuple[int, int | None]:
    """Locks the row of a view that changes are carried into, and raises its ``seq``: that and ``log_from``. Raises
    `DependentsChanged` unless it is as it was."""
    same = (
        (VIEW.c.name == node.name)
        & (VIEW.c.fingerprint == node.fingerprint)
        & (VIEW.c.bases == node.bases)
        & (VIEW.c.dependents == node.text)
    )
    raised = sa.update(VIEW).where(same).values(seq=VIEW.c.seq + 1).returning(VIEW.c.seq, VIEW.c.log_from)
    row = connection.execute(raised).first()
    if row is None:
        raise DependentsChanged(view=node.name)
    return row.seq, row.log_from


def stop(connection: Connection, view: str, reason: str) -> None:
    """Says why a view that is computed from others cannot be; nobody keeps it up to date until it is filled again."""
    values = {"state": "stopped", "reason": reason, "bases": NONE}
    connection.execute(sa.update(VIEW).where(VIEW.c.name == view).values(values))


def why(error: BaseException) -> str:
    """A reason without values, which may be personal."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
    return f"{FAILED}: {type(cause).__name__}"


def passes(error: BaseException) -> bool:
    """Whether the trouble is the database's and passes by itself, so that the same transaction may succeed later."""
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return str(state)[:2] in _PASSING
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF not in _SQLITE_TROUBLE
    return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
