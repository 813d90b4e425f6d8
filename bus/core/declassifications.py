"""A declassification: an officer of the department that owns a field says that one column of one view may show it more
openly than its contract does, and somebody of governance approves.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bus.core import names
from bus.core.columns import Column, Influence
from bus.core.contracts import CLASSES
from bus.core.grants import same_person
from bus.core.guards import more_open
from bus.core.problems import Problems
from bus.errors import FourEyes

GOVERNANCE: Final = "governance"
LONGEST: Final = dt.timedelta(days=366)
_MEMBERS: Final = ("view", "field", "source", "from", "to", "legal_basis", "officer", "approver", "valid_until")


@dataclass(frozen=True, slots=True)
class Declassification:
    """``source``: ``department.entity.field``, shown in ``view``.``field`` as if it were of class ``to`` and not
    ``from_``. To `open`, it no longer counts as personal either. ``valid_until``: the last day, UTC."""

    view: str
    field: str
    source: str
    from_: str
    to: str
    legal_basis: str
    officer: str
    approver: str
    valid_until: dt.date

    def document(self) -> dict[str, str]:
        """As JSON, with the members of the file."""
        return {
            "view": self.view,
            "field": self.field,
            "source": self.source,
            "from": self.from_,
            "to": self.to,
            "legal_basis": self.legal_basis,
            "officer": self.officer,
            "approver": self.approver,
            "valid_until": self.valid_until.isoformat(),
        }


def department_of(person: str) -> str:
    """The department in ``zhao.min@market``."""
    return person.rpartition("@")[2].strip()


def parse_declassification(doc: Any) -> Declassification:
    """The declassification that a document states. Raises `InvalidDeclaration` naming every problem, `FourEyes`."""
    problems = Problems("the declassification")
    if not isinstance(doc, Mapping):
        problems.add("view", f"expected a mapping with {', '.join(_MEMBERS)}, received {type(doc).__name__}")
        raise problems.error()
    for member in doc:
        if member not in _MEMBERS:
            problems.add(str(member), f"is not known here. {names.nearest(str(member), _MEMBERS)}")
    texts = {name: _text(doc, name, problems) for name in _MEMBERS if name != "valid_until"}
    for member in ("from", "to"):
        if texts[member] and texts[member] not in CLASSES:
            problems.add(member, f"'{texts[member]}' is not one of {', '.join(CLASSES)}")
    for member in ("officer", "approver"):
        if texts[member] and not names.is_id(department_of(texts[member])):
            problems.add(member, f"'{texts[member]}' is not `name@department`")
    until = _date(doc.get("valid_until"), problems)
    problems.raise_if_any()
    if same_person(texts["officer"].rpartition("@")[0], texts["approver"].rpartition("@")[0]):
        raise FourEyes(
            f"A declassification needs two people: officer and approver are the same person ({texts['officer']}). "
            "Have somebody of governance approve.",
            author=texts["officer"],
        )
    from_, to = texts.pop("from"), texts.pop("to")
    return Declassification(from_=from_, to=to, valid_until=until, **texts)


def _text(doc: Mapping[str, Any], member: str, problems: Problems) -> str:
    value = doc.get(member)
    if not isinstance(value, str) or not value.strip():
        problems.add(member, "is needed, as text")
        return ""
    return value.strip()


def _date(value: Any, problems: Problems) -> dt.date:
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value
    try:
        return dt.date.fromisoformat(str(value))
    except ValueError:
        problems.add("valid_until", f"'{value}' is not a date (YYYY-MM-DD)")
        return dt.date.min


def check_declassification(
    found: Declassification, columns: Mapping[str, Column] | None, today: dt.date, problems: Problems
) -> None:
    """Adds what keeps it from counting. ``columns``: of the view with nothing declassified, None where there is no
    such view."""
    if columns is None:
        problems.add("view", f"there is no view '{found.view}'. Apply it first, without `class`.")
        return
    if found.valid_until < today:
        problems.add("valid_until", f"{found.valid_until} is over")
    if found.valid_until - today > LONGEST:
        problems.add("valid_until", "a declassification is given for a year at most")
    if department_of(found.approver) != GOVERNANCE:
        problems.add("approver", f"'{found.approver}' is not of {GOVERNANCE}, which approves")
    column = columns.get(found.field)
    if column is None:
        problems.add("field", f"{found.view} has no field '{found.field}'. {names.nearest(found.field, columns)}")
        return
    influences = {item.source: item for item in column.made_of}
    influence = influences.get(found.source)
    if influence is None:
        hint = names.nearest(found.source, influences)
        problems.add("source", f"{found.view}.{found.field} is not made of '{found.source}'. {hint}")
        return
    _check_influence(found, influence, problems)


def _check_influence(found: Declassification, influence: Influence, problems: Problems) -> None:
    owner = influence.department
    if department_of(found.officer) != owner:
        problems.add("officer", f"'{found.officer}' is not of {owner}, which owns {found.source} and has to sign")
    if influence.classification != found.from_:
        problems.add("from", f"{found.source} is {influence.classification}, not {found.from_}")
    if not (more_open(found.to, found.from_) or (found.to == found.from_ == "open" and influence.personal)):
        problems.add("to", f"{found.to} is not more open than {found.from_}")
