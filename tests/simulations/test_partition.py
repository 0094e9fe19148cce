"""Partitions: a patient has one split everywhere, fractions hold at every site, external sites only test."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import LabelError, PlanError, StorageError
from simulations import partition
from simulations.partition import Cut, Splits, cut_table
from simulations.scenario import load_scenario
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
    tables = _read(cut_table(_table(tmp_path, rows), tmp_path / "out", Cut(), Splits(1, 0.2, 0.1, ("far",))))
    assert set(tables) == {"north", "south", "far"}
    assert sorted(r["path"] for t in tables.values() for r in t) == sorted(r["path"] for r in rows)
    assert tuple(tables["north"][0]) == partition.COLUMNS
    assert {row["age"] for t in tables.values() for row in t} == {"", "48"}


def test_a_shared_patient_has_one_split_and_external_sites_only_test(tmp_path: Path) -> None:
    tables = _read(
        cut_table(_table(tmp_path, _rows()), tmp_path / "out", Cut(), Splits(1, 0.2, 0.1, ("far",)))
    )
    assert all(len(splits) == 1 for splits in _splits_of(tables).values())
    assert {row["split"] for row in tables["far"]} == {"test"}
    assert {row["split"] for row in tables["north"]} == {"train", "validation", "test"}


def test_fractions_and_prevalence_hold_at_every_site(tmp_path: Path) -> None:
    tables = _read(cut_table(_table(tmp_path, _rows(1500, 1)), tmp_path / "out", Cut(), Splits(3, 0.35, 0.1)))
    for rows in tables.values():
        tested = [row for row in rows if row["split"] == "test"]
        assert len(tested) / len(rows) == pytest.approx(0.35, abs=0.02)
        prevalence = [np.mean([int(r["label"]) for r in part]) for part in (rows, tested)]
        assert prevalence[1] == pytest.approx(prevalence[0], abs=0.03)


def test_the_seed_alone_decides_and_order_does_not(tmp_path: Path) -> None:
    rows = _rows()
    first = _splits_of(_read(cut_table(_table(tmp_path, rows), tmp_path / "a", Cut(), Splits(1, 0.2, 0.1))))
    assert first == _splits_of(
        _read(cut_table(_table(tmp_path, rows[::-1]), tmp_path / "b", Cut(), Splits(1, 0.2, 0.1)))
    )
    assert first != _splits_of(
        _read(cut_table(_table(tmp_path, rows), tmp_path / "c", Cut(), Splits(2, 0.2, 0.1)))
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 0.6), st.floats(0, 0.3))
def test_any_fractions_deal_every_patient_once(seed: int, test: float, validation: float) -> None:
    rows = _rows(60)
    split = partition.deal(rows, [r["site"] for r in rows], Splits(seed, test, validation))
    assert set(split) == {r["patient_id"] for r in rows}
    assert set(split.values()) <= {"train", "validation", "test"}


def test_by_scanner_makes_one_site_per_model(tmp_path: Path) -> None:
    tables = _read(
        cut_table(_table(tmp_path, _rows()), tmp_path / "out", Cut(column="scanner"), Splits(1, 0.2, 0.1))
    )
    assert set(tables) == {"model-0", "model-1"}


def test_dirichlet_skews_labels_more_when_alpha_is_small(tmp_path: Path) -> None:
    table = _table(tmp_path, _rows(900, 1))

    def spread(alpha: float) -> float:
        sites = _read(
            cut_table(
                table, tmp_path / str(alpha), Cut("dirichlet", sites=5, alpha=alpha), Splits(5, 0.2, 0.1)
            )
        )
        return float(np.std([np.mean([int(r["label"]) for r in rows]) for rows in sites.values()]))

    assert spread(0.2) > 3 * spread(100.0)


def test_dirichlet_keeps_a_patient_at_one_site(tmp_path: Path) -> None:
    tables = _read(
        cut_table(
            _table(tmp_path, _rows()),
            tmp_path / "o",
            Cut("dirichlet", sites=4, alpha=0.5),
            Splits(5, 0.2, 0.1),
        )
    )
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
        cut_table(_table(tmp_path, rows), tmp_path / "out", Cut(), Splits(1, 0.2, 0.1))
    assert "line 6" in str(caught.value)
    assert secret not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_by_size_sites_differ_in_size_alone(tmp_path: Path) -> None:
    """Zipf's shares to a patient, nobody at two sites, and prevalence that chance alone moves."""
    rows = _rows(1500, 1)
    sites = _read(
        cut_table(
            _table(tmp_path, rows), tmp_path / "o", Cut("size", sites=5, exponent=1.0), Splits(2, 0.2, 0.1)
        )
    )
    counts = [len({row["patient_id"] for row in own}) for own in sites.values()]
    patients = len({row["patient_id"] for row in rows})
    wanted = [patients / k / sum(1 / j for j in range(1, 6)) for k in range(1, 6)]
    assert sum(counts) == patients
    assert all(abs(count - share) <= 5 for count, share in zip(counts, wanted, strict=True)), counts
    whole = sum(row["label"] == "1" for row in rows) / len(rows)
    for own in sites.values():
        share = sum(row["label"] == "1" for row in own) / len(own)
        assert abs(share - whole) < 4 * (whole * (1 - whole) / len(own)) ** 0.5


def test_by_size_all_alike_and_as_many_sites_as_patients(tmp_path: Path) -> None:
    table = _table(tmp_path, _rows(60, 1))
    alike = _read(cut_table(table, tmp_path / "a", Cut("size", sites=6, exponent=0.0), Splits(2, 0.2, 0.1)))
    assert {len({row["patient_id"] for row in own}) for own in alike.values()} == {10}
    single = _read(cut_table(table, tmp_path / "b", Cut("size", sites=60, exponent=2.0), Splits(2, 0.2, 0.1)))
    assert [len({row["patient_id"] for row in own}) for own in single.values()] == [1] * 60
    with pytest.raises(LabelError, match="a patient per site"):
        cut_table(table, tmp_path / "c", Cut("size", sites=61), Splits(2, 0.2, 0.1))


def test_a_scenario_names_its_cut(tmp_path: Path) -> None:
    text = Path("simulations/scenarios/cxr_pneumonia.toml").read_text()
    (tmp_path / "s.toml").write_text(
        text.replace("[plan.study]", '[scenario.cut]\nby = "size"\nsites = 7\n\n[plan.study]', 1)
    )
    assert load_scenario(tmp_path / "s.toml").scenario.cut == Cut("size", sites=7)
    (tmp_path / "s.toml").write_text(
        text.replace("[plan.study]", '[scenario.cut]\nby = "luck"\n\n[plan.study]', 1)
    )
    with pytest.raises(PlanError, match=r"scenario\.cut\.by"):
        load_scenario(tmp_path / "s.toml")


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="cannot be read"):
        cut_table(tmp_path / "none.csv", tmp_path, Cut(), Splits(1, 0.2, 0.1))
    with pytest.raises(LabelError, match="no column site"):
        cut_table(
            _table(tmp_path, [{"path": "a", "label": "1", "patient_id": "p"}]),
            tmp_path,
            Cut(),
            Splits(1, 0.2, 0.1),
        )
    with pytest.raises(LabelError, match="column patient_id is missing"):
        cut_table(
            _table(tmp_path, [{"path": "a", "label": "1", "site": "x"}]), tmp_path, Cut(), Splits(1, 0.2, 0.1)
        )
    with pytest.raises(LabelError, match="moon is not in the table"):
        cut_table(_table(tmp_path, _rows(9)), tmp_path, Cut(), Splits(1, 0.2, 0.1, ("moon",)))
    with pytest.raises(LabelError, match="leave patients to train"):
        cut_table(_table(tmp_path, _rows(9)), tmp_path, Cut(), Splits(1, 0.7, 0.4))


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError):
        cut_table(_table(tmp_path, _rows(9)), tmp_path / "file" / "out", Cut(), Splits(1, 0.2, 0.1))


def test_the_real_chest_radiographs_split_as_their_readme_demands(tmp_path: Path) -> None:
    """42 patients are at both NIH sites, never across splits; Hannover never trains; children have no age."""
    table = shared_data("cxr_pneumonia_3site") / "labels.csv"
    tables = _read(cut_table(table, tmp_path, Cut(), Splits(1, 0.2, 0.1, ("hannover_covid",))))
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
