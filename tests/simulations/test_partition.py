"""Partitions: a patient has one split everywhere, fractions hold at every site, external sites only test."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import LabelError, StorageError
from simulations import partition
from simulations.partition import Splits, dirichlet_sites, natural_sites, scanner_sites
from tests.data import shared_data


def _table(folder: Path, rows: list[dict[str, str]]) -> Path:
    path = folder / "labels.csv"
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _rows(patients: int = 200, images: int = 2) -> list[dict[str, str]]:
    """Three sites; every tenth patient is in the first two."""
    found = []
    for patient in range(patients):
        sites = ["north", "south"] if patient % 10 == 0 else [("north", "south", "far")[patient % 3]]
        found += [
            {
                "path": f"images/{patient}-{site}-{image}.png",
                "label": str(int(patient % 4 == 0)),
                "site": site,
                "patient_id": f"p{patient}",
                "age": "1-5" if patient % 5 == 0 else "48",
                "sex": "F",
                "view": "PA",
                "scanner": f"Model {patient % 2}",
            }
            for site in sites
            for image in range(images)
        ]
    return found


def _read(paths: dict[str, Path]) -> dict[str, list[dict[str, str]]]:
    return {
        s: list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) for s, path in paths.items()
    }


def _splits_of(tables: dict[str, list[dict[str, str]]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for rows in tables.values():
        for row in rows:
            found[row["patient_id"]].add(row["split"])
    return found


def test_every_image_lands_in_one_site_with_the_agreed_columns(tmp_path: Path) -> None:
    rows = _rows()
    tables = _read(natural_sites(_table(tmp_path, rows), tmp_path / "out", 1, 0.2, 0.1, ["far"]))
    assert set(tables) == {"north", "south", "far"}
    assert sorted(r["path"] for t in tables.values() for r in t) == sorted(r["path"] for r in rows)
    assert tuple(tables["north"][0]) == partition.COLUMNS
    assert {row["age"] for t in tables.values() for row in t} == {"", "48"}


def test_a_shared_patient_has_one_split_and_external_sites_only_test(tmp_path: Path) -> None:
    tables = _read(natural_sites(_table(tmp_path, _rows()), tmp_path / "out", 1, 0.2, 0.1, ["far"]))
    assert all(len(splits) == 1 for splits in _splits_of(tables).values())
    assert {row["split"] for row in tables["far"]} == {"test"}
    assert {row["split"] for row in tables["north"]} == {"train", "validation", "test"}


def test_fractions_and_prevalence_hold_at_every_site(tmp_path: Path) -> None:
    tables = _read(natural_sites(_table(tmp_path, _rows(1500, 1)), tmp_path / "out", 3, 0.35, 0.1))
    for rows in tables.values():
        tested = [row for row in rows if row["split"] == "test"]
        assert len(tested) / len(rows) == pytest.approx(0.35, abs=0.02)
        prevalence = [np.mean([int(r["label"]) for r in part]) for part in (rows, tested)]
        assert prevalence[1] == pytest.approx(prevalence[0], abs=0.03)


def test_the_seed_alone_decides_and_order_does_not(tmp_path: Path) -> None:
    rows = _rows()
    first = _splits_of(_read(natural_sites(_table(tmp_path, rows), tmp_path / "a", 1, 0.2, 0.1)))
    assert first == _splits_of(
        _read(natural_sites(_table(tmp_path, rows[::-1]), tmp_path / "b", 1, 0.2, 0.1))
    )
    assert first != _splits_of(_read(natural_sites(_table(tmp_path, rows), tmp_path / "c", 2, 0.2, 0.1)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 0.6), st.floats(0, 0.3))
def test_any_fractions_deal_every_patient_once(seed: int, test: float, validation: float) -> None:
    rows = _rows(60)
    split = partition.deal(rows, [r["site"] for r in rows], Splits(seed, test, validation))
    assert set(split) == {r["patient_id"] for r in rows}
    assert set(split.values()) <= {"train", "validation", "test"}


def test_by_scanner_makes_one_site_per_model(tmp_path: Path) -> None:
    tables = _read(scanner_sites(_table(tmp_path, _rows()), tmp_path / "out", Splits(1, 0.2, 0.1)))
    assert set(tables) == {"model-0", "model-1"}


def test_dirichlet_skews_labels_more_when_alpha_is_small(tmp_path: Path) -> None:
    table = _table(tmp_path, _rows(900, 1))

    def spread(alpha: float) -> float:
        sites = _read(dirichlet_sites(table, tmp_path / str(alpha), Splits(5, 0.2, 0.1), 5, alpha))
        return float(np.std([np.mean([int(r["label"]) for r in rows]) for rows in sites.values()]))

    assert spread(0.2) > 3 * spread(100.0)


def test_dirichlet_keeps_a_patient_at_one_site(tmp_path: Path) -> None:
    tables = _read(dirichlet_sites(_table(tmp_path, _rows()), tmp_path / "o", Splits(5, 0.2, 0.1), 4, 0.5))
    where: dict[str, set[str]] = defaultdict(set)
    for site, rows in tables.items():
        for row in rows:
            where[row["patient_id"]].add(site)
    assert all(len(sites) == 1 for sites in where.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"site": "../etc"}, "cannot name a site"),
        ({"label": ""}, "label is empty"),
        ({"patient_id": ""}, "patient_id is empty"),
    ],
)
def test_a_bad_row_is_named_by_line_and_never_by_patient(
    tmp_path: Path, change: dict[str, str], words: str
) -> None:
    rows = _rows(9, 1)
    secret = rows[4]["patient_id"]
    rows[4] = rows[4] | change
    with pytest.raises(LabelError, match=words) as caught:
        natural_sites(_table(tmp_path, rows), tmp_path / "out", 1, 0.2, 0.1)
    assert "line 6" in str(caught.value)
    assert secret not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="cannot be read"):
        natural_sites(tmp_path / "none.csv", tmp_path, 1, 0.2, 0.1)
    with pytest.raises(LabelError, match="no column site"):
        natural_sites(
            _table(tmp_path, [{"path": "a", "label": "1", "patient_id": "p"}]), tmp_path, 1, 0.2, 0.1
        )
    with pytest.raises(LabelError, match="column patient_id is missing"):
        natural_sites(_table(tmp_path, [{"path": "a", "label": "1", "site": "x"}]), tmp_path, 1, 0.2, 0.1)
    with pytest.raises(LabelError, match="moon is not in the table"):
        natural_sites(_table(tmp_path, _rows(9)), tmp_path, 1, 0.2, 0.1, ["moon"])
    with pytest.raises(LabelError, match="leave patients to train"):
        natural_sites(_table(tmp_path, _rows(9)), tmp_path, 1, 0.7, 0.4)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError):
        natural_sites(_table(tmp_path, _rows(9)), tmp_path / "file" / "out", 1, 0.2, 0.1)


def test_the_real_chest_radiographs_split_as_their_readme_demands(tmp_path: Path) -> None:
    """42 patients are at both NIH sites, never across splits; Hannover never trains; children have no age."""
    table = shared_data("cxr_pneumonia_3site") / "labels.csv"
    tables = _read(natural_sites(table, tmp_path, 1, 0.2, 0.1, ["hannover_covid"]))
    assert {site: len(rows) for site, rows in tables.items()} == {
        "guangzhou_paed": 5856,
        "nih_pa": 433,
        "nih_ap": 567,
        "hannover_covid": 243,
    }
    assert all(len(splits) == 1 for splits in _splits_of(tables).values())
    shared = {r["patient_id"] for r in tables["nih_pa"]} & {r["patient_id"] for r in tables["nih_ap"]}
    assert len(shared) == 42
    assert {row["split"] for row in tables["hannover_covid"]} == {"test"}
    assert {row["age"] for row in tables["guangzhou_paed"]} == {""}
    for site in ("guangzhou_paed", "nih_pa", "nih_ap"):
        patients = {row["patient_id"]: row["split"] for row in tables[site]}
        assert np.mean([s == "test" for s in patients.values()]) == pytest.approx(0.2, abs=0.03)
