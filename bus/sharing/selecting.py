"""What ``select`` names: columns, figures (``cnt:count()``, ``fee.sum()``) and embedded views (``alias:view(a,b)``).

Only the form is read here, as PostgREST writes it; what it means is decided in `permitted.py` and in the rooms of
aggregates and embedding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from bus.core import names
from bus.errors import BadFilter, UnknownField

FUNCTIONS: Final = ("count", "sum", "avg", "min", "max")
MAX_FIGURES: Final = 50
MAX_EMBEDDED: Final = 5
_FIELD: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FIGURE: Final = re.compile(r"(?:([a-z][a-z0-9_]{0,62})\.)?([a-z]+)\(\)")
_EMBEDDED: Final = re.compile(r"([a-z][a-z0-9_]{0,62})(?:!([a-z][a-z0-9_]{0,62}))?\((.*)\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A column asked for, and the name it shall have in the answer (``alias:field``)."""

    field: str
    name: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure asked for: ``function`` of ``field`` (empty: of the rows, for count), and its name in the answer."""

    function: str
    field: str
    name: str


@dataclass(frozen=True, slots=True)
class Nested:
    """A view asked for beside each row: its name in the answer, the view, the column that leads there where it was said
    (``view!column``), and its own ``select``."""

    name: str
    view: str
    by: str | None
    select: str


@dataclass(frozen=True, slots=True)
class Selection:
    """``chosen`` None: every granted column."""

    chosen: tuple[Chosen, ...] | None = None
    figures: tuple[Figure, ...] = ()
    nested: tuple[Nested, ...] = ()


def parse_select(text: str | None, most: int) -> Selection:
    """What ``select`` names, at most so many things. Raises `BadFilter` and `UnknownField`."""
    if text is None or text.strip() in ("", "*"):
        return Selection()
    read = [_item(item) for item in _listed(text, most)]
    every = read.count(None)
    chosen = tuple(item for item in read if isinstance(item, Chosen))
    found = Selection(
        None if every else chosen,
        tuple(item for item in read if isinstance(item, Figure)),
        tuple(item for item in read if isinstance(item, Nested)),
    )
    _refuse_twice([item.name for item in read if item is not None])
    _refuse_mixed(found, every, chosen)
    return found


def _refuse_mixed(found: Selection, every: int, chosen: tuple[Chosen, ...]) -> None:
    if every and (every > 1 or chosen or found.figures):
        raise BadFilter(why="`*` stands alone or beside embedded views. Name the columns to group by.", field="select")
    if found.figures and found.nested:
        raise BadFilter(why="figures and embedded views are asked for one by one.", field="select")
    if len(found.figures) > MAX_FIGURES or len(found.nested) > MAX_EMBEDDED:
        raise BadFilter(why=f"at most {MAX_FIGURES} figures or {MAX_EMBEDDED} embedded views are taken.")


def _listed(text: str, most: int) -> list[str]:
    """The items between commas that stand in no bracket."""
    items, depth, start = list[str](), 0, 0
    for place, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            items.append(text[start:place].strip())
            start = place + 1
    items.append(text[start:].strip())
    if len(items) > most:
        raise BadFilter(why=f"at most {most} columns can be named.")
    return items


def _item(item: str) -> Chosen | Figure | Nested | None:
    """One item; None for ``*``."""
    if item == "*":
        return None
    alias, rest = _aliased(item)
    if "(" not in rest:
        return Chosen(plain(rest), plain(alias or rest))
    name = None if alias is None else plain(alias)
    if figure := _FIGURE.fullmatch(rest):
        return _figure(name, field=figure[1] or "", function=figure[2])
    if embedded := _EMBEDDED.fullmatch(rest):
        return Nested(name or embedded[1], embedded[1], embedded[2], embedded[3])
    raise not_a_field(item)


def _aliased(item: str) -> tuple[str | None, str]:
    """The alias, where one stands before the brackets, and the rest."""
    head = item.partition("(")[0]
    if ":" not in head:
        return None, item
    alias, _, rest = item.partition(":")
    return alias, rest


def _figure(name: str | None, *, field: str, function: str) -> Figure:
    if function not in FUNCTIONS:
        hint = names.nearest(function, FUNCTIONS)
        raise BadFilter(why=f"'{function[:40]}()' is not one of {', '.join(FUNCTIONS)}. {hint}", field="select")
    if not field and function != "count":
        raise BadFilter(why=f"{function}() needs a field, as in fee.{function}().", field="select")
    return Figure(function, field, name or function)


def plain(item: str) -> str:
    """A field's id, perhaps in quotes. Raises `UnknownField` for anything else."""
    name = item[1:-1] if len(item) > 2 and item[0] == item[-1] == '"' else item
    if not _FIELD.fullmatch(name):
        raise not_a_field(item)
    return name


def not_a_field(text: str) -> UnknownField:
    """The error for what cannot be a field."""
    return UnknownField(field=text[:80], view="the view", hint="A field is named by its id alone.")


def _refuse_twice(items: list[str]) -> None:
    seen: set[str] = set()
    for item in items:
        if item in seen:
            raise BadFilter(why=f"'{item}' stands twice in 'select'. Name one otherwise: a:{item}.", field=item)
        seen.add(item)
