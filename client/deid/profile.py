"""The de-identification profile as data: which attributes may stay, in what form, and why.

`profile.toml` beside this file is the whole of it. Loading checks every row against the DICOM data
dictionary, so that a misspelt keyword cannot silently keep nothing, nor a wrong one keep too much.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword

from common.errors import SettingsError

BUILT_IN: Final = Path(__file__).with_name("profile.toml")
ACTIONS: Final = ("keep", "pseudonym", "uid", "shift", "generalise", "empty", "enter")
PURPOSES: Final = ("patient", "accession", "scanner")
OTHERWISE: Final = ("drop", "other", "refuse")
_FIELDS: Final = frozenset(
    (
        "keyword",
        "vr",
        "action",
        "reason",
        "values",
        "pattern",
        "range",
        "otherwise",
        "purpose",
        "items",
        "nested",
    )
)
_TEXT_VRS: Final = frozenset(("CS", "LO", "SH", "UI", "PN"))
_IN_WORDS: Final = {
    "keep": "keep",
    "pseudonym": "replace by a pseudonym of the {}",
    "uid": "replace by another UID, always the same",
    "shift": "move back by as many days for all dates of a patient, by the site's key",
    "generalise": "replace by whole years, 90 for 90 and more",
    "empty": "write it empty",
}
_OTHERWISE_IN_WORDS: Final = {"drop": "", "other": "; else OTHER", "refuse": "; else refuse the file"}
_VR_OF_ACTION: Final = {
    "uid": {"UI"},
    "shift": {"DA"},
    "generalise": {"AS"},
    "enter": {"SQ"},
    "pseudonym": {"LO", "SH", "PN"},
}


@dataclass(frozen=True)
class Rule:
    """What happens to one attribute; see the head of profile.toml for the meaning of each field."""

    keyword: str
    tag: int
    vr: tuple[str, ...]
    action: str
    reason: str
    values: frozenset[str] = frozenset()
    pattern: re.Pattern[str] | None = None
    range: tuple[float, float] | None = None
    otherwise: str = "drop"
    purpose: str = ""
    items: tuple[str, ...] = ()
    nested: bool = False


class Explained(NamedTuple):
    """One line of the table a data-protection officer reads."""

    attribute: str
    action: str
    reason: str


@dataclass(frozen=True)
class Profile:
    """All rules by keyword; `top` are those that apply outside of any sequence."""

    rules: Mapping[str, Rule]
    digest: str

    def rule(self, keyword: str) -> Rule:
        """The rule of a keyword that is known to be in the profile."""
        return self.rules[keyword]

    @property
    def top(self) -> tuple[Rule, ...]:
        """Rules in the order of their tags, without those that live only inside a sequence."""
        chosen = (rule for rule in self.rules.values() if not rule.nested)
        return tuple(sorted(chosen, key=lambda rule: rule.tag))


@cache
def built_in() -> Profile:
    """The profile that comes with this release, read once."""
    return load_profile(BUILT_IN)


def load_profile(path: Path) -> Profile:
    """Read and check a profile.

    Raises:
        SettingsError: naming every wrong row at once.
    """
    try:
        text = path.read_bytes()
        rows = tomllib.loads(text.decode("utf-8"))["attribute"]
    except (OSError, ValueError, KeyError):
        raise SettingsError(path.name, "the profile is not readable TOML", "Restore it") from None
    problems: list[str] = []
    rules: dict[str, Rule] = {}
    for row in rows:
        wrong = _problem(row, rules)
        if wrong:
            problems.append(f"{row.get('keyword', '?')}: {wrong}")
        else:
            rules[row["keyword"]] = _rule(row)
    problems += [
        f"{r.keyword}: item {k} has no row" for r in rules.values() for k in r.items if k not in rules
    ]
    if problems:
        raise SettingsError(path.name, "; ".join(problems), "Correct these rows")
    return Profile(rules, "sha256:" + hashlib.sha256(text).hexdigest())


def explain(profile: Profile | None = None) -> list[Explained]:
    """The profile as a table, closed by the line that makes it an allow-list."""
    rows = [
        Explained(rule.keyword, _action_in_words(rule), rule.reason)
        for rule in (profile or built_in()).rules.values()
    ]
    return [*rows, Explained("every other attribute", "remove", "default deny: nobody asked for it")]


def _action_in_words(rule: Rule) -> str:
    if rule.values:
        return f"keep if one of {', '.join(sorted(rule.values))}{_OTHERWISE_IN_WORDS[rule.otherwise]}"
    if rule.pattern:
        return f"keep if it has the form {rule.pattern.pattern}{_OTHERWISE_IN_WORDS[rule.otherwise]}"
    if rule.range:
        return f"keep if a number from {rule.range[0]:g} to {rule.range[1]:g}{_OTHERWISE_IN_WORDS[rule.otherwise]}"
    if rule.action == "enter":
        return f"keep of each item: {', '.join(rule.items)}"
    return _IN_WORDS[rule.action].format(rule.purpose)


def _rule(row: Mapping[str, Any]) -> Rule:
    bounds = row.get("range")
    return Rule(
        keyword=row["keyword"],
        tag=int(tag_for_keyword(row["keyword"]) or 0),
        vr=tuple(row["vr"]),
        action=row["action"],
        reason=row["reason"],
        values=frozenset(row.get("values", ())),
        pattern=re.compile(row["pattern"]) if "pattern" in row else None,
        range=(float(bounds[0]), float(bounds[1])) if bounds else None,
        otherwise=row.get("otherwise", "drop"),
        purpose=row.get("purpose", ""),
        items=tuple(row.get("items", ())),
        nested=bool(row.get("nested", False)),
    )


def _problem(row: Mapping[str, Any], seen: Mapping[str, Rule]) -> str:
    """What is wrong with a row, or nothing."""
    keyword, action, vrs = row.get("keyword", ""), row.get("action"), row.get("vr", [])
    tag = tag_for_keyword(keyword) if isinstance(keyword, str) else None
    kept_text = action == "keep" and bool(_TEXT_VRS & set(vrs))
    checks = (
        (bool(set(row) - _FIELDS), f"unknown fields {sorted(set(row) - _FIELDS)}"),
        (tag is None or not dictionary_has_tag(tag), "not in the DICOM dictionary"),
        (keyword in seen, "named twice"),
        (action not in ACTIONS, f"action must be one of {', '.join(ACTIONS)}"),
        (not row.get("reason"), "says no reason"),
        (row.get("otherwise", "drop") not in OTHERWISE, f"otherwise must be one of {', '.join(OTHERWISE)}"),
        (kept_text and not (row.get("values") or row.get("pattern")), "kept text needs values or a pattern"),
        (action == "pseudonym" and row.get("purpose") not in PURPOSES, "a pseudonym needs a purpose"),
        (action == "enter" and not row.get("items"), "an entered sequence names its items"),
        (bool(set(vrs) - _VR_OF_ACTION.get(str(action), set(vrs))), "this action does not fit this VR"),
        ("pattern" in row and not _compiles(row["pattern"]), "the pattern is no regular expression"),
    )
    wrong = next((message for broken, message in checks if broken), "")
    if wrong or tag is None:
        return wrong or "not in the DICOM dictionary"
    right = set(dictionary_VR(tag).split(" or "))
    return "" if vrs and set(vrs) <= right else f"VR must be {' or '.join(sorted(right))}"


def _compiles(pattern: object) -> bool:
    try:
        re.compile(str(pattern))
    except re.error:
        return False
    return True
