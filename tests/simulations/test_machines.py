"""Machines of virtual hospitals: both chains, drift and services of a scenario's `[[site]]`, from file to header and pixel."""

from __future__ import annotations

import dataclasses
from datetime import date
from pathlib import Path

import numpy as np
import pydicom
import pytest

from common.errors import DataError, PlanError
from simulations.hospitals import HospitalSpec, write_hospital
from simulations.hospitals.machines import MODELS, alike, maker, month_of, room_of, take
from simulations.hospitals.people import FIRST_DAY
from simulations.phantoms import draw_patient, render
from simulations.scanners import SCANNERS, xray
from simulations.scenario import HERE, load_scenario
from simulations.sites import virtual_sites

SITE = """
base = "demo"
[scenario]
name = "own"
arms = ["federated"]
[[site]]
name = "ash"
patients = 40
prevalence = 0.5
scanners = {{ {machine} = 1 }}
{history}
[[site]]
name = "beech"
patients = 40
prevalence = 0.5
scanners = {{ {machine} = 1 }}
"""
DRIFT = """
[[site.drift]]
scanner = "{0}"
path = "{1}"
per_month = -0.02
"""
SERVICE = """
[[site.service]]
scanner = "{0}"
day = 2023-01-01
renews = ["{1}"]
"""
DOSE = {"aster-dr": "open_kerma_ugy", "caesium-wall": "habits.kerma_ugy.median"}


def hospitals(folder: Path, machine: str, history: str = "") -> list[HospitalSpec]:
    """Two hospitals with this machine; the first has a history."""
    path = folder / "own.toml"
    path.write_text(SITE.format(machine=machine, history=history), encoding="utf-8")
    return virtual_sites(load_scenario(path).site, 1)


def written(spec: HospitalSpec, folder: Path) -> dict[str, pydicom.Dataset]:
    """Every file by its path; the same chance for every history."""
    write_hospital(spec, folder, 3, workers=1)
    return {str(p.relative_to(folder)): pydicom.dcmread(p) for p in folder.rglob("*.dcm")}


def months(ds: pydicom.Dataset) -> float:
    return month_of(date.fromisoformat(ds.StudyDate))


@pytest.mark.parametrize("machine", DOSE)
def test_dose_drifts_by_the_month_and_begins_anew_with_a_service(tmp_path, machine):
    """Both hospitals' patients, poses and noise are the same; what differs is what the scenario says."""
    drift = DRIFT.format(machine, DOSE[machine])
    still = written(hospitals(tmp_path, machine)[0], tmp_path / "still")
    moved = written(hospitals(tmp_path, machine, drift)[0], tmp_path / "moved")
    renewed_by = drift + SERVICE.format(machine, DOSE[machine].rpartition(".median")[0] or DOSE[machine])
    renewed = written(hospitals(tmp_path, machine, renewed_by)[0], tmp_path / "renewed")
    assert still.keys() == moved.keys() == renewed.keys()
    service, late = month_of(date(2023, 1, 1)), 0
    for path, ds in still.items():
        age = months(ds)
        since = age - service if age >= service else age
        for other, gone in ((moved, age), (renewed, since)):
            # Whole milliampere-seconds are written, so each may be off by half of one.
            assert abs(float(other[path].Exposure) - float(ds.Exposure) * 0.98**gone) <= 1.0
        if age > 12:
            late += 1
            assert not np.array_equal(moved[path].pixel_array, ds.pixel_array)
        if age < service:
            assert np.array_equal(renewed[path].pixel_array, moved[path].pixel_array)
    assert late > 20


def test_a_service_sets_what_it_says_from_its_day_on(tmp_path):
    told = '[[site.service]]\nscanner = "aster-dr"\nday = 2023-01-01\nsets = { "curve.latitude" = 3.0 }\n'
    still = written(hospitals(tmp_path, "aster-dr")[0], tmp_path / "still")
    set_ = written(hospitals(tmp_path, "aster-dr", told)[0], tmp_path / "set")
    for path, ds in still.items():
        flat, before = set_[path].pixel_array.std(), ds.pixel_array.std()
        assert (flat < 0.9 * before) if ds.StudyDate >= "20230101" else (flat == before)


def test_rooms_of_the_second_chain_are_their_own_and_the_demos_machines_are_everybodys():
    one, two = (room_of("caesium-wall", name, 7) for name in ("ash", "beech"))
    assert one == room_of("caesium-wall", "ash", 7) != two
    assert one.machine.pattern != two.machine.pattern
    assert room_of("aster-dr", "ash", 7) is room_of("aster-dr", "beech", 8) is SCANNERS["aster-dr"]
    assert alike("phosphor-plate") == tuple(xray.SITES)
    assert alike("cygnus-dr") == tuple(SCANNERS)


@pytest.mark.parametrize("machine", MODELS)
def test_every_machine_writes_images_with_true_headers(tmp_path, machine):
    """Headers agree with pixels; that intake accepts them is `test_scenarios_run`'s."""
    spec = dataclasses.replace(hospitals(tmp_path, machine)[0], patients=4)
    files = written(spec, tmp_path / "files")
    assert files
    for ds in files.values():
        assert ds.Manufacturer == maker(machine)
        assert ds.pixel_array.max() < 2**ds.BitsStored
        assert ds.pixel_array.std() > 0
        assert 0.5 < float(ds.ImagerPixelSpacing[0]) < 3
        assert (ds.LossyImageCompression == "01") == (machine == "gadolinium-bedside")


def test_what_the_truth_says_of_a_finding_is_where_the_image_has_it():
    rng = np.random.default_rng(5)
    anatomy = render(draw_patient(rng, positive=True), "PA")
    for name, room in MODELS.items():
        taken = take(np.random.default_rng(1), name, room, anatomy)
        seen = taken.on_image(anatomy.finding)
        assert seen.shape == taken.pixels.shape
        assert 0.5 < seen.sum() / anatomy.finding.sum() < 2


def test_a_drift_of_copies_with_one_machine_each_is_that_machines_alone(tmp_path):
    path = tmp_path / "own.toml"
    text = SITE.format(machine="aster-dr", history=DRIFT.format("aster-dr", "open_kerma_ugy"))
    text = text.replace("patients = 40", "patients = 40\ncopies = 20\none_scanner = true", 1)
    path.write_text(text.replace("{ aster-dr = 1 }", "{ aster-dr = 1, cygnus-dr = 1 }", 1))
    made = virtual_sites(load_scenario(path).site, 1)[:20]
    for spec in made:
        assert spec.population is not None
        assert set(spec.population.histories) == spec.population.machines() & {"aster-dr"}
    assert len({len(spec.population.histories) for spec in made if spec.population}) == 2


@pytest.mark.parametrize(
    ("history", "error", "words"),
    [
        (DRIFT.format("aster-dr", "open_kerma"), DataError, "names nothing at open_kerma"),
        (DRIFT.format("aster-dr", "kvp"), DataError, "not a number"),
        (DRIFT.format("cygnus-dr", "open_kerma_ugy"), DataError, "no cygnus-dr that could drift"),
        (DRIFT.format("eagle-dr", "open_kerma_ugy"), DataError, "unknown scanner eagle-dr"),
        (DRIFT.format("aster-dr", "heel") + "rate = 1\n", PlanError, "rate"),
        (SERVICE.format("aster-dr", "machine.pattern"), DataError, "names nothing at machine"),
    ],
    ids=[
        "no such number",
        "two numbers",
        "another's machine",
        "no machine",
        "an unknown key",
        "no such part",
    ],
)
def test_a_mistake_in_a_history_is_named(tmp_path, history, error, words):
    with pytest.raises(error, match=words):
        hospitals(tmp_path, "aster-dr", history)


def test_the_shipped_scenario_drifts_at_one_hospital():
    scenario = load_scenario(HERE / "drifting_scanner.toml")
    made = virtual_sites(scenario.site, scenario.scenario.seed)
    drifting = [spec for spec in made if spec.population and spec.population.histories]
    assert [spec.name for spec in drifting] == ["ageing"]
    assert month_of(FIRST_DAY) == 0
