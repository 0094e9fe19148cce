"""A hospital's own stricter profile: what the release keeps, less of it, never more.

    [[attribute]]
    keyword = "PatientAge"
    action = "remove"             # or "empty"; left out: as in the release
    values = ["M", "F"]           # some of the permitted ones
    pattern = '[A-Z]{2}'          # must be met beside the release's own form
    range = [0, 50]               # inside the permitted one
    items = ["LUTData"]           # some of a sequence's
    otherwise = "refuse"          # stricter than before: other < drop < refuse
    reason = "decided by the data-protection officer"

Whatever would loosen a rule is a `SettingsError` that names the attribute, the rule and the remedy. What
`[deid]` switches off comes on top of that, so that a result is never less strict than either.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as settings_class
from pydicom.datadict import tag_for_keyword

from client.deid.profile import OTHERWISE, Profile, Rule, built_in
from client.deid.settings import DeidSettings
from common.errors import SettingsError

_NAME: Final = "deid.tighten"
_EMPTIABLE: Final = frozenset(("CS", "LO", "SH", "PN", "DA", "TM", "AS", "DS", "IS"))
_OPTIONS: Final = {
    "patient-characteristics": "patient_characteristics",
    "device": "device_make",
    "dates": "longitudinal_dates",
}
"""Option of a rule to its switch in `[deid]`."""
_NOT_COVERED: Final = ("tighten", "retired_key")
"""Settings that say nothing about an image: a file's name, and what becomes of an old key."""


@settings_class(frozen=True, config=ConfigDict(extra="forbid"))
class Stricter:
    """One row of the hospital's file."""

    keyword: str
    action: str | None = None
    values: list[str] | None = None
    pattern: str | None = None
    range: tuple[float, float] | None = None
    items: list[str] | None = None
    otherwise: str | None = None
    reason: str = ""


class _Loosens(ValueError):
    """Why a row would loosen a rule, or make none: the rule broken, then the remedy."""


def effective(settings: DeidSettings, tighten_text: str = "", base: Profile | None = None) -> Profile:
    """The profile a site works with: the release's, less what its file and its settings take away.

    Args:
        settings: `[deid]` of site.toml.
        tighten_text: the hospital's own TOML; empty for none.
        base: the release's profile; the built-in one when None.

    Returns:
        a profile whose digest covers release, file and settings; the release's own where a site changes nothing.

    Raises:
        SettingsError: the file is no TOML or would loosen something; a private creator is not offered.
    """
    profile = base or built_in()
    if tighten_text:
        profile = tightened(profile, tighten_text)
    rules = {
        rule.keyword: switched for rule in profile.rules.values() if (switched := _switched(rule, settings))
    }
    private = _chosen(profile, settings.private_creators)
    covered = {k: v for k, v in asdict(settings).items() if k not in _NOT_COVERED}
    digest = profile.digest
    if covered != {k: v for k, v in asdict(DeidSettings()).items() if k not in _NOT_COVERED}:
        digest = _digest(digest, json.dumps(covered, sort_keys=True))
    makers = profile.makers.joined(settings.makers)
    found = replace(profile, rules=rules, private=private, makers=makers, digest=digest)
    return replace(found, searched=settings.burned_in_text == "find", defaces=settings.deface_head_mr)


def tightened(profile: Profile, text: str) -> Profile:
    """A profile made stricter by a hospital's own TOML.

    Raises:
        SettingsError: naming every row that is wrong or would loosen a rule, with rule and remedy.
    """
    rules: dict[str, Rule] = dict(profile.rules)
    rows = _rows(text)
    named = [row.keyword for row in rows]
    problems = [
        f"{word}: it is named twice; join the rows" for word in sorted(set(named)) if named.count(word) > 1
    ]
    for row in rows:
        try:
            rule = _apply(profile, row)
        except _Loosens as wrong:
            problems.append(f"{row.keyword}: {wrong.args[0]}; {wrong.args[1]}")
            continue
        rules.pop(row.keyword, None)
        if rule is not None:
            rules[row.keyword] = rule
    if problems:
        raise SettingsError(
            _NAME,
            ". ".join(problems),
            "A hospital's own profile can take away and never add: correct these rows or leave them out",
        )
    return replace(profile, rules=_without_dangling(rules, profile), digest=_digest(profile.digest, text))


def _rows(text: str) -> list[Stricter]:
    rule = "it is not TOML made of [[attribute]] rows"
    try:
        document = tomllib.loads(text)
        if not set(document) - {"attribute"}:
            return TypeAdapter(list[Stricter]).validate_python(document.get("attribute", []))
    except ValidationError as error:
        place = error.errors()[0]["loc"]
        if len(place) > 1:
            rule = f"row {int(place[0]) + 1}: {place[1]} is missing, unknown or of the wrong kind"
    except (ValueError, RecursionError):
        pass
    raise SettingsError(_NAME, rule, "See docs/users/hospital-it.md for the fields of a row")


def _apply(profile: Profile, row: Stricter) -> Rule | None:
    """The rule of a row, None where the attribute goes.

    Raises:
        _Loosens: see `tightened`.
    """
    rule = profile.rules.get(row.keyword)
    if rule is None:
        if tag_for_keyword(row.keyword) is None:
            raise _Loosens("DICOM knows no such attribute", "correct its keyword")
        if row.action == "remove":
            return None
        raise _Loosens("the release removes it already", "leave the row out, or write action = 'remove'")
    if row.action == "remove":
        if rule.needed:
            raise _Loosens("no image can be written or read without it", "leave the row out")
        return None
    if row.action == "empty":
        return _emptied(rule)
    if row.action not in (None, rule.action):
        raise _Loosens(f"action '{row.action}' is not stricter than '{rule.action}'", "use remove or empty")
    return _narrowed(rule, row)


def _emptied(rule: Rule) -> Rule:
    if rule.action == "empty":
        return rule
    if rule.needed or rule.nested or not set(rule.vr) <= _EMPTIABLE:
        raise _Loosens("it cannot be written without a value", "use action = 'remove' where that is allowed")
    return _empty(rule)


def _empty(rule: Rule) -> Rule:
    return replace(
        rule, action="empty", values=frozenset(), pattern=None, range=None, otherwise="drop", purpose=""
    )


def _narrowed(rule: Rule, row: Stricter) -> Rule:
    steps: tuple[tuple[Any, Callable[[Rule, Any], Rule]], ...] = (
        (row.values, _fewer_values),
        (row.pattern, _narrower_form),
        (row.range, _narrower_range),
        (row.items, _fewer_items),
        (row.otherwise, _stricter_otherwise),
    )
    for asked, step in steps:
        rule = rule if asked is None else step(rule, asked)
    return rule


def _fewer_values(rule: Rule, values: list[str]) -> Rule:
    form = rule.pattern
    added = [v for v in values if v not in rule.values and not (form and form.fullmatch(v))]
    if rule.action != "keep" or not (rule.values or form):
        raise _Loosens("it has no list of permitted values", "use range for a number, or remove")
    if added or not values:
        raise _Loosens(
            f"{', '.join(added) or 'no value at all'} is not among the values the release permits",
            "name some of those, or use action = 'remove'",
        )
    return replace(rule, values=frozenset(values), pattern=None)


def _narrower_form(rule: Rule, pattern: str) -> Rule:
    try:
        own = re.compile(pattern)
        # A look-ahead that must be met as well: whatever it says, it can only take away.
        joined = re.compile(rf"(?=(?:{pattern})\Z)(?:{rule.pattern.pattern})") if rule.pattern else None
    except (re.error, RecursionError, OverflowError):
        raise _Loosens("the pattern is no regular expression that can be joined", "correct it") from None
    if rule.action != "keep" or not (rule.values or rule.pattern):
        raise _Loosens("it is no text with a permitted form", "use range for a number, or remove")
    return replace(rule, values=frozenset(v for v in rule.values if own.fullmatch(v)), pattern=joined)


def _narrower_range(rule: Rule, asked: tuple[float, float]) -> Rule:
    low, high = rule.range or (-1.7e308, 1.7e308)
    if rule.action != "keep" or rule.values or rule.pattern or "SQ" in rule.vr:
        raise _Loosens("it is no number", "use values, or remove")
    if not low <= asked[0] <= asked[1] <= high:  # so that a nan is refused too
        raise _Loosens(f"its range must lie inside {low:g} to {high:g}", "narrow it")
    return replace(rule, range=asked)


def _fewer_items(rule: Rule, items: list[str]) -> Rule:
    if rule.action != "enter":
        raise _Loosens("it is no sequence", "leave items out")
    if not set(items) < set(rule.items) or not items:
        raise _Loosens(f"its items must be some of {', '.join(rule.items)}", "name fewer, or use remove")
    return replace(rule, items=tuple(item for item in rule.items if item in items))


def _stricter_otherwise(rule: Rule, asked: str) -> Rule:
    if rule.action != "keep" or asked not in OTHERWISE:
        raise _Loosens(f"otherwise is one of {', '.join(OTHERWISE)}, of a kept attribute", "correct it")
    if OTHERWISE.index(asked) < OTHERWISE.index(rule.otherwise):
        raise _Loosens(f"otherwise = '{asked}' is looser than '{rule.otherwise}'", "leave it out")
    return replace(rule, otherwise=asked)


def _without_dangling(rules: Mapping[str, Rule], before: Profile) -> dict[str, Rule]:
    """Sequences name only items that are still there; a sequence of which nothing is left goes too."""
    left = dict(rules)
    while gone := before.rules.keys() - left.keys():
        changed = False
        for rule in [r for r in left.values() if gone & set(r.items)]:
            items = tuple(item for item in rule.items if item in left)
            changed = True
            if items:
                left[rule.keyword] = replace(rule, items=items)
            else:
                del left[rule.keyword]
        if not changed:
            break
    return left


def _switched(rule: Rule, settings: DeidSettings) -> Rule | None:
    """The rule as `[deid]` leaves it, None where its option is off and it goes."""
    switch = _OPTIONS.get(rule.option)
    if switch is None or getattr(settings, switch) or rule.action == "empty":
        return rule
    if rule.without == "empty":
        return _empty(rule)
    return replace(rule, purpose="any-scanner", option="") if rule.without == "any-scanner" else None


def _chosen(profile: Profile, creators: tuple[str, ...]) -> tuple[Rule, ...]:
    offered = {rule.creator for rule in profile.offered}
    unknown = [creator for creator in creators if creator not in offered]
    if unknown:
        raise SettingsError(
            "deid.private_creators",
            f"{', '.join(unknown)}: not on the release's list of safe private creators",
            f"Choose from {', '.join(sorted(offered))}, or leave it out",
        )
    return tuple(rule for rule in profile.offered if rule.creator in creators)


def _digest(*parts: str) -> str:
    return "sha256:" + hashlib.sha256("\n".join(parts).encode("utf-8")).hexdigest()
