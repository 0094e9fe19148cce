"""The tables of the index and how a file of an older release becomes one of this.

`labels` holds every label that was ever given to an image that is here; table `images` repeats the current
one. `labels_waiting` holds labels by the keyed name of what they name: those whose image is not here (met = 0),
and of studies also those that found images already, for the images of the study that come late. A refused file keeps
its modality, its scanner's code and its quality figures in `files`; none of them is about a patient.
`former_runs` and `former_parts` hold by ledger name what a rotation of the key carried over.
"""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = 4
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

_LABELS: Final = """
CREATE TABLE labels (
    id INTEGER PRIMARY KEY,
    sop_uid TEXT NOT NULL REFERENCES images (sop_uid) ON DELETE CASCADE,
    source TEXT NOT NULL,
    version TEXT NOT NULL,
    label TEXT NOT NULL,
    split TEXT CHECK (split IN ('', 'train', 'validation', 'test')),
    at TEXT NOT NULL,
    UNIQUE (sop_uid, source, version)
) STRICT;
CREATE TABLE labels_waiting (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('accession', 'study', 'instance', 'path')),
    name TEXT NOT NULL,
    source TEXT NOT NULL,
    version TEXT NOT NULL,
    label TEXT NOT NULL,
    split TEXT CHECK (split IN ('', 'train', 'validation', 'test')),
    keep_current INTEGER NOT NULL,
    met INTEGER NOT NULL,
    patient TEXT NOT NULL,
    at TEXT NOT NULL,
    UNIQUE (kind, name, source, version)
) STRICT;
CREATE INDEX labels_waiting_by_patient ON labels_waiting (patient);
"""
_FORMER: Final = """
CREATE TABLE former_runs (
    run TEXT NOT NULL REFERENCES runs (run),
    spend_key TEXT NOT NULL,
    PRIMARY KEY (spend_key, run)
) STRICT, WITHOUT ROWID;
CREATE TABLE former_parts (
    split TEXT NOT NULL,
    spend_key TEXT NOT NULL,
    part TEXT NOT NULL CHECK (part IN ('train', 'validation', 'test')),
    PRIMARY KEY (spend_key, split)
) STRICT, WITHOUT ROWID;
"""
_LABELS_OF_VERSION_2: Final = """
INSERT INTO labels (sop_uid, source, version, label, split, at)
    SELECT sop_uid, label_source, label_version, label, split, '' FROM images WHERE label IS NOT NULL;
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
    pixel_digest TEXT NOT NULL,
    perceptual_hash TEXT NOT NULL DEFAULT ''
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
    sop_uid TEXT NOT NULL,
    modality TEXT NOT NULL DEFAULT '',
    scanner TEXT NOT NULL DEFAULT '',
    quality TEXT NOT NULL DEFAULT '{}'
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
    + _LABELS
    + _FORMER
)
_COLUMNS_OF_VERSION_3: Final = """
ALTER TABLE images ADD COLUMN perceptual_hash TEXT NOT NULL DEFAULT '';
ALTER TABLE files ADD COLUMN modality TEXT NOT NULL DEFAULT '';
ALTER TABLE files ADD COLUMN scanner TEXT NOT NULL DEFAULT '';
ALTER TABLE files ADD COLUMN quality TEXT NOT NULL DEFAULT '{}';
"""

MIGRATIONS: Final = {1: _PARTS, 2: _LABELS + _COLUMNS_OF_VERSION_3 + _LABELS_OF_VERSION_2, 3: _FORMER}
"""What must be added to a file of an older schema version to make it one of the next."""
