"""The virtual runs that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations.experiment import run_scenario
from tests.simulations.runs import PATIENTS, once, only, small


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a whole run: two hospitals, every arm, every report."""

    def make(folder: Path) -> None:
        scenario = small(folder, patients=PATIENTS, rounds=3, test_fraction=0.5)
        run_scenario(scenario, folder / "runs")

    return only(once(tmp_path_factory, "run", make) / "runs")


@pytest.fixture(scope="session")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Three whole runs of few patients, from images to weights: seed 1, seed 1 again, seed 2."""

    def make(folder: Path) -> None:
        for name, seed in (("one", 1), ("two", 1), ("other", 2)):
            scenario = small(folder / name, seed=seed, arms=("federated", "federated-dp", "pooled"), rounds=1)
            run_scenario(scenario, folder / name / "runs", extras=False)

    folder = once(tmp_path_factory, "twins", make)
    return tuple(only(folder / name / "runs") for name in ("one", "two", "other"))
