"""What administrators ask of running workers about a view: to build it anew, or to undo the last swap.

Kept in the governance database until it is replaced by the next request; a view's row says which one it took up last.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from bus.infra.database import create_tables, translated_errors, write

Kind = Literal["rebuild", "undo"]
_METADATA: Final = sa.MetaData()
_REQUEST: Final = sa.Table(
    "view_request",
    _METADATA,
    sa.Column("view", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, the newest for its view."""

    view: str
    id: str
    kind: Kind


class Requests:
    """The requests in the governance database. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        create_tables(engine, _METADATA)

    def ask(self, view: str, kind: Kind) -> Request:
        """Records a request in place of the view's last one."""
        request = Request(view, uuid.uuid4().hex, kind)
        with translated_errors(), write(self._engine) as connection:
            connection.execute(sa.delete(_REQUEST).where(_REQUEST.c.view == view))
            connection.execute(sa.insert(_REQUEST).values(view=view, id=request.id, kind=kind))
        return request

    def forget(self, view: str) -> None:
        """The view is dropped: one of the same name declared later is not to be built twice."""
        with translated_errors(), write(self._engine) as connection:
            connection.execute(sa.delete(_REQUEST).where(_REQUEST.c.view == view))

    def all(self) -> dict[str, Request]:
        """The newest request of each view that has one."""
        with translated_errors(), self._engine.connect() as connection:
            rows = connection.execute(sa.select(_REQUEST.c.view, _REQUEST.c.id, _REQUEST.c.kind))
            return {view: Request(view, number, kind) for view, number, kind in rows}
