"""The index of a site: who was imaged, with what, labelled how. The only door by which it changes.

Laws, in order:
1. A change happens whole or not at all: every method is one transaction, and `transaction()` joins several.
2. An image belongs to one series, a series to one study, a study to one patient; nothing may move.
3. The same image twice changes nothing; another image under the same UID is refused.
4. A withdrawn patient's images, studies, volumes and parts are gone from the file, not only unlisted; a
   tombstone (pseudonym and ledger name) stays so that they cannot come back, and so do the runs that used them.
5. A disk that is full, a lock that does not clear or a damaged file is a `StorageError`, and what was
   committed before stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict

from client.index_carry import Carry
from client.index_files import Files
from client.index_labels import Labels
from client.index_rows import (
    CHOSEN,
    FILES_OF,
    IMAGES_QUERY,
    MET,
    PATIENTS_QUERY,
    PLACED,
    VOLUMES_OF,
    WITHDRAWN,
    FileOutcome,
    GivenLabel,
    ImageRow,
    Label,
    PatientRow,
    Percentiles,
    VolumeRow,
    WaitingLabel,
    Withdrawal,
    are_comparable,
    image_record,
    image_row,
    volume_row,
)
from client.index_uses import now
from common.errors import FileRefused, WrongOrder

__all__ = [
    "FileOutcome",
    "GivenLabel",
    "ImageRow",
    "Index",
    "Label",
    "PatientRow",
    "Percentiles",
    "VolumeRow",
    "WaitingLabel",
    "Withdrawal",
]


class Index(Files, Labels, Carry):
    """A site's index; use it as a context manager. One process writes at a time, any number read.

    Args:
        path: the SQLite file, made with its folder when it is not there.

    Raises:
        StorageError: the file cannot be opened, is damaged, or was written by another release; the
            disk is full. Any method may raise it.
    """

    # images

    def add_image(self, row: ImageRow) -> bool:
        """Add one image with its patient, study and series; False when it was there already.

        Raises:
            FileRefused: `withdrawn`, `uid-conflict` (the UID names another image) or
                `hierarchy-conflict` (its study or series belongs to someone else).
        """
        with self.transaction():
            withdrawn, digest = self._met(row)
            if withdrawn:
                raise FileRefused(
                    "an image", "its patient has withdrawn", "Nothing to do: it stays out", code="withdrawn"
                )
            if digest is not None:
                if are_comparable(digest, row.pixel_digest) and digest != row.pixel_digest:
                    raise _conflict("uid-conflict", "its SOP instance UID already names another image")
                return False
            self._place(row)
            self._insert_image(row)
            return True

    def images(self, *, modality: str | None = None) -> list[ImageRow]:
        """Every image that is not withdrawn, by patient, study, series and UID; of one modality when named."""
        records = self._all(IMAGES_QUERY + CHOSEN, (modality, modality))
        return [image_row(record) for record in records]

    def image(self, sop_uid: str) -> ImageRow | None:
        """One image by its UID, or None."""
        record = self._one(IMAGES_QUERY + "WHERE i.sop_uid = ?", (sop_uid,))
        return None if record is None else image_row(record)

    def has_pixels(self, pixel_digest: str) -> bool:
        """Whether some image with exactly these pixels is here."""
        return self._one("SELECT 1 FROM images WHERE pixel_digest = ? LIMIT 1", (pixel_digest,)) is not None

    # patients

    def patients(self, *, withdrawn: bool = False) -> list[PatientRow]:
        """Patients by pseudonym with their image counts; withdrawn ones only when asked for."""
        records = self._all(PATIENTS_QUERY, (withdrawn,))
        return [PatientRow(*record) for record in records]

    def n_patients(self) -> int:
        """How many patients there are who have not withdrawn."""
        return self._number_of("SELECT COUNT(*) FROM patients WHERE withdrawn_at IS NULL")

    def is_withdrawn(self, pseudonym: str, spend_key: str = "") -> bool:
        """Whether this patient withdrew, under this pseudonym or an earlier one of the same ledger name."""
        return self._one(WITHDRAWN, (pseudonym, spend_key)) is not None

    def begin_withdrawal(self, pseudonym: str, spend_key: str = "") -> Withdrawal:
        """Set a patient's tombstone: from now on nothing lists them. An unknown patient gets one all the same.

        Returns what must go from the disk; until `finish_withdrawal` it can be asked for again.
        """
        with self.transaction():
            self._run(
                "INSERT INTO patients VALUES (?, ?, ?) ON CONFLICT (pseudonym) "
                "DO UPDATE SET withdrawn_at = COALESCE(withdrawn_at, excluded.withdrawn_at), "
                "spend_key = CASE spend_key WHEN '' THEN excluded.spend_key ELSE spend_key END",
                (pseudonym, spend_key, now()),
            )
            self.adopt(pseudonym, spend_key)
        images = self._all(FILES_OF, (pseudonym,))
        volumes = [volume_row(record[0]) for record in self._all(VOLUMES_OF, (pseudonym,))]
        return Withdrawal(
            sop_uids=tuple(record[0] for record in images),
            files=tuple(record[1] for record in images),
            volumes=tuple(volume.file for volume in volumes),
            runs=tuple(self.runs_of(pseudonym)),
        )

    def finish_withdrawal(self, pseudonym: str, quarantined: Iterable[str] = ()) -> None:
        """Overwrite all rows of a withdrawn patient but the tombstone and the runs that used them.

        Args:
            pseudonym: of the patient.
            quarantined: identifiers of their originals that left the quarantine.

        Raises:
            WrongOrder: before `begin_withdrawal`.
        """
        with self.transaction():
            if not self.is_withdrawn(pseudonym):
                raise WrongOrder("a withdrawal", "it is finished before it began", "Begin it first")
            for sop_uid, _ in self._all(FILES_OF, (pseudonym,)):
                self._run(
                    "UPDATE files SET code = 'withdrawn', sop_uid = '', quality = '{}' WHERE sop_uid = ?",
                    (sop_uid,),
                )
            for name in quarantined:
                self._run(
                    "UPDATE files SET code = 'withdrawn', quarantine_id = '', quality = '{}' WHERE quarantine_id = ?",
                    (name,),
                )
            self.forget_waiting({}, patient=pseudonym)
            self._run("DELETE FROM parts WHERE patient = ?", (pseudonym,))
            self._run("DELETE FROM studies WHERE patient = ?", (pseudonym,))  # series and below follow
        self._forget()

    def withdraw(self, pseudonym: str, spend_key: str = "") -> list[str]:
        """Both halves of a withdrawal where no files lie on the disk; returns the runs that used the patient."""
        withdrawal = self.begin_withdrawal(pseudonym, spend_key)
        self.finish_withdrawal(pseudonym)
        return list(withdrawal.runs)

    # volumes and quality

    def assembled(self) -> dict[str, str]:
        """Series whose volumes were made, with the digest of the images they were made of."""
        return dict(self._all("SELECT series_uid, assembled FROM series WHERE assembled <> ''"))

    def replace_volumes(self, series_uid: str, rows: Iterable[VolumeRow], made_of: str) -> list[str]:
        """Give a series these volumes instead of those it had, and note the digest of its images.

        Returns the files nobody names any more.
        """
        new = list(rows)
        with self.transaction():
            query = "SELECT row FROM volumes WHERE series_uid = ?"
            old = {volume_row(record[0]).file for record in self._all(query, (series_uid,))}
            self._run("DELETE FROM volumes WHERE series_uid = ?", (series_uid,))
            for row in new:
                text = json.dumps(asdict(row))
                self._run("INSERT INTO volumes VALUES (?, ?, ?)", (row.series_uid, row.part, text))
            self._run("UPDATE series SET assembled = ? WHERE series_uid = ?", (made_of, series_uid))
        return sorted(old - {row.file for row in new})

    def volumes(self) -> list[VolumeRow]:
        """Every volume, by series and part."""
        records = self._all("SELECT row FROM volumes ORDER BY series_uid, part")
        return [volume_row(record[0]) for record in records]

    def set_percentiles(self, modality: str, scanner: str, percentiles: Percentiles) -> None:
        """Keep the site's own bounds for one modality and scanner."""
        with self.transaction():
            self._run(
                "INSERT OR REPLACE INTO percentiles VALUES (?, ?, ?, ?)",
                (modality, scanner, percentiles.images, json.dumps(dict(percentiles.bounds))),
            )

    def percentiles(self, modality: str, scanner: str) -> Percentiles | None:
        """The site's own bounds, or None while too few images are here."""
        query = "SELECT images, bounds FROM percentiles WHERE modality = ? AND scanner = ?"
        record = self._one(query, (modality, scanner))
        if record is None:
            return None
        bounds = {name: (low, high) for name, (low, high) in json.loads(record[1]).items()}
        return Percentiles(record[0], bounds)

    # inside

    def _met(self, row: ImageRow) -> tuple[bool, str | None]:
        """Whether its patient withdrew, and the digest of the pixels of the image that has its UID already."""
        record = self._one(MET, (row.patient, row.spend_key, row.sop_uid))
        return (False, None) if record is None else (bool(record[0]), record[1])

    def _place(self, row: ImageRow) -> None:
        self._run(
            "INSERT OR IGNORE INTO patients (pseudonym, spend_key) VALUES (?, ?)",
            (row.patient, row.spend_key),
        )
        self.adopt(row.patient, row.spend_key)
        self._run("INSERT OR IGNORE INTO studies VALUES (?, ?)", (row.study_uid, row.patient))
        self._run(
            "INSERT OR IGNORE INTO series (series_uid, study_uid, modality) VALUES (?, ?, ?)",
            (row.series_uid, row.study_uid, row.modality),
        )
        placed = self._one(PLACED, (row.series_uid, row.study_uid))
        if placed != (row.study_uid, row.modality, row.patient, row.spend_key, row.patient):
            raise _conflict(
                "hierarchy-conflict", "its study or series belongs to another patient or modality"
            )

    def _insert_image(self, row: ImageRow) -> None:
        record = image_record(row)
        marks = ", ".join("?" * len(record))
        self._run(f"INSERT INTO images VALUES ({marks})", record)  # noqa: S608 (question marks only)
        if row.label is not None:
            self._note_label(
                row.sop_uid, GivenLabel(row.label, row.label_source, row.label_version, row.split)
            )


def _conflict(code: str, rule: str) -> FileRefused:
    return FileRefused("an image", rule, "Ask the sender of the file to correct its UIDs", code=code)
