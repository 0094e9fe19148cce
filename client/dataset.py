"""From the index and the store to the three sets of patients a plan trains, validates and tests on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from client.index import ImageRow, Index
from client.patients import PatientSet, concat
from client.site import Site
from client.splits import PARTS, Part, draw_parts, explicit_part, public_bucket, split_key
from client.store import Progress, Store, build_store
from client.twins import without_twins
from common.errors import DataError
from common.plan import Plan, Task

__all__ = ["PatientSet", "SiteData", "age_band", "concat", "load_dataset", "public_bucket"]

AGE_BANDS: Final = ((18, "0-17"), (40, "18-39"), (60, "40-59"), (80, "60-79"))
"""Upper ends in years, exclusive, and names; above the last: `80+`."""
UNKNOWN: Final = "unknown"
FEWEST_TO_SPLIT: Final = 3
"""One patient each for training, validation and test; what `policy.min_patients` asks comes on top."""

Labels = dict[str, tuple[float, ...]]
"""Image (SOP instance UID) to its label as numbers."""


@dataclass(frozen=True)
class SiteData:
    """A site's patients, split. Sets may be empty; an external site has all its patients in `test`."""

    train: PatientSet
    validation: PatientSet
    test: PatientSet
    state: str = ""
    """Of the images in the index from which it was read (`client.index_uses`)."""


def load_dataset(site: Site, plan: Plan, progress: Progress | None = None) -> SiteData:
    """The labelled patients of a site as the plan wants them, preprocessed if they are not yet.

    Who is given a part here keeps it: the index remembers it, for this seed and these fractions. A picture
    that stands under two patients is left out (`client.twins`).

    Args:
        site: whose index and store are read.
        plan: its task, input and data sections decide.
        progress: called with (images preprocessed, images to preprocess).

    Raises:
        DataError: `data-empty`, `data-label`, `data-split-conflict`, `data-few-patients`, `data-one-class`.
        StorageError: index or store unreadable, or the disk full.
    """
    with Index(site.index) as index:
        state = (
            index.state_of_images()
        )  # first: what changes meanwhile makes it an older one, never a newer one
        images = index.images()
        labelled = _labelled(site, images, plan)
        labels = {row.sop_uid: _label(row, plan.task) for row in labelled}
        # Whoever cannot train is refused before anything is made.
        parts, new = _drawn(site, index, labelled, labels, plan)
    store = build_store(site, plan.input, progress, images=images)
    if new:
        with Index(site.index) as index:
            parts = _settled(site, index, labelled, labels, plan)
    chosen = {
        part: _patient_set([row for row in labelled if parts[row.patient] == part], labels, store, plan)
        for part in PARTS
    }
    return SiteData(chosen["train"], chosen["validation"], chosen["test"], state)


def age_band(age: int | None) -> str:
    """The band an age in years falls into, or `unknown`."""
    if age is None or age < 0:
        return UNKNOWN
    return next((name for end, name in AGE_BANDS if age < end), "80+")


def _label(row: ImageRow, task: Task) -> tuple[float, ...]:
    """A label as numbers: one for binary and multiclass, one per class for multilabel."""
    values = row.label if isinstance(row.label, tuple) else (row.label,)
    numbers = tuple(float(value) for value in values if value is not None)
    count = len(task.classes) if task.kind == "multilabel" else 1
    allowed = range(len(task.classes)) if task.kind == "multiclass" else (0, 1)
    if len(numbers) != count or any(number not in allowed for number in numbers):
        raise DataError(
            "the label table",
            f"a label does not fit a {task.kind} task with {len(task.classes)} class(es)",
            f"Use {_wanted(task)}",
            code="data-label",
        )
    return numbers


def _wanted(task: Task) -> str:
    if task.kind == "multiclass":
        return f"whole numbers from 0 to {len(task.classes) - 1}"
    return "0 or 1" if task.kind == "binary" else f"{len(task.classes)} values of 0 or 1"


def _labelled(site: Site, rows: Sequence[ImageRow], plan: Plan) -> list[ImageRow]:
    images = [row for row in rows if row.modality in plan.input.modalities]
    own = without_twins(images)  # of all images: an unlabelled one may tell that a labelled one is shared
    labelled = [row for row in own if row.label is not None]
    if not labelled:
        raise DataError(
            f"site {site.name}",
            f"no labelled image of modality {', '.join(plan.input.modalities)} is in the index",
            "Ingest a folder with its label table first",
            code="data-empty",
        )
    return labelled


def _settled(
    site: Site, index: Index, rows: Sequence[ImageRow], labels: Labels, plan: Plan
) -> dict[str, Part]:
    """Every labelled patient's part, written down; nothing is written where nothing is new."""
    parts, new = _drawn(site, index, rows, labels, plan)
    if new:
        with index.transaction():
            parts, new = _drawn(site, index, rows, labels, plan)  # another process may have been first
            index.keep_parts(split_key(plan.data), new)
    return parts


def _drawn(
    site: Site, index: Index, rows: Sequence[ImageRow], labels: Labels, plan: Plan
) -> tuple[dict[str, Part], dict[str, Part]]:
    """Every labelled patient's part, checked; and those of them that the index does not know yet."""
    known = cast("dict[str, Part]", index.parts(split_key(plan.data)))
    parts = _parts(rows, labels, plan, known)
    _check(site, parts, [labels[row.sop_uid] for row in rows if parts[row.patient] == "train"])
    _check_unused(rows, index)
    return parts, {patient: part for patient, part in parts.items() if known.get(patient) != part}


def _parts(
    rows: Sequence[ImageRow], labels: Labels, plan: Plan, known: Mapping[str, Part]
) -> dict[str, Part]:
    """Every labelled patient's part: the one named, else the one they have, else a drawn one."""
    splits: dict[str, set[str]] = defaultdict(set)
    kinds: dict[str, Hashable] = {}
    for row in rows:
        splits[row.patient].add(row.split)
        kinds[row.patient] = max(kinds.get(row.patient, ()), labels[row.sop_uid], key=_weight)
    named = {patient: explicit_part(found) for patient, found in splits.items()}
    free = {patient: kinds[patient] for patient, part in named.items() if part is None}
    if free and len(free) == len(named) < FEWEST_TO_SPLIT:
        raise _few(len(named), FEWEST_TO_SPLIT, "labelled patients")
    drawn = draw_parts(free, plan.data, known)
    return {patient: part for patient, part in named.items() if part is not None} | drawn


def _check_unused(rows: Sequence[ImageRow], index: Index) -> None:
    """Whom a run has trained on cannot be named a test patient afterwards."""
    tested = {row.patient for row in rows if row.split == "test"}
    used = tested & index.trained_on() if tested else set()
    if used:
        raise DataError(
            "the label table",
            f"it names {len(used)} patient(s) for test whom a recorded run has trained or validated on",
            "Give them back the split they had, or none",
            code="data-split-conflict",
        )


def _weight(label: Any) -> tuple[float, ...]:
    """A patient counts as their most affected image: more findings first, then the higher class."""
    return (sum(label), *label) if label else (-1.0,)


def _patient_set(rows: Sequence[ImageRow], labels: Labels, store: Store, plan: Plan) -> PatientSet:
    place = store.row_of
    ordered = sorted(rows, key=lambda row: (row.patient, row.sop_uid))
    patients = {row.patient: row.spend_key for row in ordered}
    number = {patient: n for n, patient in enumerate(patients)}
    values = np.array([labels[row.sop_uid] for row in ordered], dtype=np.float32)
    values = values.reshape(len(ordered), plan.task.outputs if plan.task.kind == "multilabel" else 1)
    return PatientSet(
        images=store.images,
        rows=np.array([place[row.sop_uid] for row in ordered], dtype=np.int64),
        labels=values[:, 0].astype(np.int64) if plan.task.kind == "multiclass" else values,
        patient_of=np.array([number[row.patient] for row in ordered], dtype=np.int64),
        pseudonyms=list(patients),
        spend_keys=list(patients.values()),
        attributes=_attributes(ordered),
    )


def _attributes(rows: Sequence[ImageRow]) -> dict[str, npt.NDArray[np.str_]]:
    columns = {
        "manufacturer": [row.manufacturer for row in rows],
        "model": [row.model for row in rows],
        "scanner": [row.scanner for row in rows],
        "projection": [row.projection for row in rows],
        "sex": [row.sex for row in rows],
        "age": [age_band(row.age) for row in rows],
    }
    return {
        name: np.array([value or UNKNOWN for value in column], dtype=np.str_)
        for name, column in columns.items()
    }


def _check(site: Site, parts: Mapping[str, Part], training: Sequence[tuple[float, ...]]) -> None:
    """A site that trains has enough patients and more than one class; one that only tests may have neither.

    Checked before anything is preprocessed, so that a refused site's store stays as it was.
    """
    counts = Counter(parts.values())
    if not counts["train"] and not counts["validation"]:
        return
    if counts["train"] < site.policy.min_patients:
        raise _few(counts["train"], site.policy.min_patients, "training patients (policy.min_patients)")
    if all(len(set(column)) < 2 for column in zip(*training, strict=True)):
        raise DataError(
            f"site {site.name}",
            "all training patients have the same label",
            "Add images of the other class, or let this site test only (split = test)",
            code="data-one-class",
        )


def _few(have: int, need: int, what: str) -> DataError:
    return DataError(
        "this site",
        f"it has {have} {what}, {need} are needed",
        "Ingest more patients, or leave this site out of the study",
        code="data-few-patients",
    )
