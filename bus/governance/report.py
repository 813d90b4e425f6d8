"""A department's own picture: what it published, what became of it, what was refused and why, who read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bus.contracts.quarantine import Kept
from bus.contracts.registry import Registry
from bus.core.contracts import Contract
from bus.governance.promises.store import Promise
from bus.views.catalogue import Shape
from bus.views.store import Position, ViewStore

Entries = Callable[[Sequence[str]], Iterable[Mapping[str, Any]]]


class DepartmentReport:
    """Answers one department's questions about itself, and about nobody else.

    ``refused``: the newest quarantine entries of both origins; ``disclosures``: the audit entries of views;
    ``promises`` of freshness by entity.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        views: ViewStore,
        shapes: Callable[[], Mapping[str, Shape]],
        refused: Callable[[], Sequence[Kept]],
        disclosures: Entries,
        promises: Callable[[], Mapping[str, Promise]] = dict,
    ) -> None:
        self._registry = registry
        self._views = views
        self._shapes = shapes
        self._refused = refused
        self._disclosures = disclosures
        self._promises = promises

    def of(self, department: str) -> dict[str, Any]:
        """The report as JSON: ``entities``, ``refusals``, ``readers``."""
        contracts = [item for item in self._registry.contracts().values() if item.department == department]
        shapes, refused = self._shapes(), [kept for kept in self._refused() if _is_of(kept, department)]
        fed = {name for name, shape in shapes.items() if self._feeds(shape, contracts, shapes)}
        return {
            "department": department,
            "entities": [self._entity(contract, shapes, refused) for contract in contracts],
            "refusals": [_refusal(kept) for kept in refused[:20]],
            "readers": _readers(self._disclosures(sorted(fed))),
        }

    def _feeds(self, shape: Shape, contracts: Sequence[Contract], shapes: Mapping[str, Shape]) -> bool:
        ours = {contract.id for contract in contracts}
        if ours & set(shape.view.entities):
            return True
        return any(self._feeds(shapes[name], contracts, shapes) for name in shape.view.reads if name in shapes)

    def _entity(self, contract: Contract, shapes: Mapping[str, Shape], refused: Sequence[Kept]) -> dict[str, Any]:
        views = [name for name, shape in shapes.items() if contract.id in shape.view.entities]
        progress = [_progress(self._views.positions(name), contract.topic) for name in views]
        published = max((end for _, end in progress), default=0)
        applied = min((done for done, _ in progress), default=0)
        promise = self._promises().get(contract.id)
        return {
            "entity": contract.id,
            "published": published,
            "applied": applied,
            "waiting": published - applied,
            "refused": sum(kept.entry.entity == contract.id for kept in refused),
            "views": views,
            "promise": contract.freshness,
            "promise_broken": promise is not None and promise.broken,
        }


def _progress(positions: Sequence[Position], topic: str) -> tuple[int, int]:
    """Events applied and events there, over the partitions of a topic."""
    own = [position for position in positions if position.topic == topic]
    applied = sum(position.next_offset for position in own)
    return applied, max(applied, sum(position.end_offset for position in own))


def _is_of(kept: Kept, department: str) -> bool:
    return kept.entry.entity.partition(".")[0] == department


def _refusal(kept: Kept) -> dict[str, Any]:
    entry = kept.entry
    place = f"line {entry.line}" if entry.origin == "publish" else f"{entry.topic}/{entry.partition}@{entry.offset}"
    reasons = "; ".join(
        f"{reason.get('field', '')}: expected {reason.get('expected')}, received {reason.get('received')}"
        for reason in entry.reasons
    )
    return {"entity": entry.entity, "place": place, "reasons": reasons, "at_ms": kept.at_ms}


def _readers(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for entry in entries:
        key = (str(entry.get("view")), str(entry.get("who")), str(entry.get("purpose")))
        names = dict(zip(("view", "consumer", "purpose"), key, strict=True))
        reader = found.setdefault(key, {**names, "answers": 0, "rows": 0})
        reader["answers"] += 1
        reader["rows"] += int(entry.get("rows") or 0)
    return [found[key] for key in sorted(found)]
