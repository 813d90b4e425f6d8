"""Questions that a view declares: yes or no about one row, for those who need the answer and not the record.

``questions: {has_valid_licence: {title: {zh: …, en: …}, where: {…}, unknown: no}}``. A missing value never matches, so
a question about it is answered with no.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from bus.core import names
from bus.core.columns import Column
from bus.core.conditions import ALL_ROWS, Condition, check, parse_condition
from bus.core.problems import Problems
from bus.core.views import Question, View
from bus.errors import BusError

_MEMBERS: Final = ("title", "where", "unknown")
_UNKNOWN: Final[Mapping[Any, bool | None]] = {"no": False, "null": None, False: False, None: None}


def read_questions(doc: Any, problems: Problems) -> tuple[Question, ...]:
    """The questions as far as they can be understood; what is wrong with them goes to ``problems``."""
    if not isinstance(doc, Mapping):
        problems.add("questions", f"expected a mapping, received {type(doc).__name__}")
        return ()
    return tuple(_question(str(name), value, f"questions.{name}", problems) for name, value in doc.items())


def _question(name: str, doc: Any, where: str, problems: Problems) -> Question:
    if not names.is_id(name):
        problems.add(where, f"'{name}' is not an id")
    if not isinstance(doc, Mapping):
        problems.add(where, f"expected a mapping, received {type(doc).__name__}")
        doc = {}
    problems.unknown_members(where, doc, _MEMBERS)
    title = doc.get("title")
    if not isinstance(title, Mapping) or not all(str(title.get(language, "")).strip() for language in ("zh", "en")):
        problems.add(where, "needs `title` with zh and en: the question in words")
        title = {"zh": name, "en": name}
    unknown = doc.get("unknown", False)
    if not isinstance(unknown, str | bool | None) or unknown not in _UNKNOWN:
        problems.add(f"{where}.unknown", "is `no` (as if the condition did not hold) or `null` (not known)")
    return Question(name, dict(title), _condition(doc, where, problems), _UNKNOWN.get(unknown, False))


def _condition(doc: Mapping[str, Any], where: str, problems: Problems) -> Condition:
    if "where" not in doc:
        problems.add(where, "needs `where`: the condition whose truth is the answer")
        return ALL_ROWS
    try:
        return parse_condition(doc["where"])
    except BusError as error:
        problems.add(f"{where}.where", error.detail)
        return ALL_ROWS


def check_questions(view: View, columns: Iterable[Column], problems: Problems) -> None:
    """Adds what is wrong with the questions: fields that the view lacks, values of another kind, and conditions on the
    asker, for whom the answer would be another than for the next."""
    kinds = {column.name: column.kind for column in columns}
    for question in view.questions:
        where = f"questions.{question.name}.where"
        if question.where.subject_attributes:
            problems.add(where, "means something else for each asker. Put `{subject: …}` into the grant's rows.")
        try:
            check(question.where, kinds)
        except BusError as error:
            problems.add(where, error.detail)
