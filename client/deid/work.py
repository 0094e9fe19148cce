"""One source while it is de-identified: whom it names, and its elements as plainly as they can be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from client.deid.profile import Rule
from client.deid.pseudonyms import Identity
from client.deid.wanted import Wanted
from common.errors import FileRefused


@dataclass(frozen=True)
class Work:
    """One source while it is read: its elements by tag, raw where the parser left them so."""

    source: Dataset
    items: Mapping[int, RawDataElement | DataElement]
    who: Identity
    wanted: Wanted

    def item(self, rule: Rule) -> RawDataElement | DataElement:
        """The element a rule is about; bytes whose meaning is plain stay bytes."""
        found = self.items[rule.tag]
        if not isinstance(found, RawDataElement):
            return found
        return found if found.VR in rule.vr and found.is_little_endian else self.source[rule.tag]

    def text(self, tag: int) -> str:
        """What an element says, empty where there is none; a plain one is read from its bytes."""
        found = self.items.get(tag)
        if found is None:
            return ""
        raw = found.value
        if isinstance(raw, bytes) and raw.isascii() and b"\\" not in raw and b"\x1b" not in raw:
            return raw.decode("ascii").rstrip(" \0")
        return str(self.source[tag].value or "")


def by_number(dataset: Dataset) -> dict[int, RawDataElement | DataElement]:
    """Elements by plain numbers, which compare faster than pydicom's tags."""
    return dict(zip(map(int, dataset.keys()), dataset.values(), strict=True))


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
