"""Whether one record keeps its contract, and which fields do not, with what was expected and what came."""

from __future__ import annotations

import datetime as dt
import decimal
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import fastavro

from bus.contracts.physical import decimal_of
from bus.contracts.rules import FieldRules, rules_of
from bus.core.contracts import Contract, FieldContract, Kind, kind_of
from bus.core.names import nearest

_SHOWN: Final = 100
_PLAIN: Final = (Kind.TEXT, Kind.INTEGER, Kind.NUMBER, Kind.BOOLEAN, Kind.NESTED)


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that breaks the contract. ``received`` does not show the value of a personal field."""

    field: str
    expected: str
    received: str

    def as_reason(self) -> dict[str, Any]:
        """As the quarantine and problem documents carry it."""
        return asdict(self)


class Validator:
    """The checks of one contract, made ready once. Safe to use from several threads."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.rules: tuple[FieldRules, ...] = tuple(
            rules_of(field, is_key=field.name in contract.key) for field in contract.fields
        )
        self._rules = {rules.field.name: rules for rules in self.rules}
        self.names = tuple(field.name for field in contract.fields)
        self.defaults = {doc["name"]: doc["default"] for doc in contract.schema["fields"] if _plain_default(doc)}
        self._known = frozenset(self.names)
        self._nested = any(field.kind is Kind.NESTED for field in contract.fields)
        self._parsed: Any = fastavro.parse_schema(dict(contract.schema)) if self._nested else None

    def violations(self, record: Any) -> list[Violation]:
        """Every field that breaks the contract, in the contract's order, unknown fields last; empty if none does."""
        if not isinstance(record, Mapping):
            return [Violation("(record)", "an object with the contract's fields", _said(record))]
        found = [violation for rules in self.rules if (violation := self._check(rules, record)) is not None]
        found += [
            Violation(str(name)[:_SHOWN], f"no such field. {nearest(str(name), self.names)}", "an unknown field")
            for name in record
            if name not in self._known
        ]
        return found or (self._check_nested(record) if self._nested else [])

    def normal(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record without violations in the one form that its encoded event also has: defaults filled in,
        decimals at the contract's scale, instants in UTC, so that key and value always agree."""
        whole = {name: record[name] if name in record else self.defaults[name] for name in self.names}
        for field in self.contract.fields:
            value = whole[field.name]
            if value is not None:
                whole[field.name] = _normal(field, value)
        return whole

    def key_violations(self, key: Any) -> list[Violation]:
        """As `violations`, for the key fields alone (a delete has no others)."""
        if not isinstance(key, Mapping):
            return [Violation("(key)", "an object with the key's fields", _said(key))]
        names = self.contract.key
        found = [violation for name in names if (violation := self._check(self.rule(name), key)) is not None]
        return found + [
            Violation(str(name)[:_SHOWN], f"only the key: {', '.join(names)}", "another field")
            for name in key
            if name not in names
        ]

    def normal_key(self, key: Mapping[str, Any]) -> list[Any]:
        """The values of a key without violations, in the contract's order and in their one form."""
        return [_normal(self.rule(name).field, key[name]) for name in self.contract.key]

    def rule(self, name: str) -> FieldRules:
        """The rules of one field. Raises KeyError."""
        return self._rules[name]

    def _check(self, rules: FieldRules, record: Mapping[str, Any]) -> Violation | None:
        field = rules.field
        if field.name not in record:
            if field.name in self.defaults:
                return None
            return Violation(field.name, f"a value ({field.kind})", "nothing: the field is missing")
        value = record[field.name]
        if value is None:
            return None if field.nullable else Violation(field.name, f"a value ({field.kind})", "null")
        expected = rules.broken(value)
        if expected is None:
            return None
        return Violation(field.name, expected, redacted(value) if field.personal else _said(value))

    def _check_nested(self, record: Mapping[str, Any]) -> list[Violation]:
        try:
            whole = self.normal(record)
            fastavro.validate(whole, self._parsed, raise_errors=True, strict=True)
            # It overlooks unknown members of nested records; the writer does not.
            fastavro.schemaless_writer(io.BytesIO(), self._parsed, whole, strict=True)
        except fastavro.validation.ValidationError as error:
            return [Violation(*_nested_fault(error, self.contract))]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return [Violation("(record)", "values of the contract's nested types", f"{type(error).__name__}")]
        return []


def _plain_default(doc: Mapping[str, Any]) -> bool:
    """Whether the default is a value as records hold it (that of a date would be a number of days)."""
    return "default" in doc and (doc["default"] is None or kind_of(_branch(doc["type"])) in _PLAIN)


def _branch(avro: Any) -> Any:
    return next((branch for branch in avro if branch != "null"), avro) if isinstance(avro, list) else avro


def violations(contract: Contract, record: Any) -> list[Violation]:
    """Every field of the record that breaks the contract. For many records keep a `Validator`."""
    return Validator(contract).violations(record)


def redacted(value: Any) -> str:
    """That there was a value, and of which type, not what it was."""
    return f"a {type(value).__name__} (not shown: personal)"


def _said(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _normal(field: FieldContract, value: Any) -> Any:
    match field.kind:
        case Kind.TIMESTAMP if isinstance(value, dt.datetime):
            return value.astimezone(dt.UTC)
        case Kind.DECIMAL if isinstance(value, decimal.Decimal):
            return _at_scale(value, decimal_of(field.avro)[1])
        case Kind.NUMBER:
            return float(value)
    return value


def _at_scale(value: decimal.Decimal, scale: int) -> decimal.Decimal:
    quiet = decimal.Context(prec=100, traps=[])
    result = value.quantize(decimal.Decimal(1).scaleb(-scale), context=quiet)
    return result.copy_abs() if result == 0 else result


def _nested_fault(error: Any, contract: Contract) -> tuple[str, str, str]:
    """The first fault that the Avro library found, without the value: nested fields may hold anything."""
    path = str(error.errors[0].field) if getattr(error, "errors", None) else ""
    name = path.rpartition(f"{contract.schema.get('name')}.")[2] or "(record)"
    expected = str(error.errors[0].schema)[:_SHOWN] if getattr(error, "errors", None) else "the contract's type"
    return name, expected, "a value of another type"
