"""Which DICOM objects are taken in, which wait for a person, and by which name the others are turned away.

By themselves pass images of X-ray, CT and MR that say ORIGINAL and PRIMARY. What a person or a program may have
written on goes to review: ultrasound, secondary capture, screen saves, derived images, and whatever says that
text is burned in. A hospital lets a scanner's images through by naming it, with the regions to blank.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from pydicom.dataset import Dataset

from client.deid.heads import shows_head
from client.deid.settings import DeidSettings
from client.deid.text.found import Decision
from client.deid.text.regions import region_of
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
WAITING: Final = {
    _STORAGE + "3": "review-ultrasound",
    _STORAGE + "3.1": "review-ultrasound",
    _STORAGE + "6": "review-ultrasound",
    _STORAGE + "6.1": "review-ultrasound",
    _STORAGE + "7": "review-secondary-capture",
    _STORAGE + "7.1": "review-secondary-capture",
    _STORAGE + "7.2": "review-secondary-capture",
    _STORAGE + "7.3": "review-secondary-capture",
    _STORAGE + "7.4": "review-secondary-capture",
}
"""Image storage SOP classes that hold text as a rule; the only ones whose pixels may be in colour."""
_OTHERS: Final = (
    ("1.2.840.10008.1.3.10", "dicomdir"),
    (_STORAGE + "6.2", "ultrasound"),
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
_CT: Final = frozenset((_STORAGE + "2", _STORAGE + "2.1", _STORAGE + "2.2"))
_OPTIONAL: Final = frozenset((_STORAGE + "1",))
"""Classes in which ImageType may be absent by the standard (PS3.3 C.7.6.1): its absence says nothing."""
_SCREENS: Final = frozenset(("SCREEN SAVE", "SCREENSAVE", "SCREEN_SAVE", "SCREENSHOT"))
_REASONS: Final = {
    "review-ultrasound": "ultrasound images hold text as a rule",
    "review-secondary-capture": "secondary captures hold text as a rule",
    "review-screen-save": "it is a picture of a screen",
    "review-burned-in": "it says that text is burned into its pixels",
    "review-derived": "it does not say that it is an original, primary image",
}
REMEDY: Final = "Look at it with consilium-site review, or name its scanner in [[deid.regions]] of site.toml"


def check_class(ds: Dataset, settings: DeidSettings | None = None, decision: Decision | None = None) -> None:
    """Let originals of the listed classes pass; the others wait or are refused, by name.

    Args:
        ds: the image as it came.
        settings: of the site; the release's own when None.
        decision: what a person already looked into; None: nobody has.

    Raises:
        FileRefused: `sop-class-…`, `head-ct`; `review-ultrasound`, `review-secondary-capture`,
            `review-screen-save`, `review-burned-in`, `review-derived` for images that wait for a person.
    """
    settings = settings or DeidSettings()
    uid = sop_class(ds)
    if uid not in ACCEPTED and uid not in WAITING:
        unknown = "other" if uid else "missing"
        name = next((name for prefix, name in _OTHERS if uid.startswith(prefix)), unknown)
        raise FileRefused(
            "an object",
            "its SOP class is not on the list of images that are taken in",
            "Leave it out; only CR, DX, MG, CT and MR images, ultrasound and secondary captures can be used",
            code=f"sop-class-{name}",
        )
    if settings.head_ct == "refuse" and (uid in _CT or _word(ds.get("Modality")) == "CT") and shows_head(ds):
        raise FileRefused(
            "a CT image",
            "it may show a head, from which a face can be rebuilt",
            'Leave it out, or decide for your hospital with head_ct = "accept" in [deid] of site.toml',
            code="head-ct",
        )
    if region_of(ds, settings) is not None:
        return
    waived = decision.waive if decision is not None else ()
    for code in _doubts(ds, uid, settings):
        if code not in waived:
            raise FileRefused("an image", _REASONS[code], REMEDY, code=code)


def sop_class(ds: Dataset) -> str:
    """The SOP class a data set names, in its body or else in its file meta; empty where in neither."""
    meta = getattr(ds, "file_meta", None)
    said = ds.get("SOPClassUID") or (meta.get("MediaStorageSOPClassUID") if meta is not None else "")
    return str(said or "").strip(" \0")


def _doubts(ds: Dataset, uid: str, settings: DeidSettings) -> Iterator[str]:
    """What a person should look into before this image passes, the plainest first."""
    kinds = [_word(value) for value in _listed(ds.get("ImageType"))]
    if not _SCREENS.isdisjoint(kinds):
        yield "review-screen-save"
    elif uid in WAITING:
        yield WAITING[uid]
    elif not _original(kinds, uid, _word(ds.get("Modality")) in settings.derived_primary):
        yield "review-derived"
    if _word(ds.get("BurnedInAnnotation")) == "YES":
        yield "review-burned-in"


def _original(kinds: list[str], uid: str, derived_too: bool) -> bool:  # noqa: FBT001 - a private question
    if not any(kinds):
        return uid in _OPTIONAL
    return kinds[0] in (("ORIGINAL", "DERIVED") if derived_too else ("ORIGINAL",)) and kinds[1:2] == [
        "PRIMARY"
    ]


def _word(value: object) -> str:
    return str(value or "").strip(" \0").upper()


def _listed(value: object) -> list[object]:
    if isinstance(value, str):
        return [value]
    return list(value) if isinstance(value, Iterable) else []
