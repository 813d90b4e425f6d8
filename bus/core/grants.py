"""Grants: who may read what of a view, for which purpose, through which channels, for how long.

Every grant is one decision that somebody answers for: it names author, approver and legal basis.
"""

from __future__ import annotations

import datetime as dt
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bus.core import names
from bus.core.conditions import Condition, parse_condition
from bus.core.masks import Mask, parse_mask
from bus.errors import BusError, FourEyes, GrantConflict, InvalidDeclaration

CHANNELS: Final = ("lookup", "query", "stream", "export", "aggregate", "question")
PUBLIC: Final = "public"
LEAST_GROUP: Final = 5
"""Figures of fewer rows than this are withheld from who may not fetch the rows, unless a grant says another number."""
MOST_GROUP: Final = 1_000
_MEMBERS: Final = (
    "id", "consumer", "view", "purpose", "channels", "fields", "masks", "rows", "valid", "limits", "legal_basis",
    "aggregates", "questions",
)  # fmt: skip
_LIMITS: Final = {"per_minute", "rows", "per_day", "export_rows", "seconds"}
_SET_MEMBERS: Final = ("set", "author", "approver", "grants")


@dataclass(frozen=True, slots=True)
class Limits:
    """Questions a minute, rows in one answer, and questions a day (None: as the channel has it). ``export_rows``: rows
    in one export; ``seconds``: how long one may run."""

    per_minute: int = 600
    rows: int = 1_000
    per_day: int | None = None
    export_rows: int = 1_000_000
    seconds: int = 300


@dataclass(frozen=True, slots=True)
class Grant:
    """One grant. ``valid_from`` and ``valid_to`` are both included, in UTC.

    Beside the channels that give rows there are two that give less: ``aggregate`` (counts, sums and the like; those of
    fewer than ``least_group`` rows are withheld: ``aggregates: {k: 5}``) and ``question`` (yes or no to those of the
    view's declared ``questions`` that the grant names). A ``query`` grant covers exact aggregates of the rows that it
    shows. A grant of channel ``question`` alone needs no fields."""

    id: str
    set: str
    consumer: str
    view: str
    purpose: str
    channels: tuple[str, ...]
    fields: tuple[str, ...]
    masks: Mapping[str, Mask]
    rows: Condition
    valid_from: dt.date
    valid_to: dt.date
    limits: Limits
    legal_basis: str
    author: str
    approver: str
    document: Mapping[str, Any]
    least_group: int = LEAST_GROUP
    questions: tuple[str, ...] = ()

    def active(self, at: dt.datetime) -> bool:
        """Whether the grant holds at the instant (aware)."""
        return self.valid_from <= at.astimezone(dt.UTC).date() <= self.valid_to


@dataclass(frozen=True, slots=True)
class GrantSet:
    """The grants of one file; applying it replaces the set of that name."""

    name: str
    author: str
    approver: str
    grants: tuple[Grant, ...]


def same_person(first: str, second: str) -> bool:
    """Whether two names mean one person: compared after NFKC and case folding, white space trimmed."""

    def folded(name: str) -> str:
        return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()

    return folded(first) == folded(second)


def overlaps(first: Grant, second: Grant) -> bool:
    """Whether two grants could both answer one request: then it would be unclear which decides.

    A stream is one topic and is read for one purpose, so two streams of a consumer on a view conflict whatever
    their purposes.
    """
    common = set(first.channels) & set(second.channels)
    return (
        (first.consumer, first.view) == (second.consumer, second.view)
        and bool(common if first.purpose == second.purpose else common & {"stream"})
        and first.valid_from <= second.valid_to
        and second.valid_from <= first.valid_to
    )


def refuse_conflicts(grants: Iterable[Grant]) -> None:
    """Raises `GrantConflict` for the first two that overlap. Cost: grouped by consumer and view."""
    groups: dict[tuple[str, str], list[Grant]] = {}
    for grant in grants:
        group = groups.setdefault((grant.consumer, grant.view), [])
        for other in group:
            if overlaps(grant, other):
                raise GrantConflict(first=other.id, second=grant.id)
        group.append(grant)


def _date(value: Any, where: str, problems: list[str]) -> dt.date:
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value
    try:
        return dt.date.fromisoformat(str(value))
    except ValueError:
        problems.append(f"{where}: '{value}' is not a date (YYYY-MM-DD)")
        return dt.date.min


def _texts(doc: Mapping[str, Any], member: str, where: str, problems: list[str]) -> tuple[str, ...]:
    value = doc.get(member)
    if not isinstance(value, list | tuple) or not value:
        problems.append(f"{where}.{member}: a list of at least one is needed")
        return ()
    return tuple(dict.fromkeys(str(item) for item in value))


def _unknown(members: Iterable[Any], allowed: Sequence[str], where: str, problems: list[str]) -> None:
    problems.extend(
        f"{where}'{member}' is not known. {names.nearest(str(member), allowed)}"
        for member in members
        if member not in allowed
    )


def _limits(doc: Any, where: str, problems: list[str]) -> Limits:
    doc = {} if doc is None else doc
    if not isinstance(doc, Mapping) or set(doc) - _LIMITS:
        problems.append(f"{where}.limits: takes {', '.join(sorted(_LIMITS))}")
        return Limits()
    for name, value in doc.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            problems.append(f"{where}.limits.{name}: a whole number from 1 is needed")
            return Limits()
    return Limits(**doc)


def _least_group(doc: Mapping[str, Any], channels: Sequence[str], where: str, problems: list[str]) -> int:
    """The ``k`` of ``aggregates: {k: 5}``."""
    if "aggregates" not in doc:
        return LEAST_GROUP
    if "aggregate" not in channels:
        problems.append(f"{where}.aggregates: is for grants of the channel aggregate")
    given = doc["aggregates"]
    k = given.get("k") if isinstance(given, Mapping) and set(given) == {"k"} else None
    if isinstance(k, bool) or not isinstance(k, int) or not 2 <= k <= MOST_GROUP:
        problems.append(f"{where}.aggregates: needs k, a whole number from 2 to {MOST_GROUP}")
        return LEAST_GROUP
    return k


def _questions(doc: Mapping[str, Any], channels: Sequence[str], where: str, problems: list[str]) -> tuple[str, ...]:
    if "question" in channels:
        return _texts(doc, "questions", where, problems)
    if "questions" in doc:
        problems.append(f"{where}.questions: are for grants of the channel question")
    return ()


def _condition(doc: Any, where: str, problems: list[str]) -> Condition:
    try:
        return parse_condition(doc)
    except BusError as error:
        problems.append(f"{where}.rows: {error.detail}")
        return Condition(())


def _masks(doc: Any, fields: tuple[str, ...], where: str, problems: list[str]) -> dict[str, Mask]:
    found = {}
    for field, mask in (doc or {}).items() if isinstance(doc or {}, Mapping) else ():
        if field not in fields:
            problems.append(f"{where}.masks: '{field}' is not among the grant's fields. {names.nearest(field, fields)}")
        try:
            found[str(field)] = parse_mask(mask, str(field))
        except BusError as error:
            problems.append(f"{where}.masks: {error.detail}")
    return found


def _validity(doc: Any, where: str, problems: list[str]) -> tuple[dt.date, dt.date]:
    if not isinstance(doc, Mapping) or set(doc) != {"from", "to"}:
        problems.append(f"{where}.valid: needs from and to")
        return dt.date.min, dt.date.min
    start, end = _date(doc["from"], f"{where}.valid", problems), _date(doc["to"], f"{where}.valid", problems)
    if end < start:
        problems.append(f"{where}.valid: ends before it begins")
    if (end - start).days > 366:
        problems.append(f"{where}.valid: a grant is given for a year at most")
    return start, end


def _grant(doc: Any, set_name: str, author: str, approver: str, problems: list[str]) -> Grant | None:
    if not isinstance(doc, Mapping):
        problems.append(f"grants: a mapping is needed, received {type(doc).__name__}")
        return None
    where = f"grant '{doc.get('id', '?')}'"
    _unknown(doc, _MEMBERS, f"{where}: ", problems)
    if not names.is_grant_id(doc.get("id")):
        problems.append(f"{where}: id must match [a-z][a-z0-9_-]*")
    problems.extend(
        f"{where}.{member}: an id is needed, received {doc.get(member)!r}"
        for member in ("consumer", "view", "purpose")
        if not names.is_id(doc.get(member))
    )
    channels = _texts(doc, "channels", where, problems)
    _unknown(channels, CHANNELS, f"{where}.channels: ", problems)
    fieldless = "fields" not in doc and set(channels) == {"question"}
    fields = () if fieldless else _texts(doc, "fields", where, problems)
    if not str(doc.get("legal_basis") or "").strip():
        problems.append(f"{where}.legal_basis: is needed")
    start, end = _validity(doc.get("valid"), where, problems)
    return Grant(
        id=str(doc.get("id")),
        set=set_name,
        consumer=str(doc.get("consumer")),
        view=str(doc.get("view")),
        purpose=str(doc.get("purpose")),
        channels=tuple(channel for channel in CHANNELS if channel in channels),
        fields=fields,
        masks=_masks(doc.get("masks"), fields, where, problems),
        rows=_condition(doc.get("rows"), where, problems),
        valid_from=start,
        valid_to=end,
        limits=_limits(doc.get("limits"), where, problems),
        legal_basis=str(doc.get("legal_basis")),
        author=author,
        approver=approver,
        document=doc,
        least_group=_least_group(doc, channels, where, problems),
        questions=_questions(doc, channels, where, problems),
    )


def parse_grant_set(doc: Any, default_name: str = "default") -> GrantSet:
    """The set that a grant file states. ``default_name``: the file's name, for a file without ``set``.

    Raises `InvalidDeclaration` naming every problem, `FourEyes` where author and approver are one
    person, `GrantConflict` where two of its grants overlap.
    """
    if not isinstance(doc, Mapping):
        raise InvalidDeclaration("a grant file is a mapping with author, approver and grants", problems=[])
    problems: list[str] = []
    _unknown(doc, _SET_MEMBERS, "", problems)
    name = str(doc.get("set", default_name))
    if not names.is_grant_id(name):
        problems.append(f"set: '{name}' must match [a-z][a-z0-9_-]*")
    author, approver = str(doc.get("author") or ""), str(doc.get("approver") or "")
    if not author.strip() or not approver.strip():
        problems.append("author and approver are needed: two people answer for a grant")
    grants = _grants(doc.get("grants"), name, author, approver, problems)
    if problems:
        text = f"the grant file has {len(problems)} problem(s): " + "; ".join(problems)
        raise InvalidDeclaration(text, problems=problems)
    if same_person(author, approver):
        raise FourEyes(author=author)
    refuse_conflicts(grants)
    return GrantSet(name, author, approver, grants)


def _grants(items: Any, set_name: str, author: str, approver: str, problems: list[str]) -> tuple[Grant, ...]:
    if not isinstance(items, list | tuple):
        problems.append("grants: a list is needed")
        return ()
    parsed = (_grant(item, set_name, author, approver, problems) for item in items)
    grants = tuple(grant for grant in parsed if grant is not None)
    counts = Counter(grant.id for grant in grants)
    problems.extend(f"grant '{name}' stands twice in the file" for name, count in counts.items() if count > 1)
    return grants
