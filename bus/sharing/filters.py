"""The filter syntax of PostgREST: ``eq.20``, ``not.in.(a,"b,c")``, ``or=(a.eq.1,and(b.is.null,c.gt.2))``.

Only the form is read here; whether a field exists and what a value means is decided in `permitted.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bus.core import names
from bus.errors import BadFilter

OPERATORS: Final = ("eq", "neq", "gt", "gte", "lt", "lte", "in", "is", "like", "ilike", "fts", "plfts")
MAX_FILTERS: Final = 100
MAX_DEPTH: Final = 10
MAX_ITEMS: Final = 1_000
_NOT: Final = "not."
_FIELD: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[^.,()"]+')


@dataclass(frozen=True, slots=True)
class Comparison:
    """``field op value``, as written. ``values``: one text, or the items of ``in``."""

    field: str
    op: str
    values: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """``or=(…)`` (``either``) or ``and=(…)`` of filters, perhaps negated."""

    either: bool
    items: tuple[Filter, ...]
    negated: bool = False


Filter = Comparison | Group


def comparisons(filters: tuple[Filter, ...]) -> Iterator[Comparison]:
    """Every comparison of the filters, those inside groups included."""
    for item in filters:
        if isinstance(item, Group):
            yield from comparisons(item.items)
        else:
            yield item


def shape_of(filters: tuple[Filter, ...]) -> str:
    """The filters without their values, for the audit log: ``ward=eq, or=(result=in/2,risk=is)``."""
    return ", ".join(_shape(item) for item in filters)


def _shape(item: Filter) -> str:
    sign = "not." if item.negated else ""
    if isinstance(item, Group):
        return f"{sign}{'or' if item.either else 'and'}=({','.join(_shape(inner) for inner in item.items)})"
    return f"{item.field}={sign}{item.op}" + (f"/{len(item.values)}" if item.op == "in" else "")


def parse_filter(field: str, text: str) -> Comparison:
    """The filter that the parameter ``field=text`` states. Raises `BadFilter`."""
    negated, op, rest = _operator(field, text)
    if op != "in":
        return Comparison(field, op, (rest,), negated)
    scanner = _Scanner(rest, field)
    items = scanner.items()
    scanner.end()
    return Comparison(field, op, items, negated)


def parse_group(name: str, text: str) -> Group:
    """The filter that ``or=(…)``, ``and=(…)``, ``not.or=(…)`` or ``not.and=(…)`` states. Raises `BadFilter`."""
    scanner = _Scanner(text, name)
    group = scanner.group(either=name.endswith("or"), negated=name.startswith(_NOT), depth=1)
    scanner.end()
    return group


def _operator(field: str, text: str) -> tuple[bool, str, str]:
    """Whether ``text`` is negated, its operator, and what follows it."""
    negated = text.startswith(_NOT)
    op, dot, rest = text[len(_NOT) if negated else 0 :].partition(".")
    if not dot:
        raise BadFilter(why=f"'{field}' needs an operator and a value, as in {field}=eq.20.", field=field)
    if op not in OPERATORS:
        raise BadFilter(why=f"'{op[:40]}' is not an operator. {names.nearest(op[:40], OPERATORS)}", field=field)
    return negated, op, rest


class _Scanner:
    """Reads lists and groups from left to right; ``where`` names the parameter in errors."""

    def __init__(self, text: str, where: str) -> None:
        self._text, self._where, self._at, self._count = text, where, 0, 0

    def _fail(self, why: str) -> BadFilter:
        return BadFilter(why=f"'{self._where}': {why} at character {self._at + 1}.", field=self._where)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, expected: str) -> None:
        if not self._text.startswith(expected, self._at):
            raise self._fail(f"'{expected}' is expected")
        self._at += len(expected)

    def end(self) -> None:
        """Raises `BadFilter` unless all was read."""
        if self._at != len(self._text):
            raise self._fail("nothing more is expected")

    def _quoted(self) -> str:
        self._take('"')
        read: list[str] = []
        while (char := self._peek()) != '"':
            if char == "\\":
                self._at += 1
                char = self._peek()
            if not char:
                raise self._fail('a closing " is missing')
            read.append(char)
            self._at += 1
        self._at += 1
        return "".join(read)

    def _value(self) -> str:
        """A value in quotes, or everything up to the next comma or bracket."""
        if self._peek() == '"':
            return self._quoted()
        start = self._at
        while self._peek() not in (",", ")", ""):
            self._at += 1
        return self._text[start : self._at]

    def items(self) -> tuple[str, ...]:
        """``(a,b,"c,d")``; ``()`` is no item."""
        self._take("(")
        read: list[str] = []
        while self._peek() != ")":
            if read:
                self._take(",")
            read.append(self._value())
            if len(read) > MAX_ITEMS:
                raise self._fail(f"`in` takes at most {MAX_ITEMS} values")
        self._take(")")
        return tuple(read)

    def group(self, *, either: bool, negated: bool, depth: int) -> Group:
        """``(filter,filter,…)``."""
        if depth > MAX_DEPTH:
            raise self._fail(f"groups may be nested {MAX_DEPTH} deep")
        self._take("(")
        read = [self._filter(depth)]
        while self._peek() == ",":
            self._at += 1
            read.append(self._filter(depth))
        self._take(")")
        return Group(either, tuple(read), negated)

    def _filter(self, depth: int) -> Filter:
        self._count += 1
        if self._count > MAX_FILTERS:
            raise self._fail(f"at most {MAX_FILTERS} filters are taken")
        for word, either in (("or(", True), ("and(", False)):
            for sign, negated in (("", False), (_NOT, True)):
                if self._text.startswith(sign + word, self._at):
                    self._at += len(sign + word) - 1
                    return self.group(either=either, negated=negated, depth=depth + 1)
        return self._comparison()

    def _comparison(self) -> Comparison:
        field = self._field()
        self._take(".")
        negated, op, _rest = _operator(field, self._text[self._at :])
        self._at += len(_NOT) * negated + len(op) + 1
        return Comparison(field, op, self.items() if op == "in" else (self._value(),), negated)

    def _field(self) -> str:
        found = _FIELD.match(self._text, self._at)
        if found is None:
            raise self._fail("a field is expected")
        if self._peek() == '"':
            return self._quoted()
        self._at = found.end()
        return found.group()
