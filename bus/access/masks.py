"""Masks as SQL: what a mask hides never leaves the database. `bus.core.masks.apply_mask` is the reference."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Engine

from bus.core.contracts import Kind
from bus.core.masks import EXACT, HASH_DIGITS, MASKED, Mask, check_mask, keyed_hash
from bus.views.values import Exact, sql_type

Expression = sa.ColumnElement[Any]
_DAY: Final = 86_400_000_000
_BLOCK: Final = 64
_TEXT: Final = sql_type(Kind.TEXT)


def register_functions(engine: Engine) -> None:
    """Gives new SQLite connections the function of the mask `hash`; PostgreSQL needs none.

    Call it once, before the engine's first connection.
    """
    if engine.dialect.name != "sqlite":
        return

    def connect(connection: sqlite3.Connection, _record: Any) -> None:
        connection.create_function("bus_keyed_hash", 2, keyed_hash, deterministic=True)

    event.listen(engine, "connect", connect)


def shown(column: Expression, mask: Mask | None, kind: Kind, *, dialect: str, key: bytes = b"") -> Expression:
    """The column as it may be shown, null where it is null, labelled with its name.

    ``dialect``: sqlite or postgresql; ``key``: the consumer's, see `bus.core.masks.consumer_key`. Its values have
    the kind `bus.core.masks.shown_kind`. Raises `BadFilter` where the mask does not fit the kind.
    """
    name = getattr(column, "name", None)
    if mask is None:
        return column
    check_mask(mask, str(name), kind)
    if mask.kind == "hash":
        expression = _hash(column, kind, dialect, key)
    elif mask.kind in ("year", "month"):
        expression = _time(column, mask.kind, kind, dialect)
    elif mask.kind == "round":
        expression = _ROUND[kind](column, mask.argument, dialect)
    else:
        expression = _TEXTS[mask.kind](column, mask.argument)
    return sa.case((column.is_(None), sa.null()), else_=expression).label(str(name))


def _constant(_: Expression, value: Any) -> Expression:
    return sa.literal(value, _TEXT) if isinstance(value, str) else sa.literal(value)


def _substring(column: Expression, *bounds: Any) -> Expression:
    return sa.func.substr(column, *bounds, type_=_TEXT)


def _text(value: str) -> Expression:
    return sa.literal(value, _TEXT)


def _keep_first(column: Expression, count: int) -> Expression:
    longer = sa.func.length(column) > count
    return sa.case((longer, _substring(column, 1, count).concat(_text(MASKED))), else_=_text(MASKED))


def _keep_last(column: Expression, count: int) -> Expression:
    length = sa.func.length(column)
    end = _substring(column, length - count + 1, count)
    return sa.case((length > count, _text(MASKED).concat(end)), else_=_text(MASKED))


_TEXTS: Final[Mapping[str, Callable[[Expression, Any], Expression]]] = {
    "constant": _constant,
    "keep_first": _keep_first,
    "keep_last": _keep_last,
    "prefix": lambda column, count: _substring(column, 1, count),
}


def _hash(column: Expression, kind: Kind, dialect: str, key: bytes) -> Expression:
    text = column if kind is Kind.TEXT else sa.cast(column, sa.Text)
    if dialect == "sqlite":
        return sa.func.bus_keyed_hash(key, text, type_=_TEXT)
    # HMAC by its definition (RFC 2104), since PostgreSQL itself has SHA-256 only
    block = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    inner, outer = (sa.literal(bytes(byte ^ pad for byte in block), sa.LargeBinary) for pad in (0x36, 0x5C))
    message = sa.func.convert_to(text, "UTF8", type_=sa.LargeBinary)
    digest = sa.func.sha256(inner.concat(message), type_=sa.LargeBinary)
    digest = sa.func.sha256(outer.concat(digest), type_=sa.LargeBinary)
    return sa.func.left(sa.func.encode(digest, "hex"), HASH_DIGITS, type_=_TEXT)


def _time(column: Expression, mask: str, kind: Kind, dialect: str) -> Expression:
    if dialect == "postgresql":
        day = column if kind is Kind.DATE else sa.func.timezone("UTC", column)
        return sa.func.to_char(day, "YYYY" if mask == "year" else "YYYY-MM", type_=_TEXT)
    if kind is Kind.DATE:
        return _substring(sa.type_coerce(column, sa.Text), 1, 4 if mask == "year" else 7)
    stored = sa.type_coerce(column, sa.BigInteger)
    midnight = stored - _modulo(stored, _DAY)  # division alone would round 1969 toward 1970
    seconds = midnight // 1_000_000
    return sa.func.strftime("%Y" if mask == "year" else "%Y-%m", seconds, "unixepoch", type_=_TEXT)


def _modulo(value: Expression, step: int) -> Expression:
    """The remainder that is never negative, on databases whose ``%`` keeps the sign."""
    whole = sa.literal(step, sa.BigInteger)
    return (value % whole + whole) % whole


def _round_integer(column: Expression, digits: int, _dialect: str) -> Expression:
    if digits >= 0:
        return column
    step = 10**-digits
    rest = _modulo(column, step)
    return column - rest + sa.case((rest * 2 >= step, sa.literal(step, sa.BigInteger)), else_=0)


def _round_number(column: Expression, digits: int, dialect: str) -> Expression:
    scale = sa.literal(10.0 ** abs(digits), sa.Double)
    half = (column / scale if digits < 0 else column * scale) + sa.literal(0.5, sa.Double)
    whole = sa.func.floor(half, type_=sa.Double) if dialect == "postgresql" else _floor(half)
    rounded = whole * scale if digits < 0 else whole / scale
    limit = EXACT / 10.0**digits if digits > 0 else EXACT
    return sa.case((sa.func.abs(column) >= sa.literal(limit, sa.Double), column), else_=rounded)


def _floor(value: Expression) -> Expression:
    """SQLite is built without `floor` in places: cut, then one less where cutting went up."""
    cut = sa.cast(value, sa.BigInteger)
    below = sa.case((sa.cast(cut, sa.Double) > value, 1), else_=0)
    return sa.type_coerce(sa.cast(cut - below, sa.Double), sa.Double)


def _round_decimal(column: Expression, digits: int, dialect: str) -> Expression:
    scale = column.type.scale if isinstance(column.type, Exact) else 0
    if digits >= scale:
        return column
    if dialect == "sqlite":
        stored = sa.type_coerce(column, sa.BigInteger)
        return sa.type_coerce(_round_integer(stored, digits - scale, dialect), column.type)
    step = sa.literal(Decimal(1).scaleb(-digits), sa.Numeric)
    half = sa.type_coerce(column, sa.Numeric) / step + sa.literal(Decimal("0.5"), sa.Numeric)
    steps = sa.func.floor(half, type_=sa.Numeric)
    return sa.type_coerce(steps * step, column.type)


_ROUND: Final[Mapping[Kind, Callable[[Expression, int, str], Expression]]] = {
    Kind.INTEGER: _round_integer,
    Kind.NUMBER: _round_number,
    Kind.DECIMAL: _round_decimal,
}
