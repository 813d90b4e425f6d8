"""A contract: an entity's Avro schema with the ``bus.`` attributes that say who answers for it.

Source of the attributes: interface.md, "Declarations"; of the types: Apache Avro 1.12 specification.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bus.core import names
from bus.errors import InvalidSchema, OwnerMissing

Json = Mapping[str, Any]
REQUIRED = ("bus.owner", "bus.contact", "bus.key", "bus.freshness", "bus.retention", "bus.legal_basis")
CLASSES = ("open", "conditional", "restricted")


class Kind(enum.StrEnum):
    """What a value is, whatever the library calls it. Python types in brackets."""

    TEXT = "text"  # str; also enum and uuid
    INTEGER = "integer"  # int, 64 bits
    NUMBER = "number"  # float
    BOOLEAN = "boolean"  # bool
    DATE = "date"  # datetime.date
    TIMESTAMP = "timestamp"  # datetime.datetime, aware, UTC, microseconds
    DECIMAL = "decimal"  # decimal.Decimal
    BYTES = "bytes"  # bytes
    NESTED = "nested"  # list or dict: arrays, maps, records; kept, not filterable


_LOGICAL = {
    "date": Kind.DATE,
    "timestamp-millis": Kind.TIMESTAMP,
    "timestamp-micros": Kind.TIMESTAMP,
    "decimal": Kind.DECIMAL,
    "uuid": Kind.TEXT,
}
_PRIMITIVE = {
    "string": Kind.TEXT,
    "enum": Kind.TEXT,
    "int": Kind.INTEGER,
    "long": Kind.INTEGER,
    "float": Kind.NUMBER,
    "double": Kind.NUMBER,
    "boolean": Kind.BOOLEAN,
    "bytes": Kind.BYTES,
    "fixed": Kind.BYTES,
}


@dataclass(frozen=True, slots=True)
class FieldContract:
    """One field: its kind, and what its owner says about it."""

    name: str
    kind: Kind
    nullable: bool
    avro: Any
    title: Mapping[str, str]
    classification: str = "open"
    personal: bool = False
    identifier: str | None = None
    values: tuple[Any, ...] | None = None
    pattern: str | None = None
    minimum: float | str | None = None
    maximum: float | str | None = None
    unit: str | None = None

    @property
    def bits(self) -> int:
        """32 for an Avro ``int``, else 64: the range that a decoded integer must keep."""
        return 32 if self.kind is Kind.INTEGER and _type_name(self.avro) == "int" else 64


@dataclass(frozen=True, slots=True)
class Contract:
    """An entity's contract. ``version`` names the field by which its source orders changes, if any. ``retired``: it
    takes no new versions and no events any more."""

    department: str
    entity: str
    owner: str
    contact: str
    key: tuple[str, ...]
    version: str | None
    freshness: str
    retention: str
    legal_basis: str
    title: Mapping[str, str]
    fields: tuple[FieldContract, ...]
    schema: Json
    retired: bool = False

    @property
    def id(self) -> str:
        return f"{self.department}.{self.entity}"

    @property
    def topic(self) -> str:
        return names.topic_of(self.id)

    @property
    def subject(self) -> str:
        return names.subject_of(self.id)

    def field(self, name: str) -> FieldContract | None:
        return next((field for field in self.fields if field.name == name), None)


def _type_name(avro: Any) -> str:
    return str(avro["type"]) if isinstance(avro, Mapping) else str(avro)


def _unwrap(avro: Any) -> tuple[Any, bool]:
    """The non-null branch of a union of null and one type, and whether null was there."""
    if not isinstance(avro, list):
        return avro, avro == "null"
    others = [branch for branch in avro if branch != "null"]
    return (others[0] if len(others) == 1 else {"type": "union"}), "null" in avro


def kind_of(avro: Any) -> Kind:
    """The kind of an Avro type without its null branch."""
    if isinstance(avro, Mapping):
        if isinstance(avro.get("type"), Mapping):
            return kind_of(avro["type"])
        logical = _LOGICAL.get(str(avro.get("logicalType")))
        if logical is not None:
            return logical
    return _PRIMITIVE.get(_type_name(avro), Kind.NESTED)


def _field(doc: Any) -> FieldContract:
    if not isinstance(doc, Mapping) or "name" not in doc or "type" not in doc:
        raise InvalidSchema(why="each field needs a name and a type.")
    avro, nullable = _unwrap(doc["type"])
    classification = str(doc.get("bus.class", "open"))
    if classification not in CLASSES:
        raise InvalidSchema(why=f"field '{doc['name']}': bus.class is '{classification}', one of {', '.join(CLASSES)}.")
    values = doc.get("bus.values")
    return FieldContract(
        name=str(doc["name"]),
        kind=kind_of(avro),
        nullable=nullable,
        avro=avro,
        title=dict(doc.get("bus.title") or {}),
        classification=classification,
        personal=bool(doc.get("bus.personal", False)),
        identifier=doc.get("bus.identifier"),
        values=tuple(values) if values is not None else None,
        pattern=doc.get("bus.pattern"),
        minimum=doc.get("bus.min"),
        maximum=doc.get("bus.max"),
        unit=doc.get("bus.unit"),
    )


def _check_key(key: tuple[str, ...], fields: Mapping[str, FieldContract]) -> None:
    if len(set(key)) < len(key):
        raise InvalidSchema(why=f"bus.key names a field more than once: {', '.join(key)}.")
    for name in key:
        field = fields.get(name)
        if field is None:
            raise InvalidSchema(why=f"bus.key names '{name}'. {names.nearest(name, fields)}")
        if field.nullable or field.kind in (Kind.NUMBER, Kind.NESTED, Kind.BYTES):
            raise InvalidSchema(why=f"key field '{name}' may not be null, floating point, bytes or nested.")


def _check_version(name: str | None, fields: Mapping[str, FieldContract]) -> None:
    if name is None:
        return
    field = fields.get(name)
    if field is None or field.kind not in (Kind.INTEGER, Kind.DATE, Kind.TIMESTAMP):
        raise InvalidSchema(why=f"bus.version '{name}' must be an integer, date or timestamp field.")


def _check_required(schema: Json) -> None:
    for attribute in REQUIRED:
        if not schema.get(attribute):
            raise OwnerMissing(attribute=attribute)


def parse_contract(schema: Json) -> Contract:
    """The contract that an ``.avsc`` document states.

    Raises `OwnerMissing` for a required ``bus.`` attribute and `InvalidSchema` for everything else.
    """
    if not isinstance(schema, Mapping) or schema.get("type") != "record":
        raise InvalidSchema(why="a contract is an Avro record.")
    _check_required(schema)
    department, entity = str(schema.get("namespace", "")), str(schema.get("bus.entity") or "")
    entity = entity or names.snake_case(str(schema.get("name", "")))
    for part in (department, entity):
        if not names.is_id(part):
            raise InvalidSchema(why=f"'{part}' is not an id: namespace and name give them, as [a-z][a-z0-9_]*.")
    fields = tuple(_field(doc) for doc in schema.get("fields", ()))
    by_name = {field.name: field for field in fields}
    key = schema["bus.key"]
    key = (key,) if isinstance(key, str) else tuple(key)
    _check_key(key, by_name)
    _check_version(schema.get("bus.version"), by_name)
    return Contract(
        department=department,
        entity=entity,
        owner=str(schema["bus.owner"]),
        contact=str(schema["bus.contact"]),
        key=key,
        version=schema.get("bus.version"),
        freshness=str(schema["bus.freshness"]),
        retention=str(schema["bus.retention"]),
        legal_basis=str(schema["bus.legal_basis"]),
        title=dict(schema.get("bus.title") or {}),
        fields=fields,
        schema=schema,
    )
