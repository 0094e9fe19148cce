"""The fields of a message, each checked against the type that its class declares."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import fields
from typing import Any, get_type_hints


def checked(kind: Any, body: dict[str, Any]) -> dict[str, Any]:
    """The values of a message's fields, its tensors aside.

    Args:
        kind: a message's class.
        body: as JSON gave it.

    Raises:
        ValueError: a field is missing, one too many, of another type, or not finite.
    """
    _check_finite(body)
    adapters = _adapters(kind)
    if set(body) != set(adapters):
        raise ValueError("not the fields of this message")
    return {name: a.validate_json(json.dumps(body[name]), strict=True) for name, a in adapters.items()}


@functools.cache
def _adapters(kind: Any) -> dict[str, Any]:
    from pydantic import TypeAdapter  # noqa: PLC0415 - a courier that only forwards never pays for it

    hints = get_type_hints(kind)
    return {f.name: TypeAdapter(hints[f.name]) for f in fields(kind) if f.name != "arrays"}


def _check_finite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a finite number")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_finite(part)
