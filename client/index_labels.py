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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from client.index_rows import GivenLabel, Label, WaitingLabel, label_of, label_text
from client.index_uses import Uses, now
from common.errors import DataError, LabelError

_CURRENT = "SELECT label, label_source, label_version, split FROM images WHERE sop_uid = ?"
_LABELS_OF = "SELECT label, source, version, split, at FROM labels WHERE sop_uid = ? ORDER BY id"
_LABELS = (
    "SELECT l.sop_uid, l.label, l.source, l.version, l.split, l.at FROM labels l "
    "JOIN images i USING (sop_uid) JOIN series s USING (series_uid) JOIN studies t USING (study_uid) "
    "JOIN patients p ON p.pseudonym = t.patient WHERE p.withdrawn_at IS NULL ORDER BY l.id"
)
_WAITING = "SELECT id, kind, name, keep_current, met, patient, label, source, version, split, at FROM labels_waiting "


OF_A_STUDY: Final = frozenset({"accession", "study"})
"""What names several images, some of which may come later."""


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
            held = self._one(_CURRENT, (sop_uid,))
            if held is None:
                raise DataError(
                    "a label", "it names an image that is not in the index", "Ingest the image first"
                )
            before = None if held[0] is None else GivenLabel(label_of(held[0]), *held[1:])
            chosen = choose(before, self.labels_of(sop_uid), given, keep_current=keep_current)
            if not self._note_label(sop_uid, given):
                return False
            split = held[3] if chosen.split is None else chosen.split
            self._run(
                "UPDATE images SET label = ?, label_source = ?, label_version = ?, split = ? WHERE sop_uid = ?",
                (label_text(chosen.label), chosen.source, chosen.version, split, sop_uid),
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
        """Remember labels for images that come later; the same again changes nothing.

        Returns:
            how many were new and have no image yet.

        Raises:
            LabelError: `labels-version`: one contradicts an earlier one of the same source and version.
        """
        with self.transaction():
            return sum(self._wait(one) and not one.met for one in waiting)

    def waiting(self) -> list[WaitingLabel]:
        """Every label whose image is not here, oldest first."""
        return [_waiting(record) for record in self._all(_WAITING + "WHERE NOT met ORDER BY id")]

    def named(self, keys: Mapping[str, str]) -> list[WaitingLabel]:
        """The labels that an image of these keyed names would be given when it comes, oldest first."""
        return [_waiting(record) for record in self._named(keys)]

    def join_waiting(self, sop_uid: str, patient: str, keys: Mapping[str, str]) -> int:
        """Give an image that has just come the labels that wait for it, oldest first.

        Those of a study stay, for its images that come later; they go with the patient.

        Args:
            sop_uid: of the image, which is in the index.
            patient: its pseudonym.
            keys: what the table may go by, to the keyed name of this image.

        Returns:
            how many labels the image was given.
        """
        joined = 0
        with self.transaction():
            for record in self._named(keys):
                one = _waiting(record)
                joined += self.add_label(sop_uid, one.given, keep_current=one.keep_current)
                if one.kind in OF_A_STUDY:
                    values = (patient, record[0])
                    self._run("UPDATE labels_waiting SET met = 1, patient = ? WHERE id = ?", values)
                else:
                    self._run("DELETE FROM labels_waiting WHERE id = ?", (record[0],))
        return joined

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

    def _named(self, keys: Mapping[str, str]) -> list[tuple[Any, ...]]:
        if self._one("SELECT 1 FROM labels_waiting LIMIT 1") is None:
            return []  # nearly always; every image asks
        query = _WAITING + "WHERE kind = ? AND name = ?"
        return sorted(record for pair in keys.items() for record in self._all(query, pair))

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

    def _wait(self, one: WaitingLabel) -> bool:
        given, text = one.given, label_text(one.given.label)
        before = self._one(
            "SELECT id, label FROM labels_waiting WHERE kind = ? AND name = ? AND source = ? AND version = ?",
            (one.kind, one.name, given.source, given.version),
        )
        if before is None:
            self._run(
                "INSERT INTO labels_waiting (kind, name, keep_current, met, patient, label, source, version, split, at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(one.kind, one.name, int(one.keep_current), int(one.met), one.patient),
                    *(text, given.source, given.version, given.split, now()),
                ),
            )
            return True
        if before[1] != text:
            raise _contradiction()
        if one.patient:
            values = (int(one.met), one.patient, before[0])
            self._run("UPDATE labels_waiting SET met = MAX(met, ?), patient = ? WHERE id = ?", values)
        return False


def choose(
    held: GivenLabel | None, history: Sequence[GivenLabel], given: GivenLabel, *, keep_current: bool = False
) -> GivenLabel:
    """Which label is an image's current one after `given`, by the rule above.

    Args:
        held: the current one.
        history: every label the image was ever given.
        given: the one that comes now.
        keep_current: whether it stands beside the current one.

    Raises:
        LabelError: `labels-version`.
    """
    there = {(one.source, one.version): one for one in history}
    same = there.get((given.source, given.version))
    if same is not None and same.label != given.label:
        raise _contradiction()
    if held is not None and same is not None and given.split in (None, same.split):
        return held
    if held is not None and keep_current and held.source != given.source:
        return held
    of_source = [one for one in there.values() if one.source == given.source and one is not same]
    return max([*of_source, given], key=lambda one: version_key(one.version))


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """The order of versions: runs of digits as numbers, the rest as text, so that 1.9 < 1.10 < 2."""
    parts = re.findall(r"\d+|[^\d.]+", version)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


def _given(record: tuple[Any, ...]) -> GivenLabel:
    return GivenLabel(label_of(record[0]), *record[1:])


def _waiting(record: tuple[Any, ...]) -> WaitingLabel:
    _, kind, name, keep_current, met, patient, *given = record
    return WaitingLabel(kind, name, _given(tuple(given)), bool(keep_current), bool(met), patient)


def _contradiction() -> LabelError:
    return LabelError(
        "a label",
        "it contradicts the label that this site holds under the same source and version",
        "Give the corrected labels a new version",
        code="labels-version",
    )
