"""The de-identification profile as data: which attributes may stay, in what form, and why.

`profile.toml` beside this file is the whole of it. Loading checks every row against the DICOM data
dictionary, so that a misspelt keyword cannot silently keep nothing, nor a wrong one keep too much.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword

from client.deid.makers import Makers
from client.deid.makers import built_in as known_makers
from common.errors import SettingsError

BUILT_IN: Final = Path(__file__).with_name("profile.toml")
ACTIONS: Final = ("keep", "pseudonym", "uid", "shift", "generalise", "empty", "enter")
PURPOSES: Final = ("patient", "accession", "scanner", "any-scanner")
OTHERWISE: Final = ("other", "drop", "refuse")
"""What becomes of a value of the wrong form, the strictest last."""
OPTIONS: Final = ("patient-characteristics", "device", "dates", "private")
"""Parts of the profile that a hospital can switch off in `[deid]` of site.toml."""
WITHOUT: Final = ("remove", "empty", "any-scanner")
"""What becomes of an attribute whose option is off."""
LISTED: Final = ("maker", "model")
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
        "option",
        "without",
        "needed",
        "listed",
    )
)
_PRIVATE_FIELDS: Final = frozenset(("creator", "group", "element", "name", "vr", "range", "reason"))
_NUMBER_VRS: Final = frozenset(("DS", "IS", "US", "SS", "UL", "FL", "FD"))
_TEXT_VRS: Final = frozenset(("CS", "LO", "SH", "UI", "PN"))
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
    option: str = ""
    """One of OPTIONS, or empty: no setting switches it off."""
    without: str = "remove"
    needed: bool = False
    """Whether no image can be written or read without it."""
    listed: str = ""
    """Of a device's maker or model, one of LISTED: what is on no list of `client.deid.makers` becomes a keyed code."""
    creator: str = ""
    """Of a private element: who defined it. `tag` then holds its group and its last two digits."""


@dataclass(frozen=True)
class Profile:
    """All rules by keyword; `top` are those that apply outside of any sequence.

    `private` are the private elements that stay, `offered` all that the release knows to be safe, `makers` those
    that are written by name.
    """

    rules: Mapping[str, Rule]
    digest: str
    offered: tuple[Rule, ...] = ()
    private: tuple[Rule, ...] = ()
    makers: Makers = field(default_factory=known_makers)
    searched: bool = True
    """Whether pixels are searched for text here."""
    defaces: bool = False
    """Whether faces are removed from head MR here."""

    @property
    def options(self) -> frozenset[str]:
        """The options under which something is really kept."""
        rules = (*self.rules.values(), *self.private)
        return frozenset(r.option for r in rules if r.option and r.action != "empty") - {""}

    def rule(self, keyword: str) -> Rule:
        """The rule of a keyword that is known to be in the profile."""
        return self.rules[keyword]

    @cached_property
    def top(self) -> tuple[Rule, ...]:
        """Rules in the order of their tags, without those that live only inside a sequence."""
        chosen = (rule for rule in self.rules.values() if not rule.nested)
        return tuple(sorted(chosen, key=lambda rule: rule.tag))


@cache
def built_in() -> Profile:
    """The profile that comes with this release, read once."""
    return load_profile(BUILT_IN)


def load_profile(path: Path) -> Profile:
    """Read and check a profile from a file.

    Raises:
        SettingsError: it cannot be read, or as `load`.
    """
    try:
        return load(path.read_bytes().decode("utf-8"), path.name)
    except (OSError, UnicodeDecodeError):
        raise _unreadable(path.name) from None


def load(text: str, name: str = "profile.toml") -> Profile:
    """Read and check a profile.

    Raises:
        SettingsError: naming every wrong row at once.
    """
    try:
        document = tomllib.loads(text)
        rows, private = document["attribute"], document.get("private", [])
    except (ValueError, KeyError):
        raise _unreadable(name) from None
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
    problems += [f"{row.get('creator', '?')}: {wrong}" for row in private if (wrong := _private_problem(row))]
    if problems:
        raise SettingsError(name, "; ".join(problems), "Correct these rows")
    lists = f"{text}\n{known_makers().digest}"
    digest = "sha256:" + hashlib.sha256(lists.encode("utf-8")).hexdigest()
    return Profile(rules, digest, tuple(map(_private_rule, private)))


def _unreadable(name: str) -> SettingsError:
    return SettingsError(name, "the profile is not readable TOML", "Restore it")


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
        option=row.get("option", ""),
        without=row.get("without", "remove"),
        needed=bool(row.get("needed", False)),
        listed=row.get("listed", ""),
    )


def _private_rule(row: Mapping[str, Any]) -> Rule:
    group, element = int(row["group"], 16), int(row["element"], 16)
    return Rule(
        keyword=f"({group:04X},xx{element:02X}) {row['name']}",
        tag=group << 16 | element,
        vr=tuple(row["vr"]),
        action="keep",
        reason=row["reason"],
        range=(float(row["range"][0]), float(row["range"][1])),
        option="private",
        creator=row["creator"],
    )


def _private_problem(row: Mapping[str, Any]) -> str:
    """What is wrong with a private row, or nothing. Only numbers within bounds are ever offered."""
    if set(row) != _PRIVATE_FIELDS or not all(row.values()):
        return f"it has the fields {', '.join(sorted(_PRIVATE_FIELDS))}, none empty"
    if not re.fullmatch("[0-9A-F]{3}[13579BDF]", row["group"]) or not re.fullmatch(
        "[0-9A-F]{2}", row["element"]
    ):
        return "its group has four digits and is odd, its element two"
    return "" if set(row["vr"]) <= _NUMBER_VRS else "a private element is kept only when it is a number"


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
        (row.get("option", "private") not in OPTIONS, f"option must be one of {', '.join(OPTIONS)}"),
        (row.get("without", "remove") not in WITHOUT, f"without must be one of {', '.join(WITHOUT)}"),
        ("without" in row and "option" not in row, "without needs an option"),
        (row.get("listed", "maker") not in LISTED, f"listed must be one of {', '.join(LISTED)}"),
        ("listed" in row and not row.get("pattern"), "what is listed has a pattern"),
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
