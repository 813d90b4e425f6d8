"""YAML files with the line of each member, so that a refusal can say where the mistake stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from bus.cli.files import dates_as_text, read_yaml
from bus.cli.output import console
from bus.core.problems import Lines
from bus.errors import InvalidDeclaration


def read_located(path: Path) -> tuple[Any, Lines]:
    """The document (dates as ISO text) and the line of each member by its path, ``fields.ward.from``; an item of a
    list of names counts as a member. Raises `InvalidDeclaration` for what is not YAML."""
    document = dates_as_text(read_yaml(path))
    lines: dict[str, int] = {}
    root = YAML(pure=True).compose(path.read_text(encoding="utf-8"))
    if root is not None:
        _walk(root, "", lines)
    return document, lines


def _walk(node: Node, path: str, lines: dict[str, int]) -> None:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            inner = f"{path}.{key.value}" if path else str(key.value)
            lines[inner] = key.start_mark.line + 1
            _walk(value, inner, lines)
    elif isinstance(node, SequenceNode):
        for item in node.value:
            if isinstance(item, ScalarNode):
                lines[f"{path}.{item.value}"] = item.start_mark.line + 1


def refuse(found: list[str], what: str) -> None:
    """Shows the problems, one a line. Raises `InvalidDeclaration` if there is one."""
    for line in found:
        console.print(line, markup=False)
    if found:
        raise InvalidDeclaration(f"{len(found)} problem(s): {what}", problems=found)
