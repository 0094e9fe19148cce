"""Labels to images, by keyed names on both sides, and the laws that the joined whole must keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from client.deid.pseudonyms import Pseudonyms
from client.index import ImageRow
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

    images: tuple[Known, ...]
    refused: tuple[Mapping[str, str], ...] = ()
    nameless: int = 0


@dataclass(frozen=True)
class Joined:
    """Images with their labels; `labelled` holds every image a label was found for."""

    labelled: Mapping[str, ImageRow] = field(default_factory=dict)
    """By SOP instance UID, with label, source, version and split set."""
    without_image: int = 0


def join(
    table: LabelTable, arrived: Arrived, names: Pseudonyms, earlier: Callable[[], Iterable[Known]]
) -> Joined:
    """Find the images of every label and check the whole.

    Args:
        table: the labels.
        arrived: the folder.
        names: the site's pseudonyms.
        earlier: gives the images of the index that were not in this folder; asked only when labels are left over.

    Raises:
        LabelError: a label has no image at all, or contradicts an earlier one of the same version.
        DataError: a patient in two splits; labels of one class only.
    """
    rows = {keyed(table.kind, key, names): row for key, row in table.rows.items()}
    labelled, used = _match(table, rows, arrived.images)
    left = rows.keys() - used
    if left:
        more, also_used = _match(table, {name: rows[name] for name in left}, earlier())
        labelled |= more
        left -= also_used
    refused = {keys[table.kind] for keys in arrived.refused if table.kind in keys}
    missing = sorted(rows[name].line for name in left - refused)
    if len(missing) > arrived.nameless:
        others = f" ({len(missing)} labels have none)" if len(missing) > 1 else ""
        raise table.error(
            missing[0],
            f"its image is not in the folder{others}",
            "Add the images, or remove the lines",
        )
    return Joined(labelled, len(left))


def keyed(kind: str, key: str, names: Pseudonyms) -> str:
    """A table's key as images know it."""
    if kind == "accession":
        return names.accession(key)
    return names.join("path", key) if kind == "path" else names.uid(key)


def _match(
    table: LabelTable, rows: Mapping[str, LabelRow], images: Iterable[Known]
) -> tuple[dict[str, ImageRow], set[str]]:
    labelled: dict[str, ImageRow] = {}
    used: set[str] = set()
    for image in images:
        name = image.keys.get(table.kind, "")
        row = rows.get(name)
        if row is None:
            continue
        used.add(name)
        _check_version(table, row, image.row)
        labelled[image.row.sop_uid] = replace(
            image.row, label=row.label, label_source=row.source, label_version=row.version, split=row.split
        )
    return labelled, used


def _check_version(table: LabelTable, row: LabelRow, image: ImageRow) -> None:
    same = (image.label_source, image.label_version) == (row.source, row.version)
    if image.label is not None and same and image.label != row.label:
        raise table.error(
            row.line,
            "it contradicts the label that this site holds under the same source and version",
            "Give the corrected labels a new version",
        )


def check_whole(table: LabelTable, images: Iterable[ImageRow]) -> None:
    """Check what the index would hold: no patient in two splits, more than one class.

    Args:
        table: named in the error.
        images: every image of the site as it would be.

    Raises:
        DataError: `data-splits`, `data-one-class`.
    """
    splits: dict[str, str] = {}
    classes: set[object] = set()
    only_test = True
    for image in images:
        if image.label is None:
            continue
        classes.add(image.label)
        only_test = only_test and image.split == "test"
        if image.split and splits.setdefault(image.patient, image.split) != image.split:
            raise DataError(
                table.name,
                f"a patient stands in two splits, {splits[image.patient]} and {image.split}",
                "Give every image of a patient the same split",
                code="data-splits",
            )
    if len(classes) == 1 and not only_test:
        raise DataError(
            table.name,
            "all labels are of one class, so nothing can be learned from them",
            "Add images of the other class, or mark every line split = test",
            code="data-one-class",
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
