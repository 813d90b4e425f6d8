"""A question about one row: its whole key, and perhaps which columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.errors import BadFilter
from bus.sharing.filters import Comparison
from bus.sharing.permitted import Permitted
from bus.sharing.question import Query, parse_query
from bus.views.catalogue import Shape

Parameters = Sequence[tuple[str, str]]


def one_row(params: Parameters) -> Query:
    """A question by the key, with ``field`` in place of ``select``. Raises `BadFilter`."""
    fields = [value for name, value in params if name == "field"]
    others = [(name, value) for name, value in params if name != "field"]
    query = parse_query([*others, *([("select", ",".join(fields))] if fields else [])])
    plain = Query(select=query.select, filters=query.filters)
    if plain != query or any(name == "select" for name, _ in others):
        raise BadFilter(why="lineage takes each key column, as in licence_number=eq.20, and `field`; nothing else.")
    return query


def whole_key(permitted: Permitted, shape: Shape) -> dict[str, Any]:
    """The key that the filters name, whole. Raises `BadFilter`."""
    aggregate = shape.view.kind == "aggregate"
    parts = [item for item in permitted.filters if isinstance(item, Comparison) and _is_part(item, aggregate)]
    found = {item.field: None if item.op == "is" else item.values[0] for item in parts}
    if len(found) != len(permitted.filters) or set(found) != set(shape.view.key):
        example = "&".join(f"{name}=eq.X" for name in shape.view.key)
        raise BadFilter(why=f"lineage is of one row: name its whole key and nothing else, as in {example}.")
    return {name: found[name] for name in shape.view.key}


def _is_part(item: Comparison, aggregate: bool) -> bool:
    """Records whose group value is missing form a group of their own, asked for by ``is.null``."""
    null = aggregate and item.op == "is" and item.values == ("null",)
    return not item.negated and (item.op == "eq" or null)
