"""Which streams there are to be now, from grants, departments and views."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bus.access.broker import Standing
from bus.contracts.directory import Department
from bus.core.grants import PUBLIC, Grant
from bus.core.shares import share_schema, share_subject
from bus.views.catalogue import Shape


@dataclass(frozen=True, slots=True)
class Wanted:
    """``schemas``: by subject; of views whose columns are known."""

    standing: Standing
    schemas: Mapping[str, Mapping[str, Any]]

    @property
    def views(self) -> frozenset[str]:
        """The streamed ones."""
        return frozenset(view for _, view in self.standing.shares)


def wanted(
    grants: Iterable[Grant], departments: Iterable[Department], shapes: Mapping[str, Shape], at: dt.datetime
) -> Wanted:
    """What active stream grants ask for at an instant (aware). Nobody who is suspended, unknown or the public has a
    stream of its own; nor is there one of a view that is not declared."""
    known = list(departments)
    suspended = frozenset(department.id for department in known if department.suspended)
    there = frozenset(department.id for department in known) - suspended
    active = [
        grant
        for grant in grants
        if "stream" in grant.channels and grant.active(at) and grant.consumer in there and grant.view in shapes
        if grant.consumer != PUBLIC
    ]
    schemas = {share_subject(grant.consumer, grant.view): _schema(grant, shapes[grant.view]) for grant in active}
    shares = frozenset((grant.consumer, grant.view) for grant in active)
    return Wanted(Standing(there, suspended, shares), schemas)


def _schema(grant: Grant, shape: Shape) -> Mapping[str, Any]:
    """Of the columns that the grant shows, in the view's order, as a decision has them."""
    columns = [column for column in shape.columns if column.name in grant.fields]
    return share_schema(grant.consumer, grant.view, columns, grant.masks)
