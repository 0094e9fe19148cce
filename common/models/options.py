"""Options of a network: a frozen dataclass each, read from `model.options` with every mistake reported."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from common.errors import PlanError, Problem

T = TypeVar("T")

Value = int | float | str | bool


def option(
    default: Value,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field of an options class with its default and the values it allows (limits included)."""
    return dataclasses.field(default=default, metadata={"least": least, "most": most, "choices": choices})


def read_options(kind: type[T], given: Mapping[str, Value], network: str) -> T:
    """An options dataclass from plain values.

    Args:
        kind: a frozen dataclass whose fields were made by `option`.
        given: the values of `model.options` in the plan.
        network: the network's name, for the messages.

    Raises:
        PlanError: with one problem per unknown key, wrong type or value out of bounds.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # T is a dataclass type
    problems = [
        Problem(f"model.options.{key}", f"{network} has no such option", f"It knows {_list(fields)}")
        for key in given
        if key not in fields
    ]
    values: dict[str, Value] = {}
    for key in given.keys() & fields.keys():
        value, problem = _checked(fields[key], given[key])
        values[key] = value
        problems.extend(problem)
    if problems:
        raise PlanError("plan", sorted(problems, key=lambda p: p.where))
    return kind(**values)


def as_pairs(options: object) -> tuple[tuple[str, Value], ...]:
    """An options dataclass as sorted (name, value) pairs, defaults included."""
    return tuple(sorted(dataclasses.asdict(options).items()))  # type: ignore[call-overload]  # a dataclass


def _checked(field: dataclasses.Field[Any], value: Value) -> tuple[Value, list[Problem]]:
    where = f"model.options.{field.name}"
    kind = type(field.default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        return value, [
            Problem(where, f"must be of type {kind.__name__}", f"The default is {field.default!r}")
        ]
    choices, least, most = (field.metadata[key] for key in ("choices", "least", "most"))
    if isinstance(value, str):
        wrong = value not in choices
        return value, [Problem(where, "no such choice", f"Use one of {_list(choices)}")] if wrong else []
    if not least <= value <= most:
        return value, [
            Problem(where, f"must lie in [{least:g}, {most:g}]", f"The default is {field.default!r}")
        ]
    return value, []


def _list(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
