"""Errors and values as the portal words them. The message of an error is its class's docstring, so that is
the key of its translation."""

from __future__ import annotations

import datetime as dt
import re
import string
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from bus.errors import BusError, ChannelNotGranted, FieldNotFilterable, FieldNotGranted, NotGranted, PurposeNotGranted

Translate = Callable[[str], str]
_APPLY = "Apply to {owner} ({contact}) for a grant on {view}, naming purpose and legal basis."
_REMEDIES: Mapping[type[BusError], str] = {
    NotGranted: _APPLY,
    PurposeNotGranted: "Choose a purpose that was granted, or apply to {owner} ({contact}) for this one.",
    ChannelNotGranted: "Ask in a way that was granted ({granted}), or apply to {owner} ({contact}).",
    FieldNotGranted: "Leave the field '{field}' out, or apply to {owner} ({contact}) for it.",
    FieldNotFilterable: "Do not filter or order by '{field}', or apply to {owner} ({contact}) for the unmasked field.",
}


def worded(error: BusError, translate: Translate, titles: Mapping[str, str]) -> str:
    """The message in the reader's language, departments by their ``titles``; one without a translation of
    its own stays as it was said."""
    template = " ".join((type(error).__doc__ or "").split())
    if error.detail != string.Formatter().vformat(template, (), _Blank(error.members)):
        return error.detail
    return _filled(translate(template), error, titles)


def remedy(error: BusError, translate: Translate, titles: Mapping[str, str]) -> str:
    """What to do about a refusal, in the reader's language; empty where the message says it all."""
    template = _REMEDIES.get(type(error))
    return _filled(translate(template), error, titles) if template else ""


def _filled(template: str, error: BusError, titles: Mapping[str, str]) -> str:
    members = _Blank({name: str(value) for name, value in error.members.items()})
    for name in ("department", "owner"):
        members[name] = titles.get(members.get(name, ""), members[name])
    return template.format_map(members)


class _Blank(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return f"<{key}>"


def value(item: Any) -> str:
    """A value as people read it: ISO dates, decimals with all their digits."""
    if isinstance(item, dt.datetime):
        return item.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, Decimal):
        return format(item, "f")
    return item.hex() if isinstance(item, bytes) else str(item)


_PERIOD = re.compile(r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
_UNITS = (
    ("%d year", "%d years"),
    ("%d month", "%d months"),
    ("%d week", "%d weeks"),
    ("%d day", "%d days"),
    ("%d hour", "%d hours"),
    ("%d minute", "%d minutes"),
    ("%d second", "%d seconds"),
)


def period(text: str, ngettext: Callable[[str, str, int], str]) -> str:
    """An ISO 8601 period in words: ``P5Y`` is 5 years; anything else stays as it is."""
    found = _PERIOD.fullmatch(text)
    if found is None or not any(found.groups()):
        return text
    parts = zip(_UNITS, found.groups(), strict=True)
    return " ".join(ngettext(one, many, int(count)) % int(count) for (one, many), count in parts if count)
