"""What a consumer's stream of a view is called, and the Avro schema of its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bus.core.columns import Column
from bus.core.contracts import Kind
from bus.core.masks import Mask, shown_kind

PREFIX: Final = "share."
DECIMAL_DIGITS: Final = 38
_TYPES: Final[Mapping[Kind, Any]] = {
    Kind.TEXT: "string",
    Kind.INTEGER: "long",
    Kind.NUMBER: "double",
    Kind.BOOLEAN: "boolean",
    Kind.DATE: {"type": "int", "logicalType": "date"},
    Kind.TIMESTAMP: {"type": "long", "logicalType": "timestamp-micros"},
    Kind.BYTES: "bytes",
    Kind.NESTED: "string",  # its JSON text, as CSV answers have it
}


def share_topic(consumer: str, view: str) -> str:
    """The topic with what the consumer may see of the view."""
    return f"{PREFIX}{consumer}.{view}"


def share_subject(consumer: str, view: str) -> str:
    """The registry subject of that topic's values (TopicNameStrategy)."""
    return f"{share_topic(consumer, view)}-value"


def is_share(topic: str) -> bool:
    """Whether this is a consumer's stream of a view."""
    return topic.startswith(PREFIX)


def share_schema(consumer: str, view: str, columns: Sequence[Column], masks: Mapping[str, Mask]) -> dict[str, Any]:
    """The Avro schema of the records: the granted columns in their order, all nullable with null as default, so that a
    grant that narrows or widens leaves readers of either schema able to read both. What a mask turns into text is text.
    """
    return {
        "type": "record",
        "name": view,
        "namespace": f"{PREFIX}{consumer}",
        "fields": [_field(column, masks.get(column.name)) for column in columns],
    }


def _field(column: Column, mask: Mask | None) -> dict[str, Any]:
    kind = shown_kind(mask, column.kind)
    shown: dict[str, Any] = {"name": column.name, "type": ["null", _type(kind, column.scale)], "default": None}
    shown["bus.title"] = dict(column.title)
    if kind is Kind.NESTED:
        shown["bus.json"] = True  # what tells it from text
    if mask is not None:
        shown["bus.mask"] = mask.kind
    return shown


def _type(kind: Kind, scale: int | None) -> Any:
    if kind is Kind.DECIMAL:
        return {"type": "bytes", "logicalType": "decimal", "precision": DECIMAL_DIGITS, "scale": scale or 0}
    return _TYPES[kind]
