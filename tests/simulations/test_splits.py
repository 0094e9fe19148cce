"""Several patient splits put together: means and corrected intervals as worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from common.cli import plain
from common.messages import Comparison, Estimate
from server.records import RunRecord, read_record
from simulations.splits import Change, corrected_mean, put_together
from tests.simulations.runs import small

POINTS = (0.02, -0.01, 0.03, 0.00, 0.01)
T_OF_4 = 2.7764451
"""97.5% quantile of Student's t with 4 degrees of freedom, from a table."""


def test_the_interval_is_nadeau_and_bengios() -> None:
    """mean 0.01; variance (0.01² + 0.02² + 0.02² + 0.01² + 0) / 4 = 0.00025; factor 1/5 + 0.2/0.7."""
    found = corrected_mean(POINTS, 0.2 / 0.7)
    reach = T_OF_4 * math.sqrt(0.00025 * (1 / 5 + 0.2 / 0.7))
    assert found.value == pytest.approx(0.01)
    assert found.low == pytest.approx(0.01 - reach, rel=1e-6)
    assert found.high == pytest.approx(0.01 + reach, rel=1e-6)


def test_the_correction_widens_the_interval() -> None:
    naive = T_OF_4 * math.sqrt(0.00025 / 5)
    assert corrected_mean(POINTS, 0.5).high - 0.01 > 1.8 * naive


def test_one_split_proves_nothing_and_can_still_be_written_as_json() -> None:
    found = corrected_mean([-0.3], 0.5)
    assert (found.value, found.low, found.high) == (-0.3, -1.0, 1.0)
    json.dumps(asdict(found), allow_nan=False)
    assert not Change("a", "federated", "alone", (), found).harms


def test_harm_is_an_interval_wholly_below_zero() -> None:
    low = corrected_mean([-0.05, -0.051, -0.049], 0.3)
    assert Change("a", "federated", "alone", (), low).harms
    assert not Change("a", "federated", "alone", (), corrected_mean(POINTS, 0.3)).harms


def with_difference(record: RunRecord, seed: int, value: float) -> RunRecord:
    """A record whose hospital alder differs by so much between federated and alone."""
    pair = Comparison("federated", "alone", "auroc", Estimate(value, value - 0.05, value + 0.05))
    return replace(record, seed=seed, run=f"run-{seed}", comparisons={"alder": (pair,)})


def test_splits_are_put_together_per_hospital_and_pair(run: Path, tmp_path: Path) -> None:
    record = read_record(run / "metrics.json")
    records = [with_difference(record, seed, value) for seed, value in enumerate(POINTS, start=1)]
    summary = put_together(small(tmp_path, test_fraction=0.5), records)
    (change,) = summary.changes
    assert (change.site, change.model, change.other) == ("alder", "federated", "alone")
    assert [split.value for split in change.splits] == list(POINTS)
    assert change.mean == corrected_mean(POINTS, 0.5 / 0.4)
    assert summary.seeds == (1, 2, 3, 4, 5)
    auroc = record.arms["pooled"].sites["birch"].models[0].groups[0].auroc
    assert auroc is not None
    assert summary.aurocs["birch"]["pooled"] == (auroc.value,) * 5
    assert "federated, fine-tuned" in summary.aurocs["birch"]
    json.dumps(plain(summary), allow_nan=False)


def test_the_table_shows_means_and_what_is_worse(run: Path, tmp_path: Path) -> None:
    record = read_record(run / "metrics.json")
    records = [with_difference(record, seed, -0.05 - seed / 1000) for seed in (1, 2, 3)]
    table = put_together(small(tmp_path), records).table()
    headings = [str(column.header) for column in table.columns]
    assert headings[0] == "hospital"
    assert headings[-1] == "federated - alone"
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["alder", "birch"]
    assert cells[-1][0].startswith("-0.052 [")
    assert cells[-1][0].endswith(" worse")
    assert cells[-1][1] == "–"
