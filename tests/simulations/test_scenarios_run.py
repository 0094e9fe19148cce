"""Every scenario that ships, and every way to cut real images into sites, from its hospitals to its record; small."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from simulations.arms import run_arms
from simulations.board import board
from simulations.crew import crew
from simulations.prepare import passing, prepare
from simulations.scenario import HERE, Scenario, load_scenario, scenario_with
from simulations.sites import virtual_sites
from tests.simulations.test_sites import SHIPPED

QUICK = ("swapped_labels", "drifting_scanner")
PATIENTS = 12
CUTS = {
    "natural": 'by = "column"\ncolumn = "site"',
    "scanner": 'by = "column"\ncolumn = "scanner"',
    "dirichlet": 'by = "dirichlet"\nsites = 3\nalpha = 5.0',
    "size": 'by = "size"\nsites = 3\nexponent = 1.0',
}


def small(name: str) -> Scenario:
    """A shipped scenario as it is, but with few patients, few copies and one round."""
    found = load_scenario(HERE / f"{name}.toml", rounds=3 if name == "drop_outs" else 1)
    sites = tuple(replace(site, patients=PATIENTS, copies=min(site.copies, 2)) for site in found.site)
    setting = replace(found.scenario, arms=("federated",), least_patients=2)
    plan = {**found.plan, "federation": {**found.plan["federation"], "sites_per_round": 0}}
    return replace(found, site=sites, scenario=setting, plan=plan)


def run(scenario: Scenario, folder: Path, data: Path | None = None):
    """The record of its federated arm, by the code that `consilium-sim run` has."""
    with passing(folder / "run"), board() as bars, crew(bars, 2) as hands:
        federation = prepare(scenario, folder / "run", hands, data)
        return run_arms(scenario, federation, folder, hands)["federated"]


def _runs(name: str, folder: Path) -> None:
    scenario = small(name)
    record = run(scenario, folder)
    names = {spec.name for spec in virtual_sites(scenario.site, scenario.scenario.seed)}
    assert record.federation.status == "completed"
    assert set(record.sites) == names
    assert set(record.federation.expected) == names
    accepted = sum(one.accepted for one in record.federation.intake.values())
    assert accepted > len(names) * PATIENTS * 0.9


@pytest.mark.parametrize("name", QUICK)
def test_a_shipped_scenario_runs(name, tmp_path):
    _runs(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(SHIPPED) - set(QUICK)))
def test_every_other_shipped_scenario_runs(name, tmp_path):
    _runs(name, tmp_path)


def test_what_a_scenario_names_is_what_its_patients_are():
    """Without images: label shift, confounding, children and the rare machine, in the patients that would be drawn."""
    from simulations.hospitals.population import draw  # noqa: PLC0415 - of this test alone

    def people(name: str):
        scenario = load_scenario(HERE / f"{name}.toml")
        for spec in virtual_sites(scenario.site, scenario.scenario.seed):
            yield spec.name, draw(spec.population, spec.patients, np.random.default_rng(1))

    shares = [np.mean([one.positive for one in all_]) for _, all_ in people("label_shift")]
    assert max(shares) - min(shares) > 0.4
    assert (
        max(shares := [np.mean([o.positive for o in a]) for _, a in people("balanced")]) - min(shares) < 0.02
    )
    ages = {name: max(one.age for one in all_) for name, all_ in people("paediatric")}
    assert sum(oldest < 18 for oldest in ages.values()) == 1
    machines = [{one.scanner for one in all_} for _, all_ in people("rare_scanner")]
    assert any(sum(name in one for one in machines) == 1 for name in set().union(*machines))
    carried = []
    for _, all_ in people("confounded"):
        on = [one.positive for one in all_ if one.scanner == "dorado-mobile"]
        off = [one.positive for one in all_ if one.scanner != "dorado-mobile"]
        carried.append(np.mean(on) - np.mean(off))
    assert sorted(np.sign(carried)) == [-1, 1, 1, 1, 1]


def _real(folder: Path, cut: str) -> tuple[Path, Path]:
    """Ninety small images of ninety patients with a table, and a scenario of them."""
    data, rng = folder / "data", np.random.default_rng(2)
    (data / "images").mkdir(parents=True)
    with (data / "labels.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(
            handle, ("path", "label", "site", "patient_id", "age", "sex", "view", "scanner")
        )
        writer.writeheader()
        for number in range(90):
            label = int(rng.random() < 0.5)
            smooth = cv2.GaussianBlur(rng.normal(0, 1, (128, 128)).astype(np.float32), (0, 0), 6)
            grey = 110 + 500 * smooth + 60 * label * np.exp(-np.hypot(*(np.mgrid[:128, :128] - 64)) / 15)
            cv2.imwrite(
                str(data / "images" / f"{number}.png"),
                np.clip(grey + rng.normal(0, 4, (128, 128)), 0, 255).astype(np.uint8),
            )
            writer.writerow(
                {
                    "path": f"images/{number}.png",
                    "label": label,
                    "site": ("north", "south", "west")[number % 3],
                    "patient_id": f"p{number}",
                    "age": "48",
                    "sex": "FM"[number % 2],
                    "view": "PA",
                    "scanner": f"Model {number % 2}",
                }
            )
    text = (HERE / "cxr_pneumonia.toml").read_text(encoding="utf-8")
    text = text.replace(
        'external = ["hannover_covid"]\n',
        f'arms = ["federated"]\nleast_patients = 2\n[scenario.cut]\n{cut}\n',
    )
    (folder / "own.toml").write_text(text, encoding="utf-8")
    return folder / "own.toml", data


def _cut_runs(cut: str, folder: Path) -> None:
    path, data = _real(folder, CUTS[cut])
    settings = {"plan.federation.rounds": 1, "plan.federation.least_sites": 2}
    record = run(scenario_with(path, settings, with_data=True), folder, data)
    assert record.federation.status == "completed"
    taken = {name: one.accepted for name, one in record.federation.intake.items()}
    assert 90 <= sum(taken.values()) < 90 + 10 * len(taken), "counts leave in tens"
    assert len(taken) == (2 if cut == "scanner" else 3)
    if cut == "size":
        assert max(taken.values()) > 2 * min(taken.values())


def test_real_images_are_cut_by_scanner_and_run(tmp_path):
    _cut_runs("scanner", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("cut", sorted(set(CUTS) - {"scanner"}))
def test_real_images_are_cut_in_every_other_way_and_run(cut, tmp_path):
    _cut_runs(cut, tmp_path)
