"""Small virtual runs that several tests look at, made once for all of them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from simulations.prepare import Federation
from simulations.scenario import Scenario, load_scenario

TEXT = """
[scenario]
name = "small"
kind = "virtual"
seed = {seed}
arms = {arms}
hospitals = 2
patients = {patients}

[plan.study]
name = "small"
question = "Is there an opacity?"
[plan.task]
kind = "binary"
classes = ["opacity"]
[plan.input]
modalities = ["DX", "CR"]
shape = [32, 32]
[plan.labels]
source = "synthetic"
provenance = "planted by the phantom that drew the patient"
[plan.data]
test_fraction = {test_fraction}
validation_fraction = 0.1
[plan.model]
name = "scatter"
trainable = "head"
options = {{ scales = 3, orientations = 4, grid = 4, norm = "scale" }}
[plan.personalisation]
method = "finetune"
epochs = 2
[plan.federation]
rounds = {rounds}
least_sites = 2
[plan.evaluation]
bootstrap = 100
[arm.federated-dp.privacy]
mode = "patient-dp"
epsilon = 8.0
clip = {clip}
steps_per_round = 2
"""
ALL = ("alone", "federated", "federated-dp", "pooled")
HOSPITALS = ("alder", "birch")
PATIENTS = 200
"""Of two hospitals: enough that, with half of them tested, no test cell is held back."""
FEW = 64
"""Of two hospitals: just enough to be allowed to train."""


def write_scenario(folder: Path, **changes: object) -> Path:
    """A scenario file; keyword arguments fill the braces of `TEXT`."""
    values = {"seed": 1, "patients": FEW, "rounds": 2, "test_fraction": 0.2, "clip": 1.0} | changes
    arms = list(changes.get("arms", ALL))
    path = folder / "small.toml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(TEXT.format(**(values | {"arms": str(arms).replace("'", '"')})))
    return path


def small(folder: Path, **changes: object) -> Scenario:
    """The same, read."""
    return load_scenario(write_scenario(folder, **changes))


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills once a session, also where several processes share the tests."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / f"once-{name}"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            folder.mkdir()
            make(folder)
            (folder / "made").touch()
    return folder


def only(folder: Path) -> Path:
    """The one run in a folder for runs."""
    (run,) = (path for path in folder.iterdir() if path.is_dir())
    return run


def federation_of(run: Path) -> Federation:
    """The virtual hospitals of a run, as they lie on disk."""
    return Federation(run / "federation", HOSPITALS, (), {}, {})
