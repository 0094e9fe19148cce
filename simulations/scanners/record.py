"""Settings of any chain as plain JSON and back: the same record gives the same bits."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from common.errors import DataError

Settings = TypeVar("Settings")
VERSION: Final = 1
"""Changes when the same settings would give other bits."""
_READERS: Final[dict[str, TypeAdapter[Any]]] = {}


def to_record(settings: Any) -> str:
    """One line of JSON; floats keep every bit."""
    return json.dumps(
        {"version": VERSION, "kind": type(settings).__name__, "settings": asdict(settings)}, sort_keys=True
    )


def from_record(kind: type[Settings], record: str) -> Settings:
    """The settings that were recorded.

    Raises:
        DataError: when the record is of another kind or version, or not whole.
    """
    try:
        read = json.loads(record)
        named = (read["kind"], read["version"])
        settings = read["settings"]
    except (ValueError, KeyError, TypeError):
        raise _unreadable() from None
    if named != (kind.__name__, VERSION):
        raise DataError(
            "recorded settings",
            f"are {named[0]}, version {named[1]}",
            f"Use a record of {kind.__name__}, version {VERSION}",
        )
    try:
        made: Settings = _reader(kind).validate_python(settings)
    except ValidationError:
        raise _unreadable() from None
    return made


def _reader(kind: type[Settings]) -> TypeAdapter[Any]:
    """Made once for each kind: making one takes longer than reading with it."""
    if kind.__name__ not in _READERS:
        _READERS[kind.__name__] = TypeAdapter(kind)
    return _READERS[kind.__name__]


def _unreadable() -> DataError:
    return DataError("recorded settings", "cannot be read", "Use a line that to_record wrote, unchanged")
