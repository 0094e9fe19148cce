"""What the index remembers of labels: every one ever given, which of them counts, and those that wait.

The rule by which one label of an image is the current one:
1. A label new to the image becomes current, and with it its source: a later reader's table is taken in
   to be used. With `keep_current` it is kept beside the current one and changes nothing.
2. Within the current source the highest version counts; versions are compared by their numbers (`2` < `10`).
3. A label that is there already (same source, version and value) changes nothing, however often it comes.
4. The same source and version with another value is refused: corrected labels have a new version.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from client.index_rows import GivenLabel, Label, WaitingLabel, label_of, label_text
from client.index_uses import Uses, now
from common.errors import DataError, LabelError

_LABELS_OF = "SELECT label, source, version, split, at FROM labels WHERE sop_uid = ? ORDER BY id"
_LABELS = (
    "SELECT l.sop_uid, l.label, l.source, l.version, l.split, l.at FROM labels l "
    "JOIN images i USING (sop_uid) JOIN series s USING (series_uid) JOIN studies t USING (study_uid) "
    "JOIN patients p ON p.pseudonym = t.patient WHERE p.withdrawn_at IS NULL ORDER BY l.id"
)
_WAITING = (
    "SELECT id, kind, name, keep_current, patient, label, source, version, split, at FROM labels_waiting "
)


class Labels(Uses):
    """The tables of labels and of those that wait; written through `client.index.Index` only."""

    def add_label(self, sop_uid: str, given: GivenLabel, *, keep_current: bool = False) -> bool:
        """Give an image one more label; by the rule above it becomes the current one, or stands beside it.

        A label that says nothing of a split keeps the one the image has; another split under the same source and version counts
        as new and takes the place of the one before.

        Returns:
            whether the label, or its split, was new to the image.

        Raises:
            DataError: there is no such image, or the label is none.
            LabelError: `labels-version`: it contradicts a label of the same source and version.
        """
        with self.transaction():
            held = self._one("SELECT label, label_source, split FROM images WHERE sop_uid = ?", (sop_uid,))
            if held is None:
                raise DataError(
                    "a label", "it names an image that is not in the index", "Ingest the image first"
                )
            if not self._note_label(sop_uid, given):
                return False
            if held[0] is None or not keep_current or held[1] == given.source:
                best = self._newest(sop_uid, given.source)
                self._run(
                    "UPDATE images SET label = ?, label_source = ?, label_version = ?, split = ? WHERE sop_uid = ?",
                    (
                        label_text(best.label),
                        best.source,
                        best.version,
                        held[2] if best.split is None else best.split,
                        sop_uid,
                    ),
                )
            return True

    def set_label(self, sop_uid: str, label: Label, *, source: str, version: str, split: str = "") -> None:
        """Give an image another label, as a newer label table does; see `add_label`."""
        self.add_label(sop_uid, GivenLabel(label, source, version, split))

    def labels_of(self, sop_uid: str) -> list[GivenLabel]:
        """Every label this image was ever given, oldest first."""
        records = self._all(_LABELS_OF, (sop_uid,))
        return [_given(record) for record in records]

    def labels(self) -> dict[str, list[GivenLabel]]:
        """Image to every label it was ever given, oldest first; of images that are not withdrawn."""
        found: dict[str, list[GivenLabel]] = defaultdict(list)
        for record in self._all(_LABELS):
            found[record[0]].append(_given(record[1:]))
        return dict(found)

    # labels whose image is not here

    def wait_for_image(self, waiting: Iterable[WaitingLabel]) -> int:
        """Remember labels until their image comes; the same again changes nothing.

        Returns:
            how many were new.

        Raises:
            LabelError: `labels-version`: one contradicts a waiting label of the same source and version.
        """
        with self.transaction():
            return sum(self._wait(one) for one in waiting)

    def waiting(self) -> list[WaitingLabel]:
        """Every label that waits, oldest first."""
        return [_waiting(record) for record in self._all(_WAITING + "ORDER BY id")]

    def waiting_for(self, keys: Mapping[str, str]) -> list[WaitingLabel]:
        """The labels that wait for an image of these keyed names (kind to name), oldest first."""
        query = _WAITING + "WHERE kind = ? AND name = ?"
        found = [record for pair in keys.items() for record in self._all(query, pair)]
        return [_waiting(record) for record in sorted(found)]

    def forget_waiting(self, keys: Mapping[str, str], *, patient: str = "") -> int:
        """Drop the labels that wait for these keyed names, and for this patient when one is named."""
        with self.transaction():
            gone = sum(
                self._run("DELETE FROM labels_waiting WHERE kind = ? AND name = ?", pair)
                for pair in keys.items()
            )
            if patient:
                gone += self._run("DELETE FROM labels_waiting WHERE patient = ?", (patient,))
            return gone

    # inside

    def _note_label(self, sop_uid: str, given: GivenLabel) -> bool:
        text = label_text(given.label)
        if text is None:
            raise DataError("a label", "it has no value", "Leave the line out")
        before = self._one(
            "SELECT label, split FROM labels WHERE sop_uid = ? AND source = ? AND version = ?",
            (sop_uid, given.source, given.version),
        )
        if before is not None:
            if before[0] != text:
                raise _contradiction()
            if given.split in (None, before[1]):
                return False
            self._run(
                "UPDATE labels SET split = ? WHERE sop_uid = ? AND source = ? AND version = ?",
                (given.split, sop_uid, given.source, given.version),
            )
            return True
        self._run(
            "INSERT INTO labels (sop_uid, source, version, label, split, at) VALUES (?, ?, ?, ?, ?, ?)",
            (sop_uid, given.source, given.version, text, given.split, now()),
        )
        return True

    def _newest(self, sop_uid: str, source: str) -> GivenLabel:
        of_source = [given for given in self.labels_of(sop_uid) if given.source == source]
        return max(of_source, key=lambda given: version_key(given.version))

    def _wait(self, one: WaitingLabel) -> bool:
        given, text = one.given, label_text(one.given.label)
        before = self._one(
            "SELECT label FROM labels_waiting WHERE kind = ? AND name = ? AND source = ? AND version = ?",
            (one.kind, one.name, given.source, given.version),
        )
        if before is not None:
            if before[0] != text:
                raise _contradiction()
            return False
        self._run(
            "INSERT INTO labels_waiting (kind, name, keep_current, patient, label, source, version, split, at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(one.kind, one.name, int(one.keep_current), one.patient),
                *(text, given.source, given.version, given.split, now()),
            ),
        )
        return True


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """The order of versions: runs of digits as numbers, the rest as text, so that 1.9 < 1.10 < 2."""
    parts = re.findall(r"\d+|[^\d.]+", version)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


def _given(record: tuple[Any, ...]) -> GivenLabel:
    return GivenLabel(label_of(record[0]), *record[1:])


def _waiting(record: tuple[Any, ...]) -> WaitingLabel:
    _, kind, name, keep_current, patient, *given = record
    return WaitingLabel(kind, name, _given(tuple(given)), bool(keep_current), patient)


def _contradiction() -> LabelError:
    return LabelError(
        "a label",
        "it contradicts the label that this site holds under the same source and version",
        "Give the corrected labels a new version",
        code="labels-version",
    )
