"""Patients counted into the bins of a schema; exact numbers, which stay at the hospital."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np

from client.index import Index
from client.index_rows import ImageRow
from client.site import Site
from client.twins import without_twins
from common.analytics import FIGURES, OTHER, SEVERAL, UNKNOWN, UNLABELLED, Counts, Schema, bin_of, schema_of
from common.errors import DataError
from common.plan import Plan, Task

Patients = dict[str, list[ImageRow]]
"""By the name in the privacy ledger, which no change of pseudonyms changes."""


def patients_of(site: Site, plan: Plan) -> Patients:
    """Every patient with an image of the plan's modalities; pictures that two patients share are left out.

    Raises:
        StorageError: the index cannot be read.
    """
    with Index(site.index) as index:
        rows = [row for row in index.images() if row.modality in plan.input.modalities]
    found: Patients = defaultdict(list)
    for row in without_twins(rows):
        found[row.spend_key].append(row)
    return dict(sorted(found.items()))


def everybody(site: Site) -> frozenset[str]:
    """The names in the ledger of all patients who are here, of whatever modality."""
    with Index(site.index) as index:
        return frozenset(row.spend_key for row in index.patients())


def counted(patients: Patients, plan: Plan, only: Collection[str] | None = None) -> Counts:
    """How many patients stand in each cell.

    Args:
        patients: of `patients_of`.
        plan: its bins and its task.
        only: the patients of the year; all when not given.

    Raises:
        DataError: `data-label` for a label that does not fit the task.
    """
    schema = schema_of(plan)
    counts = np.zeros(schema.size, np.int64)
    tables = schema.tables(counts)
    for name, rows in patients.items():
        if only is not None and name not in only:
            continue
        label = schema.labels.index(_label(rows, plan.task, schema))
        for axis, place in _places(rows, plan.task, schema).items():
            tables[axis][label, place] += 1
    return counts


def _places(rows: Sequence[ImageRow], task: Task, schema: Schema) -> dict[str, int]:
    """The one bin of each axis in which a patient stands."""
    named = {
        "patients": "all",
        "age": _age(rows),
        "sex": _word([row.sex for row in rows]),
        "projection": _word([row.projection for row in rows]),
        "modality": _word([row.modality for row in rows]),
        "manufacturer": _word([_maker(row.manufacturer, schema) for row in rows]),
        "images": _images(len(rows)),
        "finding": _finding(rows, task),
    }
    found = {}
    for axis in schema.axes:
        if axis.name in FIGURES:
            found[axis.name] = _figure(rows, axis.name)
        else:
            word = named[axis.name]
            other = OTHER if OTHER in axis.bins else UNKNOWN
            found[axis.name] = axis.bins.index(word if word in axis.bins else other)
    return found


def _age(rows: Sequence[ImageRow]) -> str:
    ages = [row.age for row in rows if row.age is not None and row.age >= 0]
    if not ages:
        return UNKNOWN
    ten = min(ages) // 10 * 10
    return "90+" if ten >= 90 else f"{ten}-{ten + 9}"


def _word(words: Sequence[str]) -> str:
    """What all images say that say something; several where they disagree."""
    told = {word for word in words if word}
    return told.pop() if len(told) == 1 else SEVERAL if told else UNKNOWN


def _maker(name: str, schema: Schema) -> str:
    wanted = name.strip().casefold()
    bins = schema.axis("manufacturer").bins
    return next((one for one in bins if one.casefold() == wanted), OTHER) if wanted else ""


def _images(count: int) -> str:
    return str(count) if count < 3 else "3-4" if count < 5 else "5-9" if count < 10 else "10+"


def _figure(rows: Sequence[ImageRow], name: str) -> int:
    values = [float(row.quality[name]) for row in rows if name in row.quality]
    return bin_of(name, statistics.median(values)) if values else len(FIGURES[name]) + 1


def _label(rows: Sequence[ImageRow], task: Task, schema: Schema) -> str:
    """The strongest label of a patient's images, as the schema calls it."""
    values = [_numbers(row, task) for row in rows if row.label is not None]
    if not values:
        return UNLABELLED
    if task.kind == "segmentation":
        return schema.labels[0]
    if task.kind == "multiclass":
        return task.classes[int(max(value[0] for value in values))]
    return schema.labels[int(any(any(value) for value in values))]


def _finding(rows: Sequence[ImageRow], task: Task) -> str:
    if task.kind != "multilabel":
        return ""
    told = [_numbers(row, task) for row in rows if row.label is not None]
    there = [name for place, name in enumerate(task.classes) if any(value[place] for value in told)]
    return there[0] if len(there) == 1 else SEVERAL if there else "none"


def _numbers(row: ImageRow, task: Task) -> tuple[float, ...]:
    values = row.label if isinstance(row.label, tuple) else (row.label,)
    numbers = tuple(float(value) for value in values if value is not None)
    count = len(task.classes) if task.kind == "multilabel" else 1
    allowed = range(len(task.classes)) if task.kind == "multiclass" else (0, 1)
    if task.kind != "segmentation" and (len(numbers) != count or any(one not in allowed for one in numbers)):
        raise DataError(
            "the label table",
            f"a label does not fit a {task.kind} task with {len(task.classes)} class(es)",
            "Put it right, or ask for another task",
            code="data-label",
        )
    return numbers
