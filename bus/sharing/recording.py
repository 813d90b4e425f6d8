"""What the door writes into the audit log of an answer and of a refusal. Never a value that was asked or shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bus.access.answers import And, Comparison, EveryRow, Filter, NoRow, Not, Or
from bus.access.decision import Allow, Deny
from bus.access.identity import Subject
from bus.audit.entries import Disclosure, Refusal
from bus.sharing.filters import shape_of
from bus.sharing.past import as_texts
from bus.sharing.permitted import Permitted


def disclosure(
    subject: Subject,
    allow: Allow,
    permitted: Permitted,
    *,
    rows: int | None,
    request_id: str,
    explained: bool = False,
    unchanged: bool = False,
    export: str = "",
    lineage: bool = False,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The entry of an answer: under which decision, with which row condition of the grant, how many rows.
    ``lineage``: not the values were shown but the events that made them. ``more``: what else is to be said of the
    question."""
    question = {
        "filter": shape_of(permitted.filters),
        "order": [order.field for order in permitted.order],
        "offset": permitted.offset,
        "count": permitted.count,
        "explained": explained,
        **as_texts(permitted.moment),
        **({"lineage": True} if lineage else {}),
        **({"unchanged": True} if unchanged else {}),
        **({"export": export} if export else {}),
        **(more or {}),
    }
    columns = [shown.column.name for shown in permitted.shown]
    return under(
        subject, allow, columns=columns, masked=permitted.masked, rows=rows, question=question, request_id=request_id
    )


def under(
    subject: Subject,
    allow: Allow,
    *,
    columns: Sequence[str],
    masked: Sequence[str],
    question: Mapping[str, Any],
    request_id: str,
    rows: int | None = None,
) -> dict[str, Any]:
    """The entry of what is shown under a decision. ``rows`` None: not known yet, a `Closing` tells them."""
    return Disclosure(
        request_id=request_id,
        who=subject.department,
        officer=subject.officer,
        view=allow.view,
        purpose=allow.purpose,
        channel=allow.channel,
        decision_id=allow.decision_id,
        policy_revision=allow.policy_revision,
        grants=allow.grant_ids,
        condition=as_json(allow.filter),
        columns=columns,
        masked=masked,
        rows=rows,
        question=question,
    ).body()


def figures_recorded(permitted: Permitted, withheld: int | None, near: int) -> dict[str, Any]:
    """What is said of a question for figures: which, of how many groups some were withheld, and how many questions of
    the same day differ from it in one filter: two such may tell of the rows between them (A12)."""
    if not permitted.figures:
        return {}
    figures = [f"{item.function}({item.column.name if item.column else '*'})" for item in permitted.figures]
    told: dict[str, Any] = {"figures": figures}
    if withheld is not None:
        told |= {"withheld": withheld, "differ_in_one_filter": near}
    return told


def refusal(
    subject: Subject, view: str, deny: Deny, *, purpose: str | None, channel: str, request_id: str
) -> dict[str, Any]:
    """The entry of a refusal."""
    return Refusal(
        request_id=request_id,
        who=subject.department,
        officer=subject.officer,
        view=view,
        purpose=purpose,
        channel=channel,
        code=deny.error.code,
        policy_revision=deny.policy_revision,
    ).body()


def as_json(condition: Filter) -> Any:
    """The row condition as OPA gave it, as JSON: true for every row, false for none, else the tree.

    Its values are the grant's own, so they are policy, not data.
    """
    match condition:
        case EveryRow():
            return True
        case NoRow():
            return False
        case Comparison(field, op, value):
            return [field, op, [_plain(one) for one in value] if isinstance(value, tuple | list) else _plain(value)]
        case Not(item):
            return {"not": as_json(item)}
        case And(items):
            return {"and": [as_json(item) for item in items]}
        case Or(items):
            return {"or": [as_json(item) for item in items]}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
