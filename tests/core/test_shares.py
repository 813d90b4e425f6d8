"""What a stream is called, and the schema of its records."""

from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal
from typing import Any

import fastavro
import pytest

from bus.core.columns import Column
from bus.core.contracts import Kind
from bus.core.masks import Mask, apply_mask
from bus.core.shares import is_share, share_schema, share_subject, share_topic

_VALUES: dict[Kind, Any] = {
    Kind.TEXT: "Lunchroom",
    Kind.INTEGER: 2**62,
    Kind.NUMBER: 0.25,
    Kind.BOOLEAN: False,
    Kind.DATE: dt.date(2024, 2, 29),
    Kind.TIMESTAMP: dt.datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=dt.UTC),
    Kind.DECIMAL: Decimal("12.50"),
    Kind.BYTES: b"\x00\xff",
    Kind.NESTED: '["a"]',
}
_COLUMNS = [
    Column(
        str(kind), kind, True, {"zh": "列", "en": "column"}, "open", False, scale=2 if kind is Kind.DECIMAL else None
    )
    for kind in Kind
]


def _through(schema: dict[str, Any], record: dict[str, Any], reader: dict[str, Any] | None = None) -> Any:
    data = io.BytesIO()
    fastavro.schemaless_writer(data, fastavro.parse_schema(schema), record)
    data.seek(0)
    return fastavro.schemaless_reader(data, fastavro.parse_schema(schema), reader)


def test_a_value_of_each_kind_and_null_survive_the_schema() -> None:
    """What is written by the schema is read back equal, for each kind, and so is null."""
    schema = share_schema("tax", "food_business", _COLUMNS, {})
    record = {str(kind): value for kind, value in _VALUES.items()}
    assert _through(schema, record) == record
    assert _through(schema, {}) == dict.fromkeys(record)


@pytest.mark.parametrize(
    ("kind", "mask"),
    [
        (Kind.DATE, Mask("year", True)),
        (Kind.TIMESTAMP, Mask("month", True)),
        (Kind.INTEGER, Mask("hash", True)),
        (Kind.DATE, Mask("constant", "hidden")),
        (Kind.TEXT, Mask("constant", 7)),
        (Kind.DECIMAL, Mask("round", 1)),
        (Kind.TEXT, Mask("keep_first", 3)),
    ],
)
def test_what_a_mask_shows_fits_the_schema(kind: Kind, mask: Mask) -> None:
    """The masked value is of the type that the schema states."""
    schema = share_schema("tax", "food_business", _COLUMNS, {str(kind): mask})
    shown = apply_mask(_VALUES[kind], mask, b"key")
    assert _through(schema, {str(kind): shown})[str(kind)] == shown


def test_readers_of_the_wider_schema_read_the_narrower_one() -> None:
    """A field that a grant loses is null to who still reads by the old schema."""
    wide = share_schema("tax", "food_business", _COLUMNS, {})
    narrow = share_schema("tax", "food_business", _COLUMNS[:1], {})
    assert _through(narrow, {"text": "a"}, reader=wide) == {**dict.fromkeys(_VALUES), "text": "a"}


def test_names() -> None:
    """Topic and subject follow the interface's names."""
    assert share_topic("social", "food_business") == "share.social.food_business"
    assert share_subject("social", "food_business") == "share.social.food_business-value"
    assert is_share("share.social.food_business")
    assert not is_share("dept.food.inspection")
