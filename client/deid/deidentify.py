"""A new data set from an allow-list: nothing of the old one is edited, what is wanted is copied.

The old data set is only read. Every element of the new one was named by the profile; pixels were
decoded and are written anew, so that preamble, file meta, private tags, overlays, icons and whatever
hid behind the last element stay with the old bytes.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian

from client.deid.actions import day_of, kept, long_words, years
from client.deid.private import keep_private
from client.deid.profile import Profile, Rule
from client.deid.pseudonyms import Identity, Pseudonyms
from client.deid.tables import is_table
from common.errors import FileRefused

IMPLEMENTATION_UID: Final = "2.25.198211846730541987726013455870216594723"
"""Names this writer in the file meta (PS3.7 D.3.3.2)."""
IMPLEMENTATION_NAME: Final = "CONSILIUM_1"
METHODS: Final = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)
"""PS3.16 CID 7050: what is really done here, and no more."""
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
_PIXELS: Final = 0x7FE00010


@dataclass(frozen=True)
class Deidentifier:
    """The profile and keys of one site."""

    profile: Profile
    names: Pseudonyms

    def apply(
        self, source: Dataset, pixels: npt.NDArray[np.integer[Any]], tally: Counter[str] | None = None
    ) -> Dataset:
        """The de-identified image, not yet marked as such.

        Args:
            source: the data set as it came; it is only read.
            pixels: [rows, columns] or [frames, rows, columns], 8 or 16 bits, from `pixels.decode`.
            tally: receives how many elements met each action: `DONE`, `removed`, `private-removed`.

        Raises:
            FileRefused: `patient-unknown`, `deid-value`, `deid-uid`.
        """
        who = identity(source)
        known = _own_words(source)
        target = Dataset()
        for rule in self.profile.top:
            if rule.tag in source or rule.action in ("pseudonym", "empty", "generalise"):
                self._place(rule, source, target, who, known)
        keep_private(self.profile.private, source, target)
        _count(source, target, self.profile, Counter() if tally is None else tally)
        _set_pixels(target, pixels)
        target.file_meta = _file_meta(target)
        return target

    def _place(
        self, rule: Rule, source: Dataset, target: Dataset, who: Identity, known: frozenset[str]
    ) -> None:
        value = self._value(rule, source, who, known)
        if value is not None:
            vr = source[rule.tag].VR if rule.tag in source and rule.action == "keep" else rule.vr[0]
            target.add_new(rule.tag, vr, value)

    def _value(self, rule: Rule, source: Dataset, who: Identity, known: frozenset[str]) -> Any:
        if rule.action == "keep":
            value = kept(rule, source[rule.tag], known)
            return _little_endian(value, source, rule) if isinstance(value, bytes) else value
        if rule.action == "enter":
            return self._entered(rule, source, who, known)
        made = {
            "uid": self._uid,
            "empty": _empty,
            "generalise": _generalised,
            "shift": self._shifted,
            "pseudonym": self._pseudonym,
        }
        return made[rule.action](rule, source, who)

    def _entered(self, rule: Rule, source: Dataset, who: Identity, known: frozenset[str]) -> Items | None:
        items = []
        for item in source[rule.tag].value or ():
            copy = Dataset()
            for keyword in rule.items:
                inner = self.profile.rule(keyword)
                if inner.tag in item:
                    self._place(inner, item, copy, who, known)
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


def _count(source: Dataset, target: Dataset, profile: Profile, tally: Counter[str]) -> None:
    """What became of every element; pixels, which are always written anew, count nowhere."""
    actions = {rule.tag: DONE[rule.action] for rule in profile.top}
    tally.update(actions.get(tag, "kept") for tag in target.keys())  # noqa: SIM118 (iterating would convert elements)
    gone = (tag for tag in source.keys() if tag not in target and tag != _PIXELS)  # noqa: SIM118
    tally.update("private-removed" if tag >> 16 & 1 else "removed" for tag in gone)
    for sequence in (e for e in target if e.VR == "SQ"):
        for before, after in zip(source[sequence.tag].value, sequence.value, strict=True):
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


def mark(target: Dataset) -> None:
    """Say that the identity was removed, and how; only after the second scan agreed (law 5)."""
    target.PatientIdentityRemoved = "YES"
    target.DeidentificationMethodCodeSequence = [_code(value, meaning) for value, meaning in METHODS]


def encode(target: Dataset) -> bytes:
    """The bytes of a file: empty preamble, our file meta, Explicit VR Little Endian."""
    buffer = io.BytesIO()
    dcmwrite(buffer, target, enforce_file_format=True)
    return buffer.getvalue()


def _own_words(source: Dataset) -> frozenset[str]:
    names = (source.get(k) for k in ("PatientName", "OtherPatientNames", "PatientBirthName"))
    numbers = (source.get(k) for k in ("PatientID", "OtherPatientIDs", "AccessionNumber"))
    return long_words(str(value) for value in (*names, *numbers) if value)


def _set_pixels(target: Dataset, pixels: npt.NDArray[np.integer[Any]]) -> None:
    bits = pixels.dtype.itemsize * 8
    raw = np.ascontiguousarray(pixels).tobytes()
    target.Rows, target.Columns = pixels.shape[-2:]
    target.SamplesPerPixel = 1
    target.BitsAllocated = bits
    target.HighBit = target.BitsStored - 1
    if pixels.ndim == 3:
        target.NumberOfFrames = pixels.shape[0]
    target.add_new("PixelData", "OB" if bits == 8 else "OW", raw + b"\0" * (len(raw) % 2))


def _file_meta(target: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = target.SOPClassUID
    meta.MediaStorageSOPInstanceUID = target.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = IMPLEMENTATION_NAME
    return meta


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "DCM"
    item.CodeMeaning = meaning
    return item
