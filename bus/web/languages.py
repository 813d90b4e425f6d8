"""The portal's two languages: choosing one, and the texts, titles and numbers of each.

English texts are the keys of the catalogue, so English needs none; Chinese is `locales/zh`. The ``.po``
file is compiled in memory when the app starts: there is no second file that could be stale.
"""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Mapping
from functools import cache
from gettext import GNUTranslations, NullTranslations
from pathlib import Path
from typing import Final

from babel import Locale
from babel.core import negotiate_locale
from babel.dates import format_datetime, format_timedelta
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal

LANGUAGES: Final = ("zh", "en")
DEFAULT: Final = "en"
_LOCALES: Final = {"zh": Locale("zh", "CN", script="Hans"), "en": Locale("en", "GB")}
_HERE: Final = Path(__file__).parent


def choose(asked: str | None, accept_language: str | None) -> str:
    """The language: the one asked for if there is such a page, else the browser's first that is offered."""
    if asked in LANGUAGES:
        return str(asked)
    ranges = []
    for place, part in enumerate((accept_language or "").split(",")[:20]):
        tag, _, quality = part.strip().partition(";q=")
        ranges.append((-_number(quality), place, tag.partition("-")[0].lower()))
    preferred = [tag for quality, _, tag in sorted(ranges) if quality < 0]
    return negotiate_locale(preferred, LANGUAGES) or DEFAULT


def _number(quality: str) -> float:
    try:
        return float(quality or "1")
    except ValueError:
        return 0.0


@cache
def translations(language: str) -> NullTranslations:
    """The texts of a language."""
    if language == DEFAULT:
        return NullTranslations()
    with (_HERE / "locales" / language / "LC_MESSAGES" / "bus.po").open("rb") as file:
        catalogue = read_po(file, locale=language)
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return GNUTranslations(compiled)


def titled(titles: Mapping[str, str], language: str, otherwise: str) -> str:
    """A title in the language, else in the other one, else the id."""
    return titles.get(language) or next((text for text in titles.values() if text), otherwise)


def number(value: float | None, language: str, digits: int = 0) -> str:
    """A number as the language writes it: ``12,367``."""
    if value is None:
        return "–"
    pattern = "#,##0" + ("." + "0" * digits if digits else "")
    return format_decimal(value, format=pattern, locale=_LOCALES[language])


def moment(milliseconds: int | None, language: str) -> str:
    """An instant (milliseconds since 1970) as the language writes it, in UTC."""
    if milliseconds is None:
        return "–"
    instant = dt.datetime.fromtimestamp(milliseconds / 1_000, dt.UTC)
    return f"{format_datetime(instant, 'medium', locale=_LOCALES[language])} UTC"


def ago(seconds: float | None, language: str) -> str:
    """How long ago in words, rounded: ``3 days ago``."""
    if seconds is None:
        return "–"
    return str(format_timedelta(-max(round(seconds), 1), add_direction=True, locale=_LOCALES[language]))
