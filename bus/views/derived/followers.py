"""What else is kept in the transaction of a view's batch: its history, its disagreements, the views that read it."""

from __future__ import annotations

from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bus.views.decoding.batches import Batch
from bus.views.tables import Records


class Follower(Protocol):
    """Called inside the transaction of a batch, so that what it keeps is never ahead of the view or behind it.

    It must give the same result for the same events and positions however they are cut into batches. What it raises
    undoes the whole transaction.
    """

    @property
    def wants_rows(self) -> bool:
        """Whether `rows` is to be called; asked in each transaction."""

    def events(self, connection: Connection, records: Records, batch: Batch) -> None:
        """The good events of one partition that the view did not have yet, in the order of offsets, those included
        that are older than what the view has. Called before they are merged."""

    def rows(self, connection: Connection, touched: sa.Table) -> None:
        """The view's rows as they are now. ``touched``: a temporary table with the view keys (columns ``g0``, ``g1``
        and so on, in the key's order) whose rows may have changed, appeared or gone."""
