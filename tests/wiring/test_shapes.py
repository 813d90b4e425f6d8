"""The shapes that serve answers by follow what is declared."""

from __future__ import annotations

import json

from ruamel.yaml import YAML

from bus.contracts.registry import Registry
from bus.infra.database import open_database
from bus.views.catalogue import Declarations
from bus.wiring.viewing import KEPT_S, CurrentShapes
from tests.conftest import ROOT


def test_a_change_is_seen_at_once_here_and_soon_elsewhere(sqlite_url: str) -> None:
    """The process that declares sees it in its next question; another one within a quarter of a second."""
    governance = open_database(sqlite_url, "governance")
    registry, declarations = Registry(governance), Declarations(governance)
    now = [0.0]
    here, elsewhere = (CurrentShapes(declarations, registry, clock=lambda: now[0]) for _ in range(2))
    assert here() == elsewhere() == {}
    registry.register(json.loads((ROOT / "schemas/weather/daily.avsc").read_text()))
    declarations.apply(YAML(typ="safe").load(ROOT / "schemas/views/weather_daily.yaml"), registry.contracts())
    here.forget()
    assert set(here()) == {"weather_daily"}
    assert elsewhere() == {}
    now[0] += KEPT_S + 0.01
    assert set(elsewhere()) == {"weather_daily"}
    assert elsewhere() is elsewhere()
