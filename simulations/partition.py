"""One table of real images becomes many sites: by nature, by scanner, by a Dirichlet draw, or by size.

Sites may share patients (one hospital cut in two), so the split belongs to the patient, never to the
site or the image: a patient who is tested anywhere is trained on nowhere. Patients are dealt within
strata of (their sites, their label), so that every site keeps its prevalence in every split.
"""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated

from common.errors import LabelError, StorageError

Row = Mapping[str, str]

COLUMNS: Final = ("path", "label", "source", "version", "split", "patient_id", "age", "sex", "view")
"""What a site's table holds; paths are relative to the folder of the table they came from."""
_NEEDED: Final = ("path", "label", "patient_id")
_SITE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
OLDEST: Final = 120


@dataclass(frozen=True)
class Splits:
    """How patients are dealt: a seed, two fractions, and the sites that only test."""

    seed: int
    test_fraction: float
    validation_fraction: float
    external: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        test, validation = self.test_fraction, self.validation_fraction
        if not (0 <= test < 1 and 0 <= validation < 1 and test + validation < 1):
            raise LabelError(
                "split fractions", "must be at least 0 and leave patients to train", "Give e.g. 0.2 and 0.1"
            )


@validated(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Cut:
    """`[scenario.cut]`: how one table becomes sites."""

    by: Literal["column", "dirichlet", "size"] = "column"
    """`column`: a site for each value of it. `dirichlet`: patients dealt so that prevalence differs. `size`: dealt without
    regard for their label, so that only the number of patients differs."""
    column: str = "site"
    """The natural sites by default; a column of scanners cuts by scanner."""
    sites: Annotated[int, Field(ge=1)] = 4
    """How many; by `dirichlet` and `size`."""
    alpha: Annotated[float, Field(gt=0)] = 0.5
    """By `dirichlet`: its concentration (Hsu et al. 2019); smaller is more skew."""
    exponent: Annotated[float, Field(ge=0)] = 1.0
    """By `size`: site k has a share in proportion to k to the power of minus this (Zipf); 0: all alike."""

    def sites_of(self, rows: Sequence[Row], seed: int) -> list[str]:
        """The site of each row; but by column, all rows of a patient are at one site.

        Raises:
            LabelError: a column that is missing or names no site, or more sites than patients.
        """
        if self.by == "column":
            return by_column(rows, self.column)
        if self.by == "dirichlet":
            return by_dirichlet(rows, self.sites, self.alpha, seed)
        return by_size(rows, self.sites, self.exponent, seed)


def cut_table(table: Path, out: Path, cut: Cut, splits: Splits) -> dict[str, Path]:
    """Cut a table into sites and write one label table per site into `out`.

    Args:
        table: CSV with columns path, label, patient_id, the column it is cut by, and, where known, age, sex, view, source, version.
        out: folder for `<site>.csv`; made when missing.
        cut: what a site is.
        splits: who is tested.

    Returns:
        The path of each site's table, by site name.

    Raises:
        LabelError: when the table lacks what is needed or names an unusable site.
        StorageError: when `out` cannot be written.
    """
    rows = read_table(table)
    return write_sites(rows, cut.sites_of(rows, splits.seed), out, splits)


def read_table(table: Path) -> list[Row]:
    """Every row of a label table, checked for the columns and values that nothing can do without.

    Raises:
        LabelError: naming the table and the first wrong line, never its content.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as handle:
            rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in csv.DictReader(handle)]
    except (OSError, UnicodeDecodeError, csv.Error):
        raise LabelError(
            table.name, "the table cannot be read as CSV in UTF-8", "Check path and encoding"
        ) from None
    if not rows:
        raise LabelError(table.name, "the table holds no rows", "Give a table with one row per image")
    if missing := [name for name in _NEEDED if name not in rows[0]]:
        raise LabelError(table.name, f"column {', '.join(missing)} is missing", "Add it, or rename yours")
    for line, row in enumerate(rows, start=2):
        if empty := [name for name in _NEEDED if not row[name]]:
            raise LabelError(
                f"{table.name}, line {line}", f"{empty[0]} is empty", "Fill it in or drop the row"
            )
    return list(rows)


def by_column(rows: Sequence[Row], column: str) -> list[str]:
    """The site of each row: the value of `column`, in lower case with hyphens for spaces.

    Raises:
        LabelError: when the column is missing or a value cannot name a site.
    """
    if column not in rows[0]:
        raise LabelError(
            "label table", f"there is no column {column}", "Name the column that tells sites apart"
        )
    sites = [re.sub(r"[\s/.]+", "-", row[column].lower()) for row in rows]
    for line, site in enumerate(sites, start=2):
        if not _SITE_NAME.fullmatch(site):
            raise LabelError(
                f"label table, line {line}", f"{column} cannot name a site", "Use letters, digits, _ and -"
            )
    return sites


def by_dirichlet(rows: Sequence[Row], n_sites: int, alpha: float, seed: int) -> list[str]:
    """The site of each row: patients of each label are dealt in Dirichlet(alpha) shares (Hsu et al., 2019).

    All rows of a patient go to one site.

    Raises:
        LabelError: when `n_sites` or `alpha` cannot be dealt with.
    """
    labels = _patient_labels(rows)
    if not 1 <= n_sites <= len(labels) or not alpha > 0:
        raise LabelError(
            "Dirichlet partition", "needs at least a patient per site and alpha above 0", "Change it"
        )
    rng = np.random.default_rng(seed)
    site_of: dict[str, str] = {}
    for label in sorted(set(labels.values())):
        patients = sorted(p for p, own in labels.items() if own == label)
        order = rng.permutation(len(patients))
        edges = np.cumsum(rng.dirichlet(np.full(n_sites, alpha)))[:-1] * len(patients)
        for place, number in enumerate(order):
            site_of[patients[number]] = f"site-{int(np.searchsorted(edges, place, side='right')) + 1:03d}"
    return [site_of[row["patient_id"]] for row in rows]


def by_size(rows: Sequence[Row], n_sites: int, exponent: float, seed: int) -> list[str]:
    """The site of each row: patients are dealt in shares of k ** -exponent for k = 1 to `n_sites`, at least one to each.

    All rows of a patient go to one site, and labels play no part.

    Raises:
        LabelError: when there are fewer patients than sites.
    """
    patients = sorted(_patient_labels(rows))
    if not 1 <= n_sites <= len(patients):
        raise LabelError("partition by size", "needs at least a patient per site", "Ask for fewer sites")
    shares = np.arange(1, n_sites + 1, dtype=np.float64) ** -exponent
    edges = np.cumsum(shares / shares.sum())[:-1] * (len(patients) - n_sites)
    order = np.random.default_rng(seed).permutation(len(patients))
    places = [
        *range(n_sites),
        *(int(np.searchsorted(edges, k, side="right")) for k in range(len(patients) - n_sites)),
    ]
    site_of = {patients[number]: f"site-{place + 1:03d}" for number, place in zip(order, places, strict=True)}
    return [site_of[row["patient_id"]] for row in rows]


def deal(rows: Sequence[Row], sites: Sequence[str], splits: Splits) -> dict[str, str]:
    """The split of each patient: "train", "validation" or "test", the same at every site.

    Raises:
        LabelError: when an external site is not in the table.
    """
    if unknown := set(splits.external) - set(sites):
        raise LabelError("external sites", f"{min(unknown)} is not in the table", "Name a site that is")
    labels = _patient_labels(rows)
    where: dict[str, set[str]] = defaultdict(set)
    for row, site in zip(rows, sites, strict=True):
        where[row["patient_id"]].add(site)
    strata: dict[tuple[str, ...], list[str]] = defaultdict(list)
    split: dict[str, str] = {}
    for patient in sorted(where):
        if where[patient] & set(splits.external):
            split[patient] = "test"
        else:
            strata[(labels[patient], *sorted(where[patient]))].append(patient)
    rng = np.random.default_rng(splits.seed)
    for key in sorted(strata):
        split.update(_cut(strata[key], splits, rng))
    return split


def _cut(patients: list[str], splits: Splits, rng: np.random.Generator) -> dict[str, str]:
    """Cut one stratum. Counts are rounded at random, so that many small strata still sum to the fraction."""
    count = len(patients)
    test = math.floor(count * splits.test_fraction + rng.random())
    validation = math.floor(count * splits.validation_fraction + rng.random())
    names = np.array(["test"] * test + ["validation"] * validation + ["train"] * count)[:count]
    order = rng.permutation(count)
    return {patients[number]: str(name) for number, name in zip(order, names, strict=True)}


def _patient_labels(rows: Sequence[Row]) -> dict[str, str]:
    """The greatest label of each patient: in a binary task, positive when any image is."""
    labels: dict[str, str] = {}
    for row in rows:
        patient = row["patient_id"]
        labels[patient] = max(labels.get(patient, ""), row["label"])
    return labels


def write_sites(rows: Sequence[Row], sites: Sequence[str], out: Path, splits: Splits) -> dict[str, Path]:
    """Write one label table per site into `out`; `sites` holds the site of each row.

    Raises:
        LabelError: when an external site is not in the table.
        StorageError: when `out` cannot be written.
    """
    split = deal(rows, sites, splits)
    grouped: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row, site in zip(rows, sites, strict=True):
        grouped[site].append(_site_row(row, split[row["patient_id"]]))
    paths = {site: out / f"{site}.csv" for site in sorted(grouped)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for site, path in paths.items():
            with path.open("w", encoding="utf-8", newline="") as handle:
                writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(grouped[site])
    except OSError as error:
        raise StorageError(
            out.name, f"writing failed: {error.strerror}", "Free space or choose another folder"
        ) from None
    return paths


def _site_row(row: Row, split: str) -> dict[str, str]:
    return {
        "path": row["path"],
        "label": row["label"],
        "source": row.get("source") or "published",
        "version": row.get("version") or "1",
        "split": split,
        "patient_id": row["patient_id"],
        "age": _age(row.get("age", "")),
        "sex": row.get("sex", "").upper() if row.get("sex", "").upper() in {"F", "M", "O"} else "",
        "view": row.get("view", "").upper(),
    }


def _age(text: str) -> str:
    """Whole years, or nothing: "1-5" is a range, not an age."""
    try:
        years = float(text)
    except ValueError:
        return ""
    return str(int(years)) if 0 <= years <= OLDEST else ""
