"""What a rule file may not contain, found before the bus signs it (no OPA is needed for that).

A rule of a single view comes from the department that owns the view, so more is asked of it: it reads the input and
nothing else, it can only narrow, and it has no way to be true of nothing (E2). `opa check` with the same capabilities
and the rules' own tests come on top in `bus policy test` and `make check`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from bus.access.rules.tokens import Token, statements, tokens
from bus.core import names
from bus.errors import BusError, InvalidDeclaration, SetupError

CAPABILITIES: Final = "capabilities.json"
VIEWS: Final = PurePosixPath("bus/views")
GENERIC: Final = PurePosixPath("bus/access")
MAX_BYTES: Final = 64 * 1024
_ANSWERS: Final = ("allow", "allow_all", "include")
_KEYWORDS: Final = frozenset({"if", "in", "not", "some", "every", "else", "default", "as", "with", "import", "package"})


def builtins_of(policies: Path) -> frozenset[str]:
    """The functions that ``capabilities.json`` of the rules' folder lets a rule call."""
    try:
        document = json.loads((policies / CAPABILITIES).read_bytes())
        return frozenset(str(item["name"]) for item in document["builtins"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(why=f"{CAPABILITIES} is missing in {policies}", ways_out="restore the file") from error


def check_rules(files: Mapping[str, bytes], builtins: frozenset[str]) -> None:
    """Raises `InvalidDeclaration` naming every problem. ``files``: the Rego files of the bundle, by path."""
    found = ((path, problem) for path, content in files.items() for problem in _problems(path, content, builtins))
    problems = [f"{path}: {problem}" for path, problem in found]
    if problems:
        text = f"the rules have {len(problems)} problem(s), so they are not published: " + " ".join(problems)
        raise InvalidDeclaration(text, problems=problems)


def _problems(path: str, content: bytes, builtins: frozenset[str]) -> Iterator[str]:
    if len(content) > MAX_BYTES:
        yield f"it is longer than {MAX_BYTES} bytes."
        return
    try:
        found = tokens(content.decode())
    except (BusError, UnicodeDecodeError) as error:
        yield str(error)
        return
    place, rules = PurePosixPath(path), list(statements(found))
    yield from _misplaced(place, rules)
    yield from _calls(found, builtins, {rule[0].text for rule in rules})
    if place.parent == VIEWS:
        yield from _not_closed(found)
        for rule in rules:
            yield from _always_true(rule)
            yield from _every_of_nothing(rule)
        yield from _unsaid(rules)


def _misplaced(place: PurePosixPath, rules: list[list[Token]]) -> Iterator[str]:
    package = "".join(token.text for token in rules[0][1:]) if rules and rules[0][0].text == "package" else ""
    parts = place.parent.parts
    if place.parent == VIEWS and names.is_id(place.stem):
        parts = (*parts, place.stem)
    elif place.parent != GENERIC and GENERIC not in place.parent.parents:
        yield "a rule file lies below bus/access, or in bus/views with the name of its view."
    if package != ".".join(parts):
        yield f"its package is {package or 'none'}, its place says {'.'.join(parts)}."
    if any(rule[0].text == "package" for rule in rules[1:]):
        yield "it has more than one package."


def _calls(found: list[Token], builtins: frozenset[str], own: set[str]) -> Iterator[str]:
    """Calls of what is neither in the capabilities nor a function of this file."""
    for index, token in enumerate(found):
        if token.text != "(" or token.kind != "mark" or index == 0:
            continue
        callee = found[index - 1]
        if callee.text in _KEYWORDS or (callee.kind == "mark" and callee.text not in ("]", ")", "}")):
            continue
        called = _called(found, index - 1)
        if called is None:
            yield f"line {token.line}: it calls something that is not a name."
        elif called not in builtins and called not in own:
            yield f"line {token.line}: '{called}' may not be called in a rule."


def _called(found: list[Token], index: int) -> str | None:
    """The dotted name that ends at ``index``, also where it is written with brackets; None for anything else."""
    parts: list[str] = []
    while index >= 0:
        if found[index].kind == "name":
            parts.append(found[index].text)
            index -= 1
        elif index >= 3 and _bracketed(found[index - 2 : index + 1]):
            parts.append(found[index - 1].value)
            index -= 3
            continue
        else:
            return None
        if index < 0 or found[index].text != ".":
            return ".".join(reversed(parts))
        index -= 1
    return None


def _bracketed(found: list[Token]) -> bool:
    first, name, last = found
    return (first.text, name.kind, last.text) == ("[", "text", "]")


def _not_closed(found: list[Token]) -> Iterator[str]:
    """A view's rule sees the input alone: no data, no other package, no input of its own making."""
    for index, token in enumerate(found):
        member = index > 0 and found[index - 1].text == "."
        if token.kind != "name" or member:
            continue
        if token.text == "data":
            yield f"line {token.line}: a view's rule reads the input only, not `data`."
        if token.text == "with":
            yield f"line {token.line}: `with` would give the rule another input."


def _always_true(rule: list[Token]) -> Iterator[str]:
    """`default include := true`, and `allow := true` without a condition."""
    default = rule[0].text == "default"
    head = rule[1] if default and len(rule) > 1 else rule[0]
    if head.text not in _ANSWERS:
        return
    said = [token.text for token in rule[2 if default else 1 :]]
    if default and said[-1:] != ["false"]:
        yield f"line {head.line}: the default of `{head.text}` is false."
    if not default and said in ([], [":=", "true"], ["=", "true"]):
        yield f"line {head.line}: `{head.text}` is true without a condition."


def _every_of_nothing(rule: list[Token]) -> Iterator[str]:
    """`every` over what may be empty is true then: the same rule must count it."""
    text = " ".join(token.text for token in rule)
    for index, token in enumerate(rule):
        if token.text != "every" or token.kind != "name":
            continue
        over = _domain(rule, index)
        if not over or over[0].text in ("[", "{"):
            continue
        if f"count ( {' '.join(part.text for part in over)} ) > 0" not in text:
            yield f"line {token.line}: `every` is true of an empty list; say `count(...) > 0` of it in the same rule."


def _domain(rule: list[Token], index: int) -> list[Token]:
    """What stands between the `in` of an `every` and its body."""
    start = next((at for at in range(index, len(rule)) if rule[at].text == "in"), len(rule))
    over: list[Token] = []
    for token in rule[start + 1 :]:
        if token.text == "{" and over:
            break
        over.append(token)
    return over


def _unsaid(rules: list[list[Token]]) -> Iterator[str]:
    said = {rule[0].text for rule in rules}
    yield from (f"it never says `{name}`, so nothing is shown." for name in ("allow", "include") if name not in said)
