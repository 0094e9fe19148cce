"""A new data set from an allow-list: nothing of the old one is edited, what is wanted is copied.

The old data set is only read. Every element of the new one was named by the profile; pixels were
decoded and are written anew, so that preamble, file meta, private tags, overlays, icons and whatever
hid behind the last element stay with the old bytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from client.deid.actions import day_of, kept, years
from client.deid.encoding import element, encode
from client.deid.fresh import PIXELS, USUAL, Elements, file_meta, mark, pixel_elements
from client.deid.makers import CODED, maker_written, model_written
from client.deid.methods import MEANINGS
from client.deid.private import keep_private
from client.deid.profile import Profile, Rule
from client.deid.pseudonyms import Pseudonyms
from client.deid.remembered import Memory, short_value
from client.deid.tables import is_table
from client.deid.tags import tag as tag_of
from client.deid.wanted import Wanted, identifiers
from client.deid.work import Work, by_number, identity
from common.errors import FileRefused

__all__ = ["DONE", "METHODS", "USUAL", "Deidentifier", "encode", "mark"]

METHODS: Final = tuple((code, MEANINGS[code]) for code in USUAL)
"""The same with their meanings."""
DONE: Final = {
    "keep": "kept",
    "pseudonym": "pseudonym",
    "uid": "uid",
    "shift": "shifted",
    "generalise": "generalised",
    "empty": "emptied",
    "enter": "entered",
}
"""An action of the profile, and the word by which receipts count it."""
_ACCESSION: Final = 0x00080050
_STUDIED: Final = 0x00080020
_MAKER: Final = 0x00080070
_MODEL: Final = 0x00081090
_BORN: Final = 0x00100030
_AGE: Final = 0x00101010
_SERIAL: Final = 0x00181000
_ALWAYS_MADE: Final = frozenset(("pseudonym", "empty", "generalise"))
"""Actions that do not need an element in the source."""


@dataclass(frozen=True)
class Deidentifier:
    """The profile and keys of one site."""

    profile: Profile
    names: Pseudonyms
    _memory: Memory = field(default_factory=Memory, repr=False, compare=False)

    def apply(
        self,
        source: Dataset,
        pixels: npt.NDArray[np.integer[Any]],
        tally: Counter[str] | None = None,
        wanted: Wanted | None = None,
    ) -> Dataset:
        """The de-identified image, not yet marked as such.

        Args:
            source: the data set as it came; it is only read.
            pixels: [rows, columns] or [frames, rows, columns], 8 or 16 bits, from `pixels.decode`.
            tally: receives how many elements met each action: `DONE`, `removed`, `private-removed`.
            wanted: what the source names; looked up when None. Text that holds any of it is not kept.

        Raises:
            FileRefused: `patient-unknown`, `deid-value`, `deid-uid`, `sop-class-missing` where only the file meta names
                the class.
        """
        work = Work(source, by_number(source), identity(source), wanted or identifiers(source))
        made: Elements = {}
        for rule in self.profile.top:
            if rule.tag in work.items or rule.action in _ALWAYS_MADE:
                self._place(rule, work, made)
        _count(work, made, self.profile, Counter() if tally is None else tally)
        target = Dataset({**made, **pixel_elements(made, pixels)})
        keep_private(self.profile.private, source, target)
        target.file_meta = file_meta(made)
        return target

    def _place(self, rule: Rule, work: Work, made: Elements) -> None:
        tag = tag_of(rule.tag)
        plain = short_value(rule, work.items.get(rule.tag)) if rule.action == "keep" else None
        known = self._memory.recall(plain, rule, work.wanted) if plain is not None else None
        if known is not None:
            if known.element is not None:
                made[tag] = known.element
            return
        value = self._value(rule, work)
        if isinstance(value, Items):
            made[tag] = DataElement(tag, "SQ", value)
        elif value is not None:
            kept_as = str(work.item(rule).VR) if rule.action == "keep" else rule.vr[0]
            made[tag] = _element(rule, kept_as, value)
        if plain is not None:
            self._memory.keep(plain, value, made.get(tag))

    def _value(self, rule: Rule, work: Work) -> Any:
        if rule.action == "keep":
            value = kept(rule, work.item(rule), work.wanted)
            if rule.listed and value is not None:
                return self._listed(rule, work, value)
            return _little_endian(value, work.source, rule) if isinstance(value, bytes) else value
        if rule.action == "enter":
            return self._entered(rule, work)
        if rule.action == "empty":
            return ""
        make = {
            "uid": self._uid,
            "generalise": _generalised,
            "shift": self._shifted,
            "pseudonym": self._pseudonym,
        }[rule.action]
        return make(rule, work)

    def _entered(self, rule: Rule, work: Work) -> Items | None:
        items = []
        if work.source[rule.tag].VR != "SQ":
            raise _wrong_vr(rule)
        for item in work.source[rule.tag].value or ():
            copy: Elements = {}
            inside = replace(work, source=item, items=by_number(item))
            for keyword in rule.items:
                inner = self.profile.rule(keyword)
                if inner.tag in inside.items:
                    self._place(inner, inside, copy)
            items.append(Dataset(copy))
        if not all(is_table(item) for item in items if "LUTData" in item):
            _check_dispensable(rule)
            return None
        return Items(items) if items else None

    def _uid(self, rule: Rule, work: Work) -> str | None:
        value = work.text(rule.tag).strip(" \0")
        if value:
            return self.names.uid(value)
        if rule.keyword == "FrameOfReferenceUID":
            return None
        raise FileRefused(
            "an image", f"it has no {rule.keyword}", "Export it again with its UIDs", code="deid-uid"
        )

    def _shifted(self, rule: Rule, work: Work) -> str:
        day = day_of(work.text(rule.tag))
        try:
            return "" if day is None else _written(self.names.shifted(work.who, day))
        except OverflowError:
            return ""

    def _listed(self, rule: Rule, work: Work, value: str | list[str]) -> str | None:
        """A maker's or a model's name where it is listed and names nobody in its listed spelling, else its code."""
        said = value if isinstance(value, str) else " ".join(value)
        if rule.listed == "maker":
            name = maker_written(self.profile.makers, self.names, said)
        else:
            name = model_written(self.profile.makers, self.names, work.text(_MAKER), said)
        return None if not CODED.fullmatch(name) and work.wanted.touches(name) else name

    def _pseudonym(self, rule: Rule, work: Work) -> str:
        if rule.purpose == "patient":
            return self.names.patient(work.who)
        if rule.purpose == "accession":
            number = work.text(_ACCESSION).strip(" \0")
            return self.names.accession(number) if number else ""
        if rule.purpose == "any-scanner":
            return self.names.scanner("", "", "")
        return self.names.scanner(*map(work.text, (_SERIAL, _MAKER, _MODEL)))


def _written(day: date) -> str:
    return f"{day.year:04d}{day.month:02d}{day.day:02d}"


def _count(work: Work, made: Elements, profile: Profile, tally: Counter[str]) -> None:
    """What became of every element; pixels, which are always written anew, count nowhere."""
    here = set(map(int, made))  # numbers compare faster than pydicom's tags
    for rule in profile.top:
        if rule.tag in here:
            tally[DONE[rule.action]] += 1
    kept_private = {rule.tag for rule in profile.private}
    gone = [tag for tag in work.items if tag not in here and tag != PIXELS]
    private = [tag for tag in gone if tag >> 16 & 1]
    tally["removed"] += len(gone) - len(private)
    tally["private-removed"] += sum(tag & 0xFFFF00FF not in kept_private for tag in private)
    for tag, item in made.items():
        if item.VR == "SQ":
            for before, after in zip(work.source[tag].value, item.value, strict=True):
                tally["kept"] += len(after)
                tally["removed"] += len(before) - len(after)


def _element(rule: Rule, vr: str, value: Any) -> RawDataElement:
    try:
        return element(rule.tag, vr, value)
    except ValueError:
        raise _wrong_vr(rule) from None


def _wrong_vr(rule: Rule) -> FileRefused:
    """The refusal of a value that is not of the kind that its element is said to hold."""
    return FileRefused(
        "an image",
        f"its {rule.keyword} is not of the value representation that it names",
        "Send the file again from its source",
        code="deid-value",
    )


def _check_dispensable(rule: Rule) -> None:
    """A window may be lost, the meaning of the stored values may not.

    Raises:
        FileRefused: `deid-value`.
    """
    if rule.keyword == "ModalityLUTSequence":
        raise FileRefused(
            "an image",
            "its modality table is not a table of as many rising or falling entries as it announces",
            "Export it again with its stored values, or leave the image out",
            code="deid-value",
        )


def _little_endian(raw: bytes, source: Dataset, rule: Rule) -> bytes:
    """Words of 16 bits as we write them; the parser turns numbers of big-endian files, but not their binaries.

    Raises:
        FileRefused: `deid-value`, when the bytes are not whole words.
    """
    if source.original_encoding[1] is not False:
        return raw
    if len(raw) % 2:
        raise FileRefused(
            "an image",
            f"its {rule.keyword} is not made of whole words",
            "Export it as Explicit VR Little Endian",
            code="deid-value",
        )
    return np.frombuffer(raw, dtype=">u2").astype("<u2").tobytes()


def _generalised(_rule: Rule, work: Work) -> str | None:
    age = years(work.text(_AGE), day_of(work.text(_BORN)), day_of(work.text(_STUDIED)))
    return None if age is None else f"{age:03d}Y"
