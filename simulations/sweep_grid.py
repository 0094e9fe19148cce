"""The grid of a sweep as it is typed: `--set KEY=A,B,C`, again and again; every combination is a point."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from typing import Any, Final

from common.errors import InputError

_MOST: Final = 10_000


def grid_of(words: Sequence[str]) -> dict[str, list[Any]]:
    """The grid that was typed: `key=a,b,c` each, values as in TOML, else as text.

    Raises:
        InputError: a word that is none, a key twice, or more than 10,000 points.
    """
    found: dict[str, list[Any]] = {}
    for word in words:
        key, equals, values = word.partition("=")
        parts = [value for value in _split(values) if value]
        if not equals or "." not in key or not parts or key in found:
            raise InputError(
                f"--set {word}",
                "it is not a key of its own with values",
                "Write --set plan.training.learning_rate=0.01,0.1",
            )
        found[key] = [_value(part) for part in parts]
    if math.prod(len(values) for values in found.values()) > _MOST:
        raise InputError("--set", f"more than {_MOST} settings", "Leave some values out")
    return found


def _split(values: str) -> list[str]:
    """At commas that stand in no bracket, brace or quotes."""
    parts, depth, quoted = [""], 0, ""
    for letter in values:
        if quoted or letter in "\"'":
            quoted = "" if letter == quoted else quoted or letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        if letter == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
