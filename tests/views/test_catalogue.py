"""Declarations in the governance database: one change at a time, and only what can be built."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from views_world import INSPECTION, INSPECTIONS, LICENCE, MONEY, VIEW, schema

from bus.core.contracts import parse_contract
from bus.core.declarations import parse_view
from bus.errors import InvalidDeclaration, UnknownView
from bus.infra.database import open_database
from bus.views.catalogue import Declarations, shape_of, shapes

CONTRACTS = {found.id: found for found in map(parse_contract, (LICENCE, INSPECTION))}
COUNTS: dict[str, Any] = {
    "view": "counts",
    "owner": "food",
    "kind": "aggregate",
    "over": {"i": {"view": "inspections"}},
    "group_by": ["result"],
    "measures": {"n": {"count": "i"}},
}


def test_changes_at_the_same_time(database_url: str) -> None:
    """Many threads declare and drop the same views: none fails but with a refusal, the revision counts each change,
    and no aggregate is left without the view that it reads."""
    made = [Declarations(open_database(database_url, "governance")) for _ in range(4)]

    def change(number: int) -> int:
        declarations = made[number % 4]
        try:
            match number % 5:
                case 0:
                    declarations.drop("inspections")
                case 1:
                    return declarations.apply(COUNTS, CONTRACTS).changed
                case 2:
                    declarations.drop("counts")
                case 3:
                    return declarations.apply({**VIEW, "title": {"en": str(number)}}, CONTRACTS).changed
                case _:
                    return declarations.apply(INSPECTIONS, CONTRACTS).changed
        except (InvalidDeclaration, UnknownView):
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        changed = sum(pool.map(change, range(100)))
    assert made[0].revision() == changed
    declared = made[0].all()
    assert set(shapes(made[0], CONTRACTS)) == set(declared)


def test_the_declared_order_of_fields_is_kept(database_url: str) -> None:
    """Readers see the columns as their author listed them."""
    declarations = Declarations(open_database(database_url, "governance"))
    declarations.apply(VIEW, CONTRACTS)
    assert [field.name for field in declarations.get("food_business").fields] == list(VIEW["fields"])
    assert not declarations.apply(VIEW, CONTRACTS).changed
    assert declarations.revision() == 1


def test_keys_of_different_scales_are_refused() -> None:
    """1.00 and 1 would be two keys on one database and one on the other."""
    whole = {**MONEY, "scale": 0, "precision": 9}
    contracts = {
        found.id: found
        for found in map(
            parse_contract,
            (schema("market", "A", ["fee"], {"fee": MONEY}), schema("market", "B", ["fee"], {"fee": whole})),
        )
    }
    sources = {"a": {"entity": "market.a"}, "b": {"entity": "market.b"}}
    view = parse_view({"view": "fees", "owner": "market", "key": ["fee"], "sources": sources})
    with pytest.raises(InvalidDeclaration, match="another scale"):
        shape_of(view, contracts, {})
