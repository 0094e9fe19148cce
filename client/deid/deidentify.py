"""A new data set from an allow-list: nothing of the old one is edited, what is wanted is copied.

The old data set is only read. Every element of the new one was named by the profile; pixels were
decoded and are written anew, so that preamble, file meta, private tags, overlays, icons and whatever
hid behind the last element stay with the old bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_sequence
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian

from client.deid.actions import day_of, kept, years
from client.deid.encoding import element, encode
from client.deid.methods import MEANINGS, flags
from client.deid.private import keep_private
from client.deid.profile import Profile, Rule
from client.deid.pseudonyms import Identity, Pseudonyms
from client.deid.tables import is_table
from client.deid.wanted import Wanted, identifiers
from common.errors import FileRefused

__all__ = ["DONE", "METHODS", "USUAL", "Deidentifier", "encode", "identity", "mark"]

IMPLEMENTATION_UID: Final = "2.25.198211846730541987726013455870216594723"
"""Names this writer in the file meta (PS3.7 D.3.3.2)."""
IMPLEMENTATION_NAME: Final = "CONSILIUM_1"
USUAL: Final = ("113100", "113107", "113108")
"""Codes of what is done to an image under the release's settings when nothing was blanked."""
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
_CLASS: Final = 0x00080016
_INSTANCE: Final = 0x00080018
_SAMPLES: Final = 0x00280002
_FRAMES: Final = 0x00280008
_ROWS: Final = 0x00280010
_COLUMNS: Final = 0x00280011
_ALLOCATED: Final = 0x00280100
_STORED: Final = 0x00280101
_HIGH: Final = 0x00280102
_PIXELS: Final = 0x7FE00010


@dataclass(frozen=True)
class Deidentifier:
    """The profile and keys of one site."""

    profile: Profile
    names: Pseudonyms

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
            FileRefused: `patient-unknown`, `deid-value`, `deid-uid`.
        """
        work = _Work(source, _by_number(source), identity(source), wanted or identifiers(source))
        target = Dataset()
        for rule in self.profile.top:
            if rule.tag in work.items or rule.action in ("pseudonym", "empty", "generalise"):
                self._place(rule, work, target)
        keep_private(self.profile.private, source, target)
        _count(work, target, self.profile, Counter() if tally is None else tally)
        _set_pixels(target, pixels)
        target.file_meta = _file_meta(target)
        return target

    def _place(self, rule: Rule, work: _Work, target: Dataset) -> None:
        value = self._value(rule, work)
        if isinstance(value, Items):
            target.add_new(rule.tag, "SQ", value)
        elif value is not None:
            kept_as = work.vr(rule.tag) if rule.action == "keep" and rule.tag in work.items else rule.vr[0]
            target[rule.tag] = element(rule.tag, kept_as, value)

    def _value(self, rule: Rule, work: _Work) -> Any:
        if rule.action == "keep":
            value = kept(rule, work.item(rule), work.wanted)
            return _little_endian(value, work.source, rule) if isinstance(value, bytes) else value
        if rule.action == "enter":
            return self._entered(rule, work)
        made = {
            "uid": self._uid,
            "empty": _empty,
            "generalise": _generalised,
            "shift": self._shifted,
            "pseudonym": self._pseudonym,
        }
        return made[rule.action](rule, work.source, work.who)

    def _entered(self, rule: Rule, work: _Work) -> Items | None:
        items = []
        for item in work.source[rule.tag].value or ():
            copy, inside = Dataset(), replace(work, source=item, items=_by_number(item))
            for keyword in rule.items:
                inner = self.profile.rule(keyword)
                if inner.tag in inside.items:
                    self._place(inner, inside, copy)
            items.append(copy)
        if not all(is_table(item) for item in items if "LUTData" in item):
            _check_dispensable(rule)
            return None
        return Items(items) if items else None

    def _uid(self, rule: Rule, source: Dataset, _who: Identity) -> str | None:
        value = str(source[rule.tag].value or "").strip(" \0")
        if value:
            return self.names.uid(value)
        if rule.keyword == "FrameOfReferenceUID":
            return None
        raise FileRefused(
            "an image", f"it has no {rule.keyword}", "Export it again with its UIDs", code="deid-uid"
        )

    def _shifted(self, rule: Rule, source: Dataset, who: Identity) -> str:
        day = day_of(source.get(rule.keyword))
        try:
            return "" if day is None else self.names.shifted(who, day).strftime("%Y%m%d")
        except OverflowError:
            return ""

    def _pseudonym(self, rule: Rule, source: Dataset, who: Identity) -> str:
        if rule.purpose == "patient":
            return self.names.patient(who)
        if rule.purpose == "accession":
            number = str(source.get("AccessionNumber") or "").strip(" \0")
            return self.names.accession(number) if number else ""
        if rule.purpose == "any-scanner":
            return self.names.scanner("", "", "")
        parts = ("DeviceSerialNumber", "Manufacturer", "ManufacturerModelName")
        serial, maker, model = (str(source.get(k) or "") for k in parts)
        return self.names.scanner(serial, maker, model)


@dataclass(frozen=True)
class _Work:
    """One source while it is read: its elements by tag, raw where the parser left them so."""

    source: Dataset
    items: Mapping[int, RawDataElement | DataElement]
    who: Identity
    wanted: Wanted

    def item(self, rule: Rule) -> RawDataElement | DataElement:
        """The element a rule is about; bytes whose meaning is plain stay bytes."""
        found = self.items[rule.tag]
        plain = isinstance(found, RawDataElement) and found.VR in rule.vr and found.is_little_endian
        return found if plain else self.source[rule.tag]

    def vr(self, tag: int) -> str:
        """Its value representation."""
        return str(self.items[tag].VR or self.source[tag].VR)


def _by_number(dataset: Dataset) -> dict[int, RawDataElement | DataElement]:
    """Elements by plain numbers, which compare faster than pydicom's tags."""
    return dict(zip(map(int, dataset.keys()), dataset.values(), strict=True))


def _count(work: _Work, target: Dataset, profile: Profile, tally: Counter[str]) -> None:
    """What became of every element; pixels, which are always written anew, count nowhere."""
    actions = {rule.tag: DONE[rule.action] for rule in profile.top}
    here = _by_number(target)
    tally.update(actions.get(tag, "kept") for tag in here)
    gone = [tag for tag in work.items if tag not in here and tag != _PIXELS]
    private = sum(tag >> 16 & 1 for tag in gone)
    tally["private-removed"] += private
    tally["removed"] += len(gone) - private
    for tag in (tag for tag, item in here.items() if item.VR == "SQ"):
        for before, after in zip(work.source[tag].value, target[tag].value, strict=True):
            tally["kept"] += len(after)
            tally["removed"] += len(before) - len(after)


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


def _empty(_rule: Rule, _source: Dataset, _who: Identity) -> str:
    return ""


def _generalised(_rule: Rule, source: Dataset, _who: Identity) -> str | None:
    born, studied = day_of(source.get("PatientBirthDate")), day_of(source.get("StudyDate"))
    age = years(source.get("PatientAge"), born, studied)
    return None if age is None else f"{age:03d}Y"


def identity(source: Dataset) -> Identity:
    """The patient a data set names.

    Raises:
        FileRefused: `patient-unknown`.
    """
    number = str(source.get("PatientID") or "").strip(" \0")
    if not number:
        raise FileRefused(
            "an image",
            "it names no patient, so privacy per patient could not be kept",
            "Export it with its PatientID",
            code="patient-unknown",
        )
    return Identity(number, str(source.get("IssuerOfPatientID") or ""))


def mark(target: Dataset, methods: tuple[str, ...] = USUAL) -> None:
    """Say that the identity was removed, and how: the codes and what PS3.15 E.2 asks for beside them.

    Args:
        target: from `Deidentifier.apply`.
        methods: codes of `client.deid.methods`, what was really done.
    """
    for item in _marks(methods):
        target[item.tag] = item


@cache
def _marks(methods: tuple[str, ...]) -> tuple[RawDataElement, ...]:
    codes = Dataset()
    codes.DeidentificationMethodCodeSequence = [_code(value, MEANINGS[value]) for value in methods]
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_sequence(buffer, codes["DeidentificationMethodCodeSequence"], ["iso8859"])
    words = {"PatientIdentityRemoved": "YES", **flags(methods)}
    made = [element(int(tag_for_keyword(k) or 0), dictionary_VR(k), word) for k, word in words.items()]
    return (
        *made,
        element(
            int(tag_for_keyword("DeidentificationMethodCodeSequence") or 0), "SQ", bytes(buffer.getvalue())
        ),
    )


def _set_pixels(target: Dataset, pixels: npt.NDArray[np.integer[Any]]) -> None:
    bits = pixels.dtype.itemsize * 8
    stored = int(target.BitsStored)
    rows, columns = pixels.shape[-2:]
    layout = {
        _ROWS: rows,
        _COLUMNS: columns,
        _SAMPLES: 1,
        _ALLOCATED: bits,
        _STORED: stored,
        _HIGH: stored - 1,
    }
    for tag, number in layout.items():
        target[tag] = element(tag, "US", number)
    if pixels.ndim == 3:
        target[_FRAMES] = element(_FRAMES, "IS", pixels.shape[0])
    target[_PIXELS] = element(_PIXELS, "OB" if bits == 8 else "OW", np.ascontiguousarray(pixels).tobytes())


def _file_meta(target: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    items = _by_number(target)
    for tag, vr, value in (
        (0x00020001, "OB", b"\x00\x01"),
        (0x00020002, "UI", items[_CLASS].value),
        (0x00020003, "UI", items[_INSTANCE].value),
        (0x00020010, "UI", str(ExplicitVRLittleEndian)),
        (0x00020012, "UI", IMPLEMENTATION_UID),
        (0x00020013, "SH", IMPLEMENTATION_NAME),
    ):
        meta[tag] = element(tag, vr, value)
    return meta


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "DCM"
    item.CodeMeaning = meaning
    return item
