"""The profile against table E.1-1 of PS3.15: what the standard demands of each attribute, what we do, and why.

Every attribute of the table stands here, and every attribute that the profile names beside it. The verdict is
worked out from the two, not written by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from pydicom.datadict import (
    RepeatersDictionary,
    dictionary_description,
    dictionary_has_tag,
    keyword_for_tag,
    repeater_has_tag,
    tag_for_keyword,
)

from client.deid.profile import Profile, Rule
from client.deid.standard import IN_WORDS, OPTION_CODES, Demand, demand_of, table

TREATMENTS: Final = ("removed", "replaced", "emptied", "shifted", "generalised", "kept")
"""What becomes of an attribute, the strictest first."""
_TREATMENT: Final = {
    "keep": "kept",
    "enter": "kept",
    "pseudonym": "replaced",
    "uid": "replaced",
    "shift": "shifted",
    "generalise": "generalised",
    "empty": "emptied",
}
_WORDS: Final = {
    "pseudonym": "a keyed code of the {purpose} in its place",
    "uid": "a keyed UID in its place, always the same for the same one",
    "shift": "moved back by as many days for all dates of a patient, by the site's key",
    "generalise": "whole years, 90 for 90 and more",
    "empty": "written without a value",
}
_OTHERWISE: Final = {"drop": "", "other": "; else OTHER", "refuse": "; else the file is refused"}
_MEETS: Final = {
    "X": {"removed"},
    "Z": {"removed", "emptied", "replaced"},
    "D": {"removed", "replaced"},
    "U": {"removed", "replaced"},
    "Z/D": {"removed", "emptied", "replaced"},
    "X/Z": {"removed", "emptied", "replaced"},
    "X/D": {"removed", "replaced"},
    "X/Z/D": {"removed", "emptied", "replaced"},
    "X/Z/U*": {"removed", "emptied", "replaced"},
}
"""The standard's letters to the treatments that are as strict. Where the image type decides between removing
and more, an element without a patient's value is as strict; a removed one is always."""
_OPTION_ALLOWS: Final = {
    "patient-characteristics": {"kept", "generalised"},
    "dates": {"shifted"},
    "private": {"kept"},
}
_PIXELS: Final = "PixelData"
WRITTEN: Final = {
    "FileMetaInformationVersion": ("replaced", "written anew: version 1"),
    "FileMetaInformationGroupLength": ("replaced", "written anew"),
    "MediaStorageSOPClassUID": ("kept", "the same as SOPClassUID"),
    "MediaStorageSOPInstanceUID": ("replaced", "the same keyed UID as SOPInstanceUID"),
    "TransferSyntaxUID": ("replaced", "written anew: Explicit VR Little Endian"),
    "ImplementationClassUID": ("replaced", "this writer's own"),
    "ImplementationVersionName": ("replaced", "this writer's own"),
    "PatientIdentityRemoved": ("replaced", "YES, once the second scan agreed"),
    "DeidentificationMethodCodeSequence": ("replaced", "the codes of what was really done"),
    "LongitudinalTemporalInformationModified": ("replaced", "MODIFIED, or REMOVED where no date is kept"),
    "RecognizableVisualFeatures": ("replaced", "NO, of a volume whose face was removed; else left out"),
    _PIXELS: ("kept", "decoded, searched for text, and written anew"),
}
"""What the writer sets by itself, beside the profile: keyword to treatment and words."""
_WRITER: Final = "every file needs it; nothing of it is copied from the original"
_DENY: Final = "nobody decided to keep it, so it is not copied"


@dataclass(frozen=True)
class Line:
    """One attribute: the standard's word, ours, and whether ours is as strict."""

    tag: str
    attribute: str
    """Keyword, or a name where there is none."""
    name: str
    basic: str
    """Letters of the basic profile; empty where the table does not name the attribute."""
    treatment: str
    """One of TREATMENTS."""
    action: str
    """The treatment in words, with the permitted form."""
    verdict: str
    """`stricter`, `as strict`, `option 113108` and the like, `not in the table`, or `LOOSER`."""
    reason: str

    @property
    def demand(self) -> str:
        """What the standard demands, in words."""
        return IN_WORDS.get(self.basic, "nothing: the table does not name it")


def lines(profile: Profile) -> tuple[Line, ...]:
    """Every attribute of the table and of the profile by tag, private ones last.

    Raises:
        StorageError: the table is not installed.
    """
    rows = table()
    by_keyword = {rule.keyword: rule for rule in profile.rules.values()}
    found = [line for row in rows[:-1] for line in [_line(row, by_keyword.get(row.keyword))]]
    named = {row.keyword for row in rows}
    found += [_line(_of_number(rule.tag), rule) for rule in by_keyword.values() if rule.keyword not in named]
    found += [_line(_of_number(int(tag_for_keyword(k) or 0)), None) for k in WRITTEN if k not in named]
    private = [_private_line(rule) for rule in profile.private]
    ordered = (*sorted(found, key=lambda line: line.tag), *private, _line(rows[-1], None))
    return tuple(_here(line, profile) for line in ordered)


def everything_else() -> Line:
    """The line that makes the profile an allow-list."""
    return Line(
        "", "every other attribute", "", "", "removed", "removed", "stricter", f"default deny: {_DENY}"
    )


def one(profile: Profile, attribute: str | int) -> Line | None:
    """What happens to one attribute, by keyword or tag; None where DICOM knows no such keyword or tag.

    Raises:
        StorageError: the table is not installed.
    """
    number = attribute if isinstance(attribute, int) else _number_of(attribute)
    if number is None:
        return None
    rule = next((rule for rule in profile.rules.values() if rule.tag == number), None)
    demand = demand_of(number)
    if demand is None and not dictionary_has_tag(number) and not repeater_has_tag(number):
        return None
    return _here(_line(demand if demand and demand.number else _of_number(number), rule), profile)


def _here(line: Line, profile: Profile) -> Line:
    """A line as it is true of this site: pixels are not searched everywhere."""
    if line.attribute != _PIXELS or profile.searched:
        return line
    return replace(line, action="decoded, not searched for text, and written anew")


def _number_of(keyword: str) -> int | None:
    """The tag of a keyword; of a repeating group its first."""
    masks = (mask for mask, entry in RepeatersDictionary.items() if entry[4] == keyword)
    number = tag_for_keyword(keyword)
    mask = next(masks, None) if number is None else None
    return int(mask.replace("x", "0"), 16) if mask else number


def action_in_words(rule: Rule) -> str:
    """What a rule does, with the form a value must have to stay."""
    if rule.action == "enter":
        return f"of each item only {', '.join(rule.items)}"
    if rule.action != "keep":
        purpose = "device, the same for all" if rule.purpose == "any-scanner" else rule.purpose
        return _WORDS[rule.action].format(purpose=purpose)
    forms = [", ".join(sorted(rule.values))] if rule.values else []
    forms += [f"the form {rule.pattern.pattern}"] if rule.pattern else []
    if rule.range:
        forms = [f"a number from {_figure(rule.range[0])} to {_figure(rule.range[1])}"]
    listed = f" and on the list of {rule.listed}s, else a keyed code" if rule.listed else ""
    return f"kept if {' or '.join(forms) or 'a number'}{listed}{_OTHERWISE[rule.otherwise]}"


def _figure(number: float) -> str:
    """A bound as people write it: 10,000,000 and not 1e+07."""
    return f"{number:,.0f}" if number == int(number) else f"{number:g}"


def _line(demand: Demand, rule: Rule | None) -> Line:
    label = demand.keyword or demand.name
    if rule is None and label in WRITTEN:
        treatment, action = WRITTEN[label]
        verdict = _verdict(demand, "", treatment)
        reason = "the image itself" if label == _PIXELS else _WRITER
        return Line(demand.tag, label, demand.name, demand.basic, treatment, action, verdict, reason)
    if rule is None:
        verdict = (
            ("as strict" if "X" in demand.basic.split("/") else "stricter") if demand.basic else "stricter"
        )
        return Line(demand.tag, label, demand.name, demand.basic, "removed", "removed", verdict, _DENY)
    treatment = _TREATMENT[rule.action]
    verdict = _verdict(demand, rule.option, treatment)
    return Line(
        demand.tag, label, demand.name, demand.basic, treatment, action_in_words(rule), verdict, rule.reason
    )


def _verdict(demand: Demand, option: str, treatment: str) -> str:
    if not demand.basic:
        return "not in the table"
    if treatment in _MEETS[demand.basic]:
        return "as strict"
    allowed = demand.option and option == demand.option and treatment in _OPTION_ALLOWS[demand.option]
    return f"option {OPTION_CODES[demand.option]}" if allowed else "LOOSER"


def _of_number(number: int) -> Demand:
    """A single attribute that the table does not name by itself."""
    tag, family = f"({number >> 16:04X},{number & 0xFFFF:04X})", demand_of(number)
    keyword = keyword_for_tag(number)
    name = dictionary_description(number) if keyword else "private"
    return Demand(tag, keyword or tag, name, family.basic if family else "")


def _private_line(rule: Rule) -> Line:
    tag = rule.keyword.split(" ", 1)
    return Line(
        tag[0],
        f"{rule.creator}: {tag[1]}",
        tag[1],
        "X",
        "kept",
        action_in_words(rule),
        f"option {OPTION_CODES['private']}",
        rule.reason,
    )
