"""Which Avro schemas are safe to read: no recursion, no items without size, logical types that mean something.

A schema that is refused here could otherwise crash or exhaust every reader by a message of a few bytes
(E16, E17), or be read with its logical type silently dropped (Avro ignores what it does not know).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

import avro.errors
import avro.schema

from bus.contracts.rules import limit_of
from bus.core.contracts import Contract, FieldContract, Json, Kind
from bus.core.identifiers import IDENTIFIERS
from bus.core.names import nearest
from bus.errors import InvalidSchema, RecursiveSchema, ZeroSizeItems

MAX_FIELDS: Final = 1_000
MAX_DEPTH: Final = 20
MAX_PRECISION: Final = 38  # what a 128-bit decimal holds
_BASES: Final[Mapping[str, tuple[str, ...]]] = {
    "date": ("int",),
    "time-millis": ("int",),
    "time-micros": ("long",),
    "timestamp-millis": ("long",),
    "timestamp-micros": ("long",),
    "uuid": ("string",),
    "decimal": ("bytes", "fixed"),
}
_NAMED: Final = ("record", "error", "enum", "fixed")
_DURATION: Final = re.compile(r"P(?=.)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?")


def check_structure(schema: Json) -> None:
    """Raises `RecursiveSchema`, `ZeroSizeItems` or `InvalidSchema`, naming the place in the schema."""
    _Walk().visit(schema, "", depth=0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", avro.errors.IgnoredLogicalType)
            avro.schema.make_avsc_object(_plain(schema))
    except (avro.errors.AvroException, avro.errors.AvroWarning, AttributeError, TypeError, ValueError) as error:
        raise InvalidSchema(why=f"{error}.") from error


def check_attributes(contract: Contract) -> None:
    """Raises `InvalidSchema` where a ``bus.`` attribute does not fit the field or cannot be checked."""
    for name, value in (("bus.freshness", contract.freshness), ("bus.retention", contract.retention)):
        if _DURATION.fullmatch(value) is None:
            raise InvalidSchema(why=f"{name} is '{value}', not an ISO 8601 duration such as P1D.")
    if len(contract.fields) > MAX_FIELDS:
        raise InvalidSchema(why=f"{len(contract.fields)} fields, at most {MAX_FIELDS}.")
    for field in contract.fields:
        why = next(_faults(field), None)
        if why is not None:
            raise InvalidSchema(why=f"field '{field.name}': {why}")


def _faults(field: FieldContract) -> Iterator[str]:
    if field.identifier is not None:
        if field.identifier not in IDENTIFIERS:
            yield f"bus.identifier '{field.identifier}' is unknown. {nearest(str(field.identifier), IDENTIFIERS)}"
        if field.kind is not Kind.TEXT:
            yield f"bus.identifier needs text, this is {field.kind}."
    if field.pattern is not None:
        yield from _pattern_faults(field)
    if field.values is not None and field.kind not in (Kind.TEXT, Kind.INTEGER):
        yield "bus.values needs text or integers."
    if (field.minimum is not None or field.maximum is not None) and field.kind in (
        Kind.BOOLEAN,
        Kind.BYTES,
        Kind.NESTED,
        Kind.TEXT,
    ):
        yield f"bus.min and bus.max need a number, date or timestamp, this is {field.kind}."
    elif field.kind is not Kind.TEXT:
        yield from _limit_faults(field)


def _limit_faults(field: FieldContract) -> Iterator[str]:
    for limit in (field.minimum, field.maximum):
        try:
            limit_of(field, limit)
        except (ValueError, TypeError) as error:
            yield f"bus.min or bus.max: {error}."


def _pattern_faults(field: FieldContract) -> Iterator[str]:
    if field.kind is not Kind.TEXT:
        yield f"bus.pattern needs text, this is {field.kind}."
    try:
        re.compile(str(field.pattern))
    except re.error as error:
        yield f"bus.pattern does not parse: {error}."


def _plain(schema: Any) -> Any:
    """The schema as the dicts and lists that the Avro library asks for."""
    if isinstance(schema, Mapping):
        return {key: _plain(value) for key, value in schema.items()}
    return [_plain(item) for item in schema] if isinstance(schema, list | tuple) else schema


class _Walk:
    """One pass over a schema; knows which named types are open (recursion) and which are done."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._sizeless: dict[str, bool] = {}

    def visit(self, avro_type: Any, path: str, *, depth: int, namespace: str = "") -> bool:
        """Checks a type; returns whether a value of it may take no bytes."""
        if depth > MAX_DEPTH:
            raise InvalidSchema(why=f"'{path}' is nested deeper than {MAX_DEPTH}.")
        if isinstance(avro_type, str):
            return self._reference(avro_type, path, namespace)
        if isinstance(avro_type, list):
            for branch in avro_type:
                self.visit(branch, path, depth=depth + 1, namespace=namespace)
            return False
        if not isinstance(avro_type, Mapping) or "type" not in avro_type:
            raise InvalidSchema(why=f"'{path}' is not an Avro type.")
        return self._complex(avro_type, path, depth, namespace)

    def _reference(self, name: str, path: str, namespace: str) -> bool:
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        for candidate in (full, name):
            if candidate in self._open:
                raise RecursiveSchema(field=path)
            if candidate in self._sizeless:
                return self._sizeless[candidate]
        return name == "null"

    def _complex(self, doc: Mapping[str, Any], path: str, depth: int, namespace: str) -> bool:
        kind = doc["type"]
        _check_logical(doc, path)
        if isinstance(kind, Mapping | list):
            return self.visit(kind, path, depth=depth + 1, namespace=namespace)
        if kind in ("array", "map"):
            items = doc.get("items" if kind == "array" else "values")
            if self.visit(items, f"{path}[]", depth=depth + 1, namespace=namespace):
                raise ZeroSizeItems(field=path)
            return False
        if kind in _NAMED:
            return self._named(doc, path, depth, namespace)
        return self._reference(str(kind), path, namespace)

    def _named(self, doc: Mapping[str, Any], path: str, depth: int, namespace: str) -> bool:
        name, space = str(doc.get("name", "")), str(doc.get("namespace", namespace))
        full = name if "." in name or not space else f"{space}.{name}"
        sizeless = doc["type"] == "fixed" and doc.get("size") == 0
        if doc["type"] in ("record", "error"):
            self._open.append(full)
            sizeless = self._fields(doc, path, depth, full.rpartition(".")[0])
            self._open.pop()
        self._sizeless[full] = sizeless
        return sizeless

    def _fields(self, doc: Mapping[str, Any], path: str, depth: int, namespace: str) -> bool:
        fields = doc.get("fields")
        if not isinstance(fields, list):
            raise InvalidSchema(why=f"record '{doc.get('name')}' has no list of fields.")
        sizeless = []
        for field in fields:
            if not isinstance(field, Mapping) or "name" not in field or "type" not in field:
                raise InvalidSchema(why="each field needs a name and a type.")
            if "logicalType" in field:
                raise InvalidSchema(
                    why=f"field '{field['name']}': logicalType belongs inside its type, else Avro drops it."
                )
            place = f"{path}.{field['name']}" if path else str(field["name"])
            sizeless.append(self.visit(field["type"], place, depth=depth + 1, namespace=namespace))
        return all(sizeless)


def _check_logical(doc: Mapping[str, Any], path: str) -> None:
    logical = doc.get("logicalType")
    if logical is None:
        return
    if str(logical).startswith("local-timestamp-"):
        raise InvalidSchema(why=f"'{path}': {logical} has no time zone. Use timestamp-micros, in UTC.")
    bases = _BASES.get(str(logical))
    if bases is None:
        raise InvalidSchema(why=f"'{path}': logicalType '{logical}' is unknown. {nearest(str(logical), _BASES)}")
    if doc.get("type") not in bases:
        raise InvalidSchema(why=f"'{path}': logicalType {logical} needs {' or '.join(bases)}, not {doc.get('type')}.")
    if logical == "decimal":
        _check_decimal(doc, path)


def _check_decimal(doc: Mapping[str, Any], path: str) -> None:
    if "." in path or "[]" in path:
        raise InvalidSchema(why=f"'{path}': a decimal must be a field of its own; nested ones are rounded silently.")
    precision, scale = doc.get("precision"), doc.get("scale", 0)
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in (precision, scale))
    if not whole or not 0 <= scale <= precision or not 1 <= precision <= MAX_PRECISION:  # type: ignore[operator]
        raise InvalidSchema(why=f"'{path}': a decimal needs a precision of 1 to {MAX_PRECISION} and a scale within it.")
    if doc["type"] == "fixed" and 10**precision > 2 ** (8 * int(doc.get("size", 0)) - 1):  # type: ignore[operator]
        raise InvalidSchema(why=f"'{path}': {precision} digits do not fit in {doc.get('size')} bytes.")
