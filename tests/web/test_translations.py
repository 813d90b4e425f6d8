"""Whatever the portal says in English it says in Chinese too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from babel.messages.extract import extract_from_dir

import bus.web
from bus.web import languages

ROOM = Path(bus.web.__file__).parent
METHODS = [("templates/**.html", "jinja2"), ("**.py", "python")]


def _texts() -> Iterator[str]:
    for _, _, message, _, _ in extract_from_dir(str(ROOM), METHODS):
        yield message if isinstance(message, str) else message[0]  # of a plural the singular is the key


def test_every_text_has_a_chinese_one() -> None:
    """Of the templates and of what is marked in the code; names are names in both."""
    chinese = languages.translations("zh")
    assert sorted({text for text in _texts() if text and chinese.gettext(text) == text}) == ["Kafka"]
