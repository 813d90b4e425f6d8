"""Commands whose modules are loaded when they are run: naming all of them costs nothing (`bus --help` 0.7 s less)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Later(TyperCommand):
    """Stands for a command, or a group of commands, until it is run. ``place``: its module in `bus.cli` and its name
    there, ``stack:up``; ``help``: the first line of its own help, which lists of commands show."""

    def __init__(self, name: str, place: str, help: str) -> None:  # noqa: A002 (the library's name)
        super().__init__(name, help=help)
        self._place = place

    @cached_property
    def loaded(self) -> Any:
        """The command itself."""
        module, _, attribute = self._place.partition(":")
        found = getattr(import_module(f"bus.cli.{module}"), attribute)
        parent = typer.Typer(add_completion=False)
        parent.callback()(_nothing)  # a group even with one command
        if isinstance(found, typer.Typer):
            parent.add_typer(found, name=self.name)
        else:
            parent.command(self.name)(found)
        group: Any = typer.main.get_command(parent)
        return group.commands[self.name]

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Whoever runs it gets the context of the command itself, and goes on with that."""
        return self.loaded.make_context(info_name, args, parent=parent, **extra)


def _nothing() -> None:
    """The callback of a group that does nothing itself."""


def group_of(places: Mapping[str, tuple[str, str]]) -> type[TyperGroup]:
    """A class of groups, for ``typer.Typer(cls=…)``: ``places`` gives each command's place and the line about it. They
    follow the commands that the group has of its own."""

    class Group(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            for name, (place, line) in places.items():
                self.add_command(Later(name, place, line))

    return Group
