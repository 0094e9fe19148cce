"""What the index holds, as frozen rows, and the tables they lie in.

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

SCHEMA_VERSION: Final = 2
APPLICATION_ID: Final = 0x434F4E53  # "CONS", so that no foreign SQLite file is taken for an index

_PARTS: Final = """
CREATE TABLE parts (
    split TEXT NOT NULL,
    patient TEXT NOT NULL REFERENCES patients (pseudonym),
    part TEXT NOT NULL CHECK (part IN ('train', 'validation', 'test')),
    PRIMARY KEY (split, patient)
) STRICT;
CREATE INDEX parts_by_patient ON parts (patient);
"""

TABLES: Final = (
    """
CREATE TABLE patients (
    pseudonym TEXT PRIMARY KEY,
    spend_key TEXT NOT NULL,
    withdrawn_at TEXT
) STRICT;
CREATE INDEX patients_by_spend_key ON patients (spend_key);
CREATE TABLE studies (
    study_uid TEXT PRIMARY KEY,
    patient TEXT NOT NULL REFERENCES patients (pseudonym)
) STRICT;
CREATE INDEX studies_by_patient ON studies (patient);
CREATE TABLE series (
    series_uid TEXT PRIMARY KEY,
    study_uid TEXT NOT NULL REFERENCES studies (study_uid) ON DELETE CASCADE,
    modality TEXT NOT NULL,
    assembled TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX series_by_study ON series (study_uid);
CREATE TABLE images (
    sop_uid TEXT PRIMARY KEY,
    series_uid TEXT NOT NULL REFERENCES series (series_uid) ON DELETE CASCADE,
    file TEXT NOT NULL UNIQUE,
    manufacturer TEXT NOT NULL,
    model TEXT NOT NULL,
    scanner TEXT NOT NULL,
    projection TEXT NOT NULL,
    age INTEGER,
    sex TEXT NOT NULL,
    rows INTEGER NOT NULL CHECK (rows > 0),
    cols INTEGER NOT NULL CHECK (cols > 0),
    label TEXT,
    label_source TEXT NOT NULL,
    label_version TEXT NOT NULL,
    split TEXT NOT NULL CHECK (split IN ('', 'train', 'validation', 'test')),
    quality TEXT NOT NULL,
    pixel_digest TEXT NOT NULL
) STRICT;
CREATE INDEX images_by_series ON images (series_uid);
CREATE INDEX images_by_digest ON images (pixel_digest);
CREATE TABLE volumes (
    series_uid TEXT NOT NULL REFERENCES series (series_uid) ON DELETE CASCADE,
    part INTEGER NOT NULL,
    row TEXT NOT NULL,
    PRIMARY KEY (series_uid, part)
) STRICT;
CREATE TABLE files (
    key TEXT PRIMARY KEY,
    code TEXT NOT NULL,
    quarantine_id TEXT NOT NULL,
    sop_uid TEXT NOT NULL
) STRICT;
CREATE TABLE ingests (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    report TEXT NOT NULL
) STRICT;
CREATE TABLE runs (
    run TEXT PRIMARY KEY,
    at TEXT NOT NULL
) STRICT;
CREATE TABLE run_patients (
    run TEXT NOT NULL REFERENCES runs (run),
    patient TEXT NOT NULL REFERENCES patients (pseudonym),
    PRIMARY KEY (run, patient)
) STRICT;
CREATE INDEX runs_by_patient ON run_patients (patient);
CREATE TABLE percentiles (
    modality TEXT NOT NULL,
    scanner TEXT NOT NULL,
    images INTEGER NOT NULL,
    bounds TEXT NOT NULL,
    PRIMARY KEY (modality, scanner)
) STRICT;
"""
    + _PARTS
)
MIGRATIONS: Final = {1: _PARTS}
"""What must be added to a file of an older schema version to make it one of the next."""

KEEP_PART: Final = (
    "INSERT INTO parts SELECT ?, pseudonym, ? FROM patients WHERE pseudonym = ? AND withdrawn_at IS NULL "
    "ON CONFLICT (split, patient) DO UPDATE SET part = excluded.part"
)

IMAGES_QUERY: Final = (
    "SELECT i.sop_uid, t.patient, p.spend_key, s.study_uid, i.series_uid, i.file, s.modality, i.manufacturer, "
    "i.model, i.scanner, i.projection, i.age, i.sex, i.rows, i.cols, i.label, i.label_source, i.label_version, "
    "i.split, i.quality, i.pixel_digest FROM images i JOIN series s USING (series_uid) "
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


_FIELDS: Final = tuple(f.name for f in fields(ImageRow))


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
    )


def image_row(record: tuple[Any, ...]) -> ImageRow:
    """An image from the joined columns, which stand in the order of the fields of `ImageRow`."""
    values = dict(zip(_FIELDS, record, strict=True))
    return ImageRow(**{**values, "label": _label(values["label"]), "quality": json.loads(values["quality"])})


def label_text(label: Label) -> str | None:
    """A label as the JSON text it is kept as; None for no label."""
    return None if label is None else json.dumps(label)


def _label(text: str | None) -> Label:
    if text is None:
        return None
    value = json.loads(text)
    return tuple(value) if isinstance(value, list) else value


def volume_row(text: str) -> VolumeRow:
    """A volume from the JSON text it is kept as."""
    raw: dict[str, Any] = json.loads(text)
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()}
    return VolumeRow(**values)
