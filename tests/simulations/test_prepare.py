"""From a scenario to hospitals that are ready: virtual ones and real images, and what is left behind."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.index import Index
from common.errors import ConsiliumError, IntakeError, LabelError
from simulations.board import board
from simulations.crew import crew
from simulations.prepare import Federation, arm_site, passing, prepare
from simulations.scenario import Scenario, load_scenario
from tests.simulations.runs import federation_of, write_scenario

SITES = ("east", "west", "far")


def images(folder: Path, patients: int = 12) -> Path:
    """Two sites and an external one with PNG of a bright disc on a slope, and their table."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:160, 0:160]
    rows = []
    for site in SITES:
        for number in range(patients):
            away = np.hypot(y - rng.integers(60, 100), x - rng.integers(60, 100))
            pixels = 40 + y / 2 + x / 4 + 80 / (1 + np.exp(away - 40)) + rng.normal(0, 2, y.shape)
            path = folder / site / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
            rows.append([f"{site}/{number:03d}.png", number % 2, site, f"{site}-{number}"])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "site", "patient_id"], *rows])
    return folder


def of_images(folder: Path) -> Scenario:
    path = write_scenario(folder, arms=("federated",))
    text = path.read_text().replace('kind = "virtual"', 'kind = "images"\nexternal = ["far"]')
    path.write_text(text.replace('source = "synthetic"', 'source = "csv"'))
    return load_scenario(path)


def prepared(scenario: Scenario, folder: Path, data: Path | None) -> Federation:
    with passing(folder), board() as bars, crew(bars, 2) as hands:
        return prepare(scenario, folder, hands, data)


def test_real_images_become_sites_by_nature_and_the_external_one_only_tests(tmp_path: Path) -> None:
    made = prepared(of_images(tmp_path), tmp_path / "f", images(tmp_path / "data"))
    assert made.names == ("east", "far", "west")
    assert made.training == ("east", "west")
    assert made.specs == {}
    for name in made.names:
        assert made.reports[name].accepted == 12
        with Index(made.site(name).index) as index:
            rows = index.images()
        assert {row.split for row in rows} <= ({"test"} if name == "far" else {"train", "validation", "test"})
        assert len({row.patient for row in rows}) == 12
        assert any(made.site(name).store.rglob("*.npy")), "preprocessed"
    assert not (tmp_path / "f" / "incoming").exists()


def test_an_image_that_is_missing_is_noticed_by_its_hospital(tmp_path: Path) -> None:
    data = images(tmp_path / "data")
    (data / "east" / "003.png").unlink()
    with pytest.raises(LabelError, match="not in the folder"):
        prepared(of_images(tmp_path), tmp_path / "f", data)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname"])
def test_a_table_cannot_reach_out_of_its_folder(tmp_path: Path, name: str) -> None:
    data = images(tmp_path / "data")
    (tmp_path / "outside.png").write_bytes((data / "east" / "000.png").read_bytes())
    with (data / "labels.csv").open("a") as file:
        file.write(f"{name},1,east,p-x\n")
    with pytest.raises(IntakeError, match="outside"):
        prepared(of_images(tmp_path), tmp_path / "f", data)
    assert not (tmp_path / "f" / "incoming").exists()


def test_a_hospital_that_cannot_be_taken_in_ends_the_run_and_leaves_no_export(tmp_path: Path) -> None:
    data = images(tmp_path / "data")
    text = (data / "labels.csv").read_text()
    (data / "labels.csv").write_text(text.replace("west/004.png,0", "west/004.png,maybe"))
    with pytest.raises(ConsiliumError) as caught:
        prepared(of_images(tmp_path), tmp_path / "f", data)
    assert caught.value.exit_status == 2
    assert not (tmp_path / "f" / "incoming").exists()


def test_an_arm_has_the_same_data_and_keys_but_a_state_of_its_own(run: Path) -> None:
    federation = federation_of(run)
    base, open_arm, private = (
        federation.site("alder"),
        arm_site(federation, "federated", "alder"),
        arm_site(federation, "federated-dp", "alder"),
    )
    assert base.data.resolve() == open_arm.data.resolve() == private.data.resolve()
    assert base.spend_key == open_arm.spend_key == private.spend_key
    assert len({site.ledger.resolve() for site in (base, open_arm, private)}) == 3
    assert open_arm.policy.allow_non_private
    assert not private.policy.allow_non_private, "nothing unprotected may leave in the private arm"
    assert open_arm == arm_site(federation, "federated", "alder"), "made once"


def test_virtual_hospitals_are_marked_simulated_in_every_arm(run: Path) -> None:
    federation = replace(federation_of(run))
    for arm in ("alone", "federated", "federated-dp", "pooled"):
        assert all(arm_site(federation, arm, name).simulated for name in federation.names)
