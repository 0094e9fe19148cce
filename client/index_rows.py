"""What the index holds, as frozen rows, and the queries that read them.

No row holds an identifier that came from outside: patients are pseudonyms, UIDs are our own, files
are named by us. `client.index` alone writes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

Label = float | int | tuple[float, ...] | None
"""One truth of one image: a number (binary, multiclass), one number per class (multilabel), or none."""

KEEP_PART: Final = (
    "INSERT INTO parts SELECT ?, pseudonym, ? FROM patients WHERE pseudonym = ? AND withdrawn_at IS NULL "
    "ON CONFLICT (split, patient) DO UPDATE SET part = excluded.part"
)

IMAGES_QUERY: Final = (
    "SELECT i.sop_uid, t.patient, p.spend_key, s.study_uid, i.series_uid, i.file, s.modality, i.manufacturer, "
    "i.model, i.scanner, i.projection, i.age, i.sex, i.rows, i.cols, i.label, i.label_source, i.label_version, "
    "i.split, i.quality, i.pixel_digest, i.perceptual_hash FROM images i JOIN series s USING (series_uid) "
    "JOIN studies t USING (study_uid) JOIN patients p ON p.pseudonym = t.patient "
)

CHOSEN: Final = (
    "WHERE p.withdrawn_at IS NULL AND (? IS NULL OR s.modality = ?) "
    "ORDER BY t.patient, s.study_uid, i.series_uid, i.sop_uid"
)
PATIENTS_QUERY: Final = (
    "SELECT p.pseudonym, p.spend_key, p.withdrawn_at, COUNT(i.sop_uid) FROM patients p "
    "LEFT JOIN studies t ON t.patient = p.pseudonym LEFT JOIN series s USING (study_uid) "
    "LEFT JOIN images i USING (series_uid) WHERE p.withdrawn_at IS NULL OR ? "
    "GROUP BY p.pseudonym ORDER BY p.pseudonym"
)
FILES_OF: Final = (
    "SELECT i.sop_uid, i.file FROM images i JOIN series s USING (series_uid) "
    "JOIN studies t USING (study_uid) WHERE t.patient = ? ORDER BY i.sop_uid"
)
VOLUMES_OF: Final = (
    "SELECT v.row FROM volumes v JOIN series s USING (series_uid) "
    "JOIN studies t USING (study_uid) WHERE t.patient = ? ORDER BY v.series_uid, v.part"
)

_NOTHING: Final = "{}"
_PLAIN: Final[dict[str, Label]] = {"0": 0, "1": 1}
"""What most labels are, as text: a thousand sites' images are read often."""
WITHDRAWN: Final = (
    "SELECT 1 FROM patients WHERE withdrawn_at IS NOT NULL "
    "AND (pseudonym = ?1 OR (spend_key = ?2 AND spend_key <> '')) LIMIT 1"
)
MET: Final = f"SELECT ({WITHDRAWN}), (SELECT pixel_digest FROM images WHERE sop_uid = ?3)"  # noqa: S608 (our own)
"""Of an image that comes: whether its patient withdrew, and what has its UID."""
PLACED: Final = (
    "SELECT s.study_uid, s.modality, t.patient, p.spend_key, (SELECT patient FROM studies WHERE study_uid = ?2) "
    "FROM series s JOIN studies t USING (study_uid) JOIN patients p ON p.pseudonym = t.patient "
    "WHERE s.series_uid = ?1"
)
"""Of a series and a study: where the series stands, and whose the study is."""

STORED: Final = "s:"
"""Begins the digests of pixels that releases since the second index make; see `client.intake.digests`."""


@dataclass(frozen=True)
class ImageRow:
    """One de-identified image that passed every gate."""

    sop_uid: str
    patient: str
    """Pseudonym."""
    spend_key: str
    """Name of the patient in the privacy ledger; survives a change of pseudonyms."""
    study_uid: str
    series_uid: str
    file: str
    """Path of the de-identified DICOM file, relative to `site.dicom`."""
    modality: str
    manufacturer: str = ""
    model: str = ""
    scanner: str = ""
    """Keyed hash of the device serial number, or empty."""
    projection: str = ""
    age: int | None = None
    """Years; 90 stands for 90 and more."""
    sex: str = ""
    rows: int = 1
    cols: int = 1
    label: Label = None
    label_source: str = ""
    label_version: str = ""
    split: str = ""
    """`train`, `validation`, `test`, or empty: drawn by the plan."""
    quality: Mapping[str, float] = field(default_factory=dict)
    """Figures of `client.quality`, by name."""
    pixel_digest: str = ""
    perceptual_hash: str = ""
    """Of `client.quality_hash`; empty for images that were taken in before there was one."""


_FIELDS: Final = tuple(f.name for f in fields(ImageRow))
_LABEL: Final = _FIELDS.index("label")
_QUALITY: Final = _FIELDS.index("quality")


@dataclass(frozen=True)
class PatientRow:
    """One patient: pseudonym, ledger name, and when they withdrew (UTC, ISO 8601; None: they did not)."""

    pseudonym: str
    spend_key: str
    withdrawn_at: str | None
    images: int


@dataclass(frozen=True)
class VolumeRow:
    """One three-dimensional array made of a series, or of the part of it that shares a geometry."""

    series_uid: str
    part: int
    """0-based; a series of several stacks gives several parts."""
    patient: str
    modality: str
    file: str
    """Path of the `.npy` file (float32 [slices, rows, columns]), relative to `site.data / "volumes"`."""
    shape: tuple[int, int, int]
    """(slices, rows, columns)."""
    spacing_mm: tuple[float, float, float]
    """Distance between slices (from their positions), rows and columns, in millimetres; 0: unknown."""
    orientation: tuple[float, ...]
    """Direction cosines of a row and of a column: six numbers in patient coordinates."""
    origin_mm: tuple[float, float, float]
    """Position of the first voxel in patient coordinates."""
    regular: bool
    """False where gaps between slices differ by more than 1% or 0.01 mm."""
    sop_uids: tuple[str, ...]
    """The images it was made of, in the order of the slices."""


@dataclass(frozen=True)
class FileOutcome:
    """What became of one incoming file: `accepted`, or the code of its refusal."""

    code: str
    quarantine_id: str = ""
    sop_uid: str = ""
    modality: str = ""
    scanner: str = ""
    """Keyed hash of the device, as in `ImageRow`; of files refused after they were de-identified."""
    quality: Mapping[str, float] = field(default_factory=dict)
    """Figures of a file that the quality gate refused; of an accepted one they stand in its image."""


@dataclass(frozen=True)
class Withdrawal:
    """What a withdrawal removed: file names relative to their folders, and the runs that used the patient."""

    sop_uids: tuple[str, ...]
    files: tuple[str, ...]
    volumes: tuple[str, ...]
    runs: tuple[str, ...]
    quarantined: tuple[str, ...] = ()
    """Identifiers of refused originals of this patient that were kept in quarantine."""


@dataclass(frozen=True)
class GivenLabel:
    """One label as a table gave it: the value, who says so, and in which version of their work."""

    label: Label
    source: str
    version: str
    split: str | None = None
    """`train`, `validation`, `test`; empty: to be drawn; None: the table says nothing of splits."""
    at: str = ""
    """When it was given (UTC, ISO 8601); empty for labels older than this record."""


@dataclass(frozen=True)
class WaitingLabel:
    """A label by the keyed name of an image or study that is not here, or not wholly here."""

    kind: str
    """What the table went by: `accession`, `study`, `instance` or `path`."""
    name: str
    given: GivenLabel
    keep_current: bool = False
    met: bool = False
    """Whether it found an image already; it stays for those of the same study that come later."""
    patient: str = ""
    """Pseudonym, where an image told it: the label goes when they withdraw."""


@dataclass(frozen=True)
class Percentiles:
    """A site's own bounds for one modality and scanner: figure name to (0.1%, 99.9%)."""

    images: int
    """How many images they were taken from."""
    bounds: Mapping[str, tuple[float, float]]


def image_record(row: ImageRow) -> tuple[object, ...]:
    """An image as the values of table `images`, in its column order."""
    return (
        row.sop_uid,
        row.series_uid,
        row.file,
        row.manufacturer,
        row.model,
        row.scanner,
        row.projection,
        row.age,
        row.sex,
        row.rows,
        row.cols,
        label_text(row.label),
        row.label_source,
        row.label_version,
        row.split,
        json.dumps(dict(row.quality)),
        row.pixel_digest,
        row.perceptual_hash,
    )


def image_row(record: tuple[Any, ...]) -> ImageRow:
    """An image from the joined columns, which stand in the order of the fields of `ImageRow`."""
    values = list(record)
    values[_LABEL], values[_QUALITY] = label_of(values[_LABEL]), json.loads(values[_QUALITY])
    return ImageRow(*values)


def label_text(label: Label) -> str | None:
    """A label as the JSON text it is kept as; None for no label."""
    return None if label is None else json.dumps(label)


def label_of(text: str | None) -> Label:
    """A label from the JSON text it is kept as."""
    if text is None or text in _PLAIN:
        return _PLAIN.get(text or "")
    value = json.loads(text)
    return tuple(value) if isinstance(value, list) else value


def volume_row(text: str) -> VolumeRow:
    """A volume from the JSON text it is kept as."""
    raw: dict[str, Any] = json.loads(text)
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()}
    return VolumeRow(**values)


def are_comparable(one: str, other: str) -> bool:
    """Whether two digests of pixels are of one kind, so that unequal ones mean unequal images."""
    return one.startswith(STORED) == other.startswith(STORED)
