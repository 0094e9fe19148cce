"""What is wrong in a scenario or a study of a table, in words for who wrote the file: where, which value, and which keys there are.

pydantic says what it expected; a person wants to be told the name of the hospital, the value that stands there, and how the
key that was meant is spelt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from common.errors import ConsiliumError, Problem

_Place = tuple[str | int, ...]
_UNKNOWN: Final = ("unexpected_keyword_argument", "extra_forbidden")
_MISSING: Final = ("missing", "missing_argument")
_TESTS_ONLY: Final = "split = test"
"""What a hospital's own code advises where all its labels are of one class."""
_NO_LIST: Final = ("tuple_type", "list_type")


def problems_of(error: ValidationError, raw: dict[str, Any], kind: Any) -> list[Problem]:
    """Every mistake in our words, one for each place.

    Args:
        error: what pydantic found.
        raw: the values of the file.
        kind: what they were read as, which knows the keys.
    """
    found: dict[_Place, dict[str, Any]] = {}
    for each in error.errors(include_url=False):
        one: dict[str, Any] = dict(each)
        place = _place(tuple(one["loc"]), raw, whole=one["type"] in (*_UNKNOWN, *_MISSING))
        # A value that may be a number or a range is wrong as either; what it was meant to be is told.
        if place not in found or found[place]["type"] in _NO_LIST:
            found[place] = one
    # What lies within a value is told, and not that the value is none of its other forms.
    found = {
        one: of for one, of in found.items() if not any(other[: len(one)] == one != other for other in found)
    }
    schema = TypeAdapter(kind).json_schema()
    return [_problem(place, one, raw, schema) for place, one in found.items()]


@contextmanager
def at_hospital(name: str) -> Iterator[None]:
    """Errors of a hospital's own code, with its name and with what a scenario can do about them."""
    try:
        yield
    except ConsiliumError as error:
        if name not in re.split(r"[\s.,:]+", error.subject):
            error.subject = f"{name}, {error.subject}"
        if _TESTS_ONLY in error.remedy:
            error.remedy = "Real images: name it in scenario.external, so that it only tests. Virtual: choose a prevalence that leaves both"
        raise


def _problem(place: _Place, error: dict[str, Any], raw: dict[str, Any], schema: dict[str, Any]) -> Problem:
    where = _where(place, raw)
    if error["type"] in _UNKNOWN:
        keys = _keys(schema, place[:-1])
        near = get_close_matches(str(place[-1]), keys, n=1)
        hint = f"Perhaps {near[0]} was meant" if near else f"There are {', '.join(keys)}"
        return Problem(where, "there is no such key", hint if keys else "Leave it out")
    if error["type"] in _MISSING:
        return Problem(where, "is missing", "Add it")
    given = error["input"]
    shown = f", not {given!r}" if isinstance(given, (str, int, float)) else ""
    said = str(error["msg"]).replace("Input should be", "must be").replace("Value error, ", "")
    return Problem(where, said + shown, "Correct it")


def _place(loc: _Place, raw: Any, *, whole: bool) -> _Place:
    """The keys of a place; pydantic names between them which form of a value it tried."""
    found: list[str | int] = []
    at: Any = raw
    for number, part in enumerate(loc):
        if isinstance(at, dict) and part in at:
            at = at[str(part)]
        elif isinstance(at, (list, tuple)) and isinstance(part, int) and part < len(at):
            at = at[part]
        elif not (whole and number == len(loc) - 1):
            continue
        found.append(part)
    return tuple(found) or loc


def _where(place: _Place, raw: dict[str, Any]) -> str:
    """The place in a line; a hospital by its name where it has one."""
    words = [str(part) for part in place]
    if len(place) > 1 and place[0] == "site" and isinstance(place[1], int):
        sites = raw["site"]
        name = sites[place[1]].get("name") if isinstance(sites[place[1]], dict) else None
        words[1] = str(name) if isinstance(name, str) else str(place[1] + 1)
    return ".".join(words)


def _keys(schema: dict[str, Any], place: _Place) -> list[str]:
    """The keys that may stand at a place."""
    forms = [schema]
    for part in place:
        forms = [inner for form in forms for inner in _inside(_forms(form, schema), part)]
    return sorted(
        {key for form in forms for one in _forms(form, schema) for key in one.get("properties", {})}
    )


def _forms(form: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """What a value may be: a reference followed, alternatives apart."""
    if "$ref" in form:
        return _forms(schema["$defs"][str(form["$ref"]).rsplit("/", 1)[-1]], schema)
    if "anyOf" in form or "allOf" in form:
        return [one for each in form.get("anyOf", form.get("allOf", [])) for one in _forms(each, schema)]
    return [form]


def _inside(forms: Iterable[dict[str, Any]], part: str | int) -> list[dict[str, Any]]:
    """What stands under a key or number of each form."""
    found = []
    for form in forms:
        inner = form.get("items") if isinstance(part, int) else form.get("properties", {}).get(part)
        inner = inner if inner is not None else form.get("additionalProperties")
        found += [inner] if isinstance(inner, dict) else []
    return found
