"""Labels to images, by keyed names on both sides, and the laws that the joined whole must keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from client.deid.pseudonyms import Pseudonyms
from client.index import GivenLabel, ImageRow, WaitingLabel
from client.index_labels import OF_A_STUDY, choose
from client.intake.labels import LabelRow, LabelTable
from common.errors import DataError, LabelError


@dataclass(frozen=True)
class Known:
    """One image of this ingestion or of the index, with the keyed names a label may use for it."""

    row: ImageRow
    keys: Mapping[str, str]


@dataclass(frozen=True)
class Arrived:
    """What came in this folder: images kept, names of those refused, files that told no name at all."""

    images: tuple[Known, ...] = ()
    refused: tuple[Mapping[str, str], ...] = ()
    """Keyed names, and the pseudonym under `patient` where the file told it."""
    nameless: int = 0


@dataclass(frozen=True)
class Joined:
    """Labels with their images, and labels that wait for theirs."""

    labelled: Mapping[str, ImageRow] = field(default_factory=dict)
    """By SOP instance UID every image a label was found for, with what is its current one after that."""
    given: Mapping[str, GivenLabel] = field(default_factory=dict)
    """By SOP instance UID the label that was found."""
    waiting: tuple[WaitingLabel, ...] = ()
    """Labels to remember for images that come later."""
    without_image: int = 0
    keep_current: bool = False


@dataclass(frozen=True)
class Shelf:
    """What a join needs to know of the site."""

    names: Pseudonyms
    earlier: Callable[[], Iterable[Known]]
    """Gives the images of the index that were not in this folder; asked only when labels are left over."""
    history: Callable[[str], Sequence[GivenLabel]]
    """Every label that an image, by its UID, was ever given."""
    keep_current: bool = False
    """Whether labels of another source stand beside the current ones instead of taking their place."""
    may_wait: bool = False
    """Whether labels without any image wait for it; otherwise they are an error."""


def join(table: LabelTable, arrived: Arrived, shelf: Shelf) -> Joined:
    """Find the images of every label and check the whole.

    Raises:
        LabelError: a label has no image at all, or contradicts an earlier one of the same version.
    """
    match = _Match(
        table, {keyed(table.kind, key, shelf.names): row for key, row in table.rows.items()}, shelf
    )
    match.take(arrived.images)
    if match.left():
        match.take(shelf.earlier())
    left = match.left()
    refused = {keys[table.kind]: keys.get("patient", "") for keys in arrived.refused if table.kind in keys}
    missing = sorted(match.rows[name].line for name in left - refused.keys())
    if len(missing) > arrived.nameless and not shelf.may_wait:
        others = f" ({len(missing)} labels have none)" if len(missing) > 1 else ""
        raise table.error(
            missing[0],
            f"its image is not in the folder{others}",
            "Add the images, remove the lines, or let such labels wait: consilium-site labels add",
        )
    waiting = [match.waits(name, refused.get(name, "")) for name in match.rows]
    kept = tuple(one for one in waiting if one is not None)
    return Joined(match.labelled, match.given, kept, len(left), shelf.keep_current)


@dataclass
class _Match:
    """One table on its way to its images."""

    table: LabelTable
    rows: Mapping[str, LabelRow]
    shelf: Shelf
    labelled: dict[str, ImageRow] = field(default_factory=dict)
    given: dict[str, GivenLabel] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    """Keyed name of a label that found an image to the patient."""

    def left(self) -> set[str]:
        """Names of the labels that found no image."""
        return self.rows.keys() - self.owners.keys()

    def take(self, images: Iterable[Known]) -> None:
        """Give each image its label, where there is one."""
        for image in images:
            name = image.keys.get(self.table.kind, "")
            row = self.rows.get(name)
            if row is not None:
                self.owners[name] = image.row.patient
                self.given[image.row.sop_uid] = given = _given(row)
                self.labelled[image.row.sop_uid] = self._current(image.row, row.line, given)

    def waits(self, name: str, patient: str) -> WaitingLabel | None:
        """A label to be remembered: one without an image, or one of a study of which more may come."""
        met = name in self.owners
        if met and self.table.kind not in OF_A_STUDY:
            return None
        owner = self.owners.get(name, patient)
        given = _given(self.rows[name])
        return WaitingLabel(self.table.kind, name, given, self.shelf.keep_current, met, owner)

    def _current(self, image: ImageRow, line: int, given: GivenLabel) -> ImageRow:
        held = None
        if image.label is not None:
            held = GivenLabel(image.label, image.label_source, image.label_version, image.split)
        history = self.shelf.history(image.sop_uid)
        try:
            chosen = choose(held, history, given, keep_current=self.shelf.keep_current)
        except LabelError as error:
            raise self.table.error(line, error.rule, error.remedy) from None
        split = image.split if chosen.split is None else chosen.split
        return replace(
            image,
            label=chosen.label,
            label_source=chosen.source,
            label_version=chosen.version,
            split=split,
        )


def _given(row: LabelRow) -> GivenLabel:
    return GivenLabel(row.label, row.source, row.version, row.split)


def keyed(kind: str, key: str, names: Pseudonyms) -> str:
    """A table's key as images know it."""
    if kind == "accession":
        return names.accession(key)
    return names.join("path", key) if kind == "path" else names.uid(key)


def check_whole(table: LabelTable, images: Iterable[ImageRow], waiting: Iterable[WaitingLabel] = ()) -> None:
    """Check what the index would hold: no patient in two splits, more than one class.

    Args:
        table: named in the error.
        images: every image of the site as it would be.
        waiting: labels whose images may still come; of another class, they are enough.

    Raises:
        DataError: `data-splits`, `data-one-class`.
    """
    labelled = [image for image in images if image.label is not None]
    check_splits(table.name, ((image.patient, image.split) for image in labelled))
    classes = {image.label for image in labelled}
    if len(classes | {one.given.label for one in waiting}) > 1:
        return
    if classes and any(image.split != "test" for image in labelled):
        raise DataError(
            table.name,
            "all labels are of one class, so nothing can be learned from them",
            "Add images of the other class, or mark every line split = test",
            code="data-one-class",
        )


def check_splits(subject: str, named: Iterable[tuple[str, str | None]]) -> None:
    """Check that no patient stands in two splits.

    Args:
        subject: named in the error.
        named: pseudonym and the split that an image names, or nothing.

    Raises:
        DataError: `data-splits`.
    """
    splits: dict[str, str] = {}
    for patient, split in named:
        if split and splits.setdefault(patient, split) != split:
            raise DataError(
                subject,
                f"a patient stands in two splits, {splits[patient]} and {split}",
                "Give every image of a patient the same split",
                code="data-splits",
            )


def check_labelled(table: LabelTable, unlabelled: int) -> None:
    """Check that every image of the folder has a label.

    Raises:
        LabelError: `labels-incomplete`.
    """
    if unlabelled:
        raise LabelError(
            table.name,
            f"it has no label for {unlabelled} image{'' if unlabelled == 1 else 's'} of the folder",
            "Add the labels, or take such images in without one by --allow-unlabelled",
            code="labels-incomplete",
        )
