"""The files that commands read: YAML declarations and Avro schemas; a mistake is named with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bus.errors import InvalidDeclaration, InvalidSchema


def read_yaml(path: Path) -> Any:
    """A YAML 1.2 document (``NO`` is text). Raises `InvalidDeclaration` with the place of the mistake."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidDeclaration(f"there is no file {path}", problems=[str(path)]) from error
    except (YAMLError, UnicodeDecodeError) as error:
        text = f"{path} is not YAML: {' '.join(str(error).split())}"
        raise InvalidDeclaration(text, problems=[text]) from error


def read_schema(path: Path) -> Any:
    """An ``.avsc`` document. Raises `InvalidSchema` with the place of the mistake."""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InvalidSchema(why=f"there is no file {path}.") from error
    except orjson.JSONDecodeError as error:
        raise InvalidSchema(why=f"{path}, line {error.lineno}: {error.msg}.") from error


def dates_as_text(doc: Any) -> Any:
    """YAML dates as ISO text, since the document travels as JSON."""
    if isinstance(doc, dict):
        return {str(name): dates_as_text(value) for name, value in doc.items()}
    if isinstance(doc, list):
        return [dates_as_text(value) for value in doc]
    return doc.isoformat() if hasattr(doc, "isoformat") else doc
