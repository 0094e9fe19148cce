"""The rows of one hospital as patients: training, validation and test, one row a patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from client.dataset import SiteData
from client.patients import PatientSet
from client.splits import PARTS, Part, draw_parts
from common.plan import Data
from simulations.tables.columns import encode
from simulations.tables.study import Table

Row = Mapping[str, str]


def patients(site: str, rows: Sequence[Row], table: Table, data: Data) -> SiteData:
    """The patients of a site, split.

    Where the table names test rows, those are tested on, and `data.validation_fraction` of the others validate.

    Args:
        site: names its patients.
        rows: of this site.
        table: how they are read.
        data: fractions and seed of the plan.

    Raises:
        DataError: what the columns do not allow, or too few rows to split.
    """
    names = [f"{site}-{number:05d}" for number in range(len(rows))]
    parts = _parts(dict(zip(names, rows, strict=True)), table, data)
    trained = np.array([parts[name] == "train" for name in names])
    images = encode(rows, table.columns)
    whole = PatientSet(
        images=images if table.scaling == "constants" else _standard(images, trained),
        rows=np.arange(len(rows), dtype=np.int64),
        labels=np.array([[float(row[table.label])] for row in rows], dtype=np.float32),
        patient_of=np.arange(len(rows), dtype=np.int64),
        pseudonyms=names,
        spend_keys=names,
    )
    train, validation, test = (
        whole.subset([number for number, name in enumerate(names) if parts[name] == part]) for part in PARTS
    )
    return SiteData(train, validation, test)


def _standard(images: npt.NDArray[np.float32], trained: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Every number with mean 0 and standard deviation 1 over the training patients; one that never changes is 0."""
    known = images[trained].astype(np.float64)
    spread = known.std(axis=0)
    centred = images - known.mean(axis=0)
    scaled: npt.NDArray[np.float32] = np.where(
        spread > 0, centred / np.where(spread > 0, spread, 1), 0
    ).astype(np.float32)
    return scaled


def _parts(rows: Mapping[str, Row], table: Table, data: Data) -> dict[str, Part]:
    kinds = {name: row[table.label] for name, row in rows.items()}
    if not table.part:
        return draw_parts(kinds, data)
    tested = {name for name, row in rows.items() if row[table.part] == "test"}
    # All the others are drawn as if there were no test part: its fraction must be above zero, and its patients train.
    drawn = draw_parts(
        {name: kind for name, kind in kinds.items() if name not in tested}, replace(data, test_fraction=1e-9)
    )
    named: dict[str, Part] = dict.fromkeys(tested, "test")
    return named | {name: "train" if part == "test" else part for name, part in drawn.items()}
