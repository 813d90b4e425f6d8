"""What declarations are checked against: the bus that runs here, else the files of a folder `schemas`."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bus.contracts.registry import Registry, checked_contract
from bus.core.contracts import Contract
from bus.core.declarations import problems_of, read_view
from bus.core.guards import Lowered
from bus.core.views import View
from bus.errors import InvalidSchema
from bus.governance.declassification import Declassifications
from bus.infra.database import open_database
from bus.infra.stack.opa import BUNDLE_KEY
from bus.views.catalogue import Declarations
from bus.wiring.site import Site


@dataclass(frozen=True, slots=True)
class Declared:
    """Contracts by entity id, views by name, and the declassifications in force. ``where``: in words. ``sound``: the
    views to take for sound; None: see for yourself. In a folder they are all meant to fit: what was there before a
    file was changed is not known."""

    where: str
    contracts: Mapping[str, Contract]
    views: Mapping[str, View]
    lowered: Lowered = field(default_factory=dict)
    sound: Collection[str] | None = None


def declared_here(site: Site) -> Declared:
    """What is declared on the running bus."""
    governance = open_database(site.settings.database, "governance")
    key = site.secrets.ensure_key(BUNDLE_KEY).read_bytes()
    lowered = Declassifications(governance, key, _reads_only).lowered()
    return Declared("the running bus", Registry(governance).contracts(), Declarations(governance).all(), lowered)


def _reads_only(_entry: Mapping[str, Any]) -> None:
    """Nothing is declassified by a check, so there is nothing to record."""


def declared_in(schemas: Path, read_yaml: Callable[[Path], Any]) -> Declared:
    """The contracts and sound views of a folder. Raises `InvalidSchema` for a contract that is none."""
    contracts = (_contract(path) for path in sorted(schemas.glob("*/*.avsc")))
    views = {}
    for path in sorted((schemas / "views").glob("*.yaml")):
        doc = read_yaml(path)
        problems = problems_of(doc)
        view = read_view(doc, problems)
        if not problems.found:
            views[view.name] = view
    return Declared(str(schemas), {contract.id: contract for contract in contracts}, views, sound=set(views))


def _contract(path: Path) -> Contract:
    try:
        return checked_contract(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise InvalidSchema(why=f"{path}: {error}.") from error
