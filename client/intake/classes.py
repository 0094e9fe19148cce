"""Which DICOM objects are taken in, and by which name the others are turned away."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydicom.dataset import Dataset

from client.deid.settings import DeidSettings
from client.deid.text.found import Decision
from common.errors import FileRefused

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
ACCEPTED: Final = {
    _STORAGE + "1": "Computed Radiography",
    _STORAGE + "1.1": "Digital X-Ray for presentation",
    _STORAGE + "1.1.1": "Digital X-Ray for processing",
    _STORAGE + "1.2": "Digital Mammography for presentation",
    _STORAGE + "1.2.1": "Digital Mammography for processing",
    _STORAGE + "2": "CT",
    _STORAGE + "2.1": "Enhanced CT",
    _STORAGE + "2.2": "Legacy Converted Enhanced CT",
    _STORAGE + "4": "MR",
    _STORAGE + "4.1": "Enhanced MR",
    _STORAGE + "4.4": "Legacy Converted Enhanced MR",
}
"""Image storage SOP classes whose pixels a person cannot have typed on by the object's own nature."""
_OTHERS: Final = (
    ("1.2.840.10008.1.3.10", "dicomdir"),
    (_STORAGE + "3.", "ultrasound"),
    (_STORAGE + "6.", "ultrasound"),
    (_STORAGE + "7", "secondary-capture"),
    (_STORAGE + "88.59", "key-object"),
    (_STORAGE + "88.", "report"),
    (_STORAGE + "104.", "document"),
    (_STORAGE + "11.", "presentation"),
    (_STORAGE + "66", "segmentation"),
    (_STORAGE + "9.", "waveform"),
    (_STORAGE + "20", "nuclear"),
    (_STORAGE + "128", "pet"),
    (_STORAGE + "481.", "radiotherapy"),
)
_SCREENS: Final = frozenset(("SCREEN SAVE", "SCREENSAVE", "SCREEN_SAVE", "SCREENSHOT"))


def check_class(
    ds: Dataset, _settings: DeidSettings | None = None, _decision: Decision | None = None
) -> None:
    """Let listed image classes pass, without a burned-in name, and no screen shots.

    Raises:
        FileRefused: `sop-class-…`, `burned-in`, `screen-save`.
    """
    uid = str(ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID") or "").strip(" \0")
    if uid not in ACCEPTED:
        unknown = "other" if uid else "missing"
        name = next((name for prefix, name in _OTHERS if uid.startswith(prefix)), unknown)
        raise FileRefused(
            "an object",
            "its SOP class is not on the list of images that are taken in",
            "Leave it out; only CR, DX, MG, CT and MR images can be used",
            code=f"sop-class-{name}",
        )
    if str(ds.get("BurnedInAnnotation") or "").strip().upper() == "YES":
        raise FileRefused(
            "an image",
            "it says that text is burned into its pixels",
            "Export it without annotations, or leave it out",
            code="burned-in",
        )
    if {str(v).strip().upper() for v in _listed(ds.get("ImageType"))} & _SCREENS:
        raise FileRefused(
            "an image", "it is a picture of a screen", "Export the image itself", code="screen-save"
        )


def _listed(value: object) -> list[object]:
    if isinstance(value, str):
        return [value]
    return list(value) if isinstance(value, Iterable) else []
