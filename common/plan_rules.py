"""Every mistake of a study plan at once, in words; and what its sections must agree on.

A wrong key hides whatever depends on it. So what was found wrong is taken out, a sound section stands in
for one that cannot do without it, and the rest is read again until nothing new is found. Stand-ins
break no rule, so that no mistake is reported that is only the echo of another.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from common.errors import Problem
from common.methods import clashes

if TYPE_CHECKING:
    from common.plan import Plan

Raw = dict[str, Any]
_Place = tuple[str | int, ...]

_STAND_INS: Final[Raw] = {
    "study": {"name": "stand-in", "question": "?"},
    "task": {"kind": "binary", "classes": ["finding"]},
    "input": {"modalities": ["DX"], "shape": [64, 64]},
    "labels": {"source": "csv", "provenance": "?"},
    "model": {"name": "scatter", "trainable": "head"},
}
"""The required sections, each sound by itself and beside any other."""
_CHOICE: Final = "literal_error"
_MISSING: Final = "missing"
_SHORT: Final = "too_short"
_UNKNOWN: Final = ("extra_forbidden", "unexpected_keyword_argument")

_CONTRAST: Final = "its loss compares patients with each other"
_UNEVEN: Final = "it draws some patients more often than others, which the accountant does not know of"
_BLEND: Final = "it makes one input of several patients"
MIXES: Final = {
    "mixup": _BLEND,
    "cutmix": _BLEND,
    "smote": _BLEND,
    "mosaic": _BLEND,
    "sampler": _UNEVEN,
    "oversampl": _UNEVEN,
    "balancedbatch": _UNEVEN,
    "simclr": _CONTRAST,
    "supcon": _CONTRAST,
    "contrastive": _CONTRAST,
    "triplet": _CONTRAST,
    "ntxent": _CONTRAST,
    "infonce": _CONTRAST,
    "moco": _CONTRAST,
}
"""Known ways to train that have no per-patient gradient, by what their names hold, and why not. There is no
key for any of them; who asks is told more than that."""


def mistakes(raw: Raw, read: Callable[[Raw], Plan]) -> list[Problem]:
    """Every mistake of a plan's plain values; empty when there is none.

    Args:
        raw: the values, section by section.
        read: validates them, raising pydantic's `ValidationError`.
    """
    found: dict[str, Problem] = {}
    taken: dict[_Place, str] = {}
    while True:
        try:
            plan = read(raw)
        except ValidationError as error:
            errors = [dict(e) for e in error.errors()]
            for problem in (_problem(e, raw) for e in errors if not _echo(e, errors, taken)):
                found.setdefault(problem.where, problem)
            reduced = _without(raw, errors, taken)
            if reduced == raw:
                return list(found.values())
            raw = reduced
        else:
            return [*found.values(), *across_sections(plan)]


def across_sections(plan: Plan) -> Iterator[Problem]:
    """What sections that are sound by themselves must agree on."""
    yield from _task(plan)
    yield from clashes(plan)
    if len(plan.input.shape) == 3:
        yield Problem("input.shape", "volumes are stored but not trained on yet", "Give [rows, columns]")
    if len(set(plan.evaluation.groups)) < len(plan.evaluation.groups):
        yield Problem("evaluation.groups", "a group is named twice", "Name each once")
    if plan.private and plan.model.trainable == "all" and plan.model.name == "vit":
        yield Problem("model.trainable", "a whole ViT learns nothing under patient-level noise", "Use 'head'")


def _task(plan: Plan) -> Iterator[Problem]:
    classes = plan.task.classes
    if plan.task.kind == "segmentation":
        yield Problem(
            "task.kind",
            "segmentation is reserved and not trained yet",
            "Use binary, multiclass or multilabel",
        )
    if plan.task.kind == "multiclass" and len(classes) < 2:
        yield Problem("task.classes", "multiclass needs two classes or more", "Name them all")
    if plan.task.kind == "binary" and len(classes) != 1:
        yield Problem("task.classes", "binary names exactly one finding", "Keep the one looked for")
    elif len(set(classes)) < len(classes):
        yield Problem("task.classes", "a class is named twice", "Name each once")


def _echo(error: Raw, errors: list[Raw], taken: dict[_Place, str]) -> bool:
    """Whether this mistake is only there because of another one, found with it or taken out before."""
    place = tuple(error["loc"])
    if error["type"] == _MISSING:
        return place in taken
    if error["type"] == _SHORT:
        return any(len(e["loc"]) > len(place) and tuple(e["loc"])[: len(place)] == place for e in errors)
    # A rule between the keys of a section says nothing while the choice it hangs on is unknown.
    return len(place) == 1 and any(p[:1] == place and kind == _CHOICE for p, kind in taken.items())


def _without(raw: Raw, errors: list[Raw], taken: dict[_Place, str]) -> Raw:
    """The values without what was found wrong."""
    reduced = copy.deepcopy(raw)
    for error in errors:
        place = _known_part(tuple(error["loc"]), raw)
        taken[place] = str(error["type"])
        if len(place) > 1 and error["type"] != _MISSING:
            _remove(reduced, place)
        elif place and place[0] in _STAND_INS:
            reduced[str(place[0])] = copy.deepcopy(_STAND_INS[str(place[0])])
        elif place:
            reduced.pop(str(place[0]), None)
    return reduced


def _remove(raw: Raw, place: _Place) -> None:
    """Take out the value at this place, or the whole list it stands in."""
    inner: Any = raw
    for part in place[:-1]:
        if not isinstance(inner, dict) or not isinstance(inner.get(part), dict):
            break
        inner = inner[part]
    else:
        part = place[-1]
    if isinstance(inner, dict):
        inner.pop(part, None)


def _known_part(place: _Place, raw: Raw) -> _Place:
    """The place without the names a validator adds behind a value, such as the types it tried."""
    inner: Any = raw
    for depth, part in enumerate(place):
        if not isinstance(inner, (dict, list, tuple)):
            return place[:depth]
        held = inner if isinstance(inner, dict) else dict(enumerate(inner))
        if part not in held:
            return place
        inner = held[part]
    return place


def _problem(error: Raw, raw: Raw) -> Problem:
    where = ".".join(str(part) for part in _known_part(tuple(error["loc"]), raw)) or "plan"
    kind = str(error["type"])
    mixing = _mixing(error, where, kind)
    if mixing:
        return mixing
    if kind in _UNKNOWN:
        return Problem(where, "no such key", "Remove it or correct its spelling; docs/plan.md lists them")
    if kind == _MISSING:
        return Problem(where, "this key is required", "Add it; docs/plan.md shows an example")
    rule = str(error["msg"]).removeprefix("Value error, ")
    return Problem(where, rule[:1].lower() + rule[1:], f"Got {_shown(error.get('input'))}; change it")


def _mixing(error: Raw, where: str, kind: str) -> Problem | None:
    """The refusal by name of a way to train that mixes patients: an unknown key, or an unknown choice."""
    asked = where.rpartition(".")[2] if kind in _UNKNOWN else error.get("input") if kind == _CHOICE else None
    plain = asked.lower().replace("_", "").replace("-", "") if isinstance(asked, str) else ""
    why = next((reason for name, reason in MIXES.items() if name in plain), None)
    if why is None:
        return None
    rule = f"dp-mixes-patients: {why}, so no clip bounds what one patient contributes"
    return Problem(
        where, rule, "Leave it out; training.positive_weight and training.augmentation keep patients apart"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
