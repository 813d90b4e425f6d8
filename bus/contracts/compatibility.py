"""Whether a new version of a schema may follow an old one.

Avro's own checker decides (the Java rules), and after it the bus: the checker calls a changed scale or time
unit compatible, though every value would be read wrong (E20), and knows nothing of keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from bus.core.contracts import Json

LEVELS: Final = (
    "NONE",
    "BACKWARD",
    "BACKWARD_TRANSITIVE",
    "FORWARD",
    "FORWARD_TRANSITIVE",
    "FULL",
    "FULL_TRANSITIVE",
)
_MEANING: Final = ("logicalType", "precision", "scale")
_IDENTITY: Final = ("bus.key", "bus.version")


def check_compatible(old: Json, new: Json, level: str = "BACKWARD") -> list[str]:
    """Why `new` may not follow `old`; empty where it may. BACKWARD: a reader of `new` reads `old` events."""
    kind = level.removesuffix("_TRANSITIVE")
    problems: list[str] = []
    if kind in ("BACKWARD", "FULL"):
        problems += _avro_problems(reader=new, writer=old)
    if kind in ("FORWARD", "FULL"):
        problems += _avro_problems(reader=old, writer=new)
    if kind != "NONE":
        problems += changed_meaning(old, new)
    return list(dict.fromkeys(problems))


def changed_meaning(old: Json, new: Json) -> list[str]:
    """What Avro would accept and still read wrong: units, scales, dropped enum symbols, another key."""
    return [*_identity(old, new), *_types(old, new, "")]


def _avro_problems(*, reader: Json, writer: Json) -> list[str]:
    checker = ReaderWriterCompatibilityChecker()
    result = checker.get_compatibility(
        reader=avro.schema.make_avsc_object(reader), writer=avro.schema.make_avsc_object(writer)
    )
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    places = {name for place in result.locations for name in _fields_at(reader, writer, place)}
    named = ", ".join(f"'{name}'" for name in sorted(places))
    return [f"field {named}: {'; '.join(sorted(result.messages))}"]


def _fields_at(reader: Json, writer: Json, location: str) -> list[str]:
    """The field on a JSON path such as ``/fields/2/type``. Of unions the checker forgets the path: then all
    fields whose type changed."""
    found: list[str] = []
    schema: Any = reader
    for step in location.strip("/").split("/"):
        try:
            schema = schema[int(step)] if isinstance(schema, list) else schema[step]
        except (KeyError, IndexError, ValueError, TypeError):
            break
        if isinstance(schema, Mapping) and "name" in schema and step.isdigit():
            found.append(str(schema["name"]))
    if found:
        return [".".join(found)]
    before = {field["name"]: field["type"] for field in writer["fields"]}
    changed = [str(field["name"]) for field in reader["fields"] if before.get(field["name"]) != field["type"]]
    return changed or ["(record)"]


def _identity(old: Json, new: Json) -> Iterator[str]:
    for attribute in _IDENTITY:
        if _as_list(old.get(attribute)) != _as_list(new.get(attribute)):
            yield f"{attribute} was {old.get(attribute)} and may not become {new.get(attribute)}"


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _types(old: Any, new: Any, path: str) -> Iterator[str]:
    old, new = _core(old), _core(new)
    if isinstance(old, list) and isinstance(new, list):
        before = {_base(branch): branch for branch in old}
        for branch in new:
            if _base(branch) in before:
                yield from _types(before[_base(branch)], branch, path)
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _mapped(old, new, path)
    elif _attributes(old) != _attributes(new):
        yield from _different(old, new, path)


def _mapped(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[str]:
    if _attributes(old) != _attributes(new):
        yield from _different(old, new, path)
    if old.get("type") == new.get("type") == "enum":
        gone = [symbol for symbol in old.get("symbols", ()) if symbol not in new.get("symbols", ())]
        if gone:
            yield f"field '{path}': symbols {', '.join(gone)} are gone"
    if old.get("type") == new.get("type") == "record":
        fields = {field["name"]: field for field in old.get("fields", ())}
        for field in new.get("fields", ()):
            yield from _renamed(field, fields, path)
            before = fields.get(field["name"])
            if before is not None:
                place = f"{path}.{field['name']}" if path else str(field["name"])
                yield from _types(before["type"], field["type"], place)
    for inner in ("items", "values"):
        if inner in old and inner in new:
            yield from _types(old[inner], new[inner], f"{path}[]")


def _renamed(field: Mapping[str, Any], before: Mapping[str, Any], path: str) -> Iterator[str]:
    """Avro would read the old events through an alias; whoever reads by name would find nothing in them."""
    for alias in field.get("aliases", ()):
        if alias in before and field["name"] not in before:
            place = f"{path}.{alias}" if path else alias
            yield f"field '{place}': may not become '{field['name']}' by an alias. Keep it and add the other"


def _different(old: Any, new: Any, path: str) -> Iterator[str]:
    yield f"field '{path}': {_said(old)} may not become {_said(new)}"


def _core(avro_type: Any) -> Any:
    """A type without its null branch and without a wrapping ``{"type": …}``; unions of several stay."""
    if isinstance(avro_type, list):
        others = [branch for branch in avro_type if branch != "null"]
        return _core(others[0]) if len(others) == 1 else avro_type
    if isinstance(avro_type, Mapping) and isinstance(avro_type.get("type"), Mapping | list):
        return _core(avro_type["type"])
    return avro_type


def _base(branch: Any) -> str:
    """What tells the branches of a union apart: the name of a named type, else the type."""
    return str(branch.get("name", branch.get("type"))) if isinstance(branch, Mapping) else str(branch)


def _attributes(avro_type: Any) -> tuple[Any, ...]:
    if not isinstance(avro_type, Mapping) or "logicalType" not in avro_type:
        return (None, None, None)
    logical, precision, scale = (avro_type.get(name) for name in _MEANING)
    return (logical, precision, scale or 0) if logical == "decimal" else (logical, None, None)


def _said(avro_type: Any) -> str:
    logical, precision, scale = _attributes(avro_type)
    if logical is None:
        return str(avro_type.get("type") if isinstance(avro_type, Mapping) else avro_type)
    return f"decimal({precision},{scale})" if logical == "decimal" else str(logical)
