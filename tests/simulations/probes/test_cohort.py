"""Patients on every machine: drawn from the hospitals' own populations, the same body on each, cut anywhere."""

from __future__ import annotations

import numpy as np
import pytest

from common.plan import Input
from simulations.hospitals import default_federation
from simulations.probes.cohort import exposed, guests, joined, machines_of, told
from simulations.probes.contract import Model
from simulations.probes.snapshots import Snapshots, chosen, kept
from simulations.scanners import SCANNERS
from simulations.scenario import HERE, load_scenario
from simulations.sites import virtual_sites

SPEC = Input(modalities=("DX", "CR"), shape=(32, 32), normalisation="zscore")
BRIGHT = Model(
    lambda images: images[:, 8:24, 8:24].mean(axis=(1, 2)).astype(np.float64),
    heat=lambda images: np.ones_like(images, dtype=np.float64),
)


def test_machine_and_truth_come_together_as_in_the_scenario():
    specs = virtual_sites(load_scenario(HERE / "confounded.toml").site, 1)
    who = guests(specs, 5, 500)
    assert machines_of(specs) == ("aster-dr", "dorado-mobile")
    usual = [g for g in who if g.site != "reversed"]
    ill = {name: np.mean([g.positive for g in usual if g.scanner == name]) for name in machines_of(specs)}
    assert ill["dorado-mobile"] > 0.6
    assert ill["aster-dr"] < 0.2
    assert [g.number for g in who] == list(range(500))
    assert guests(specs, 5, 500) == who
    assert guests(specs, 6, 500) != who


def test_hospitals_without_a_population_follow_their_weights_and_many_are_drawn_from():
    specs = default_federation(6, 600)
    who = guests(specs, 1, 240)
    assert {g.scanner for g in who if g.site == "birch"} == {"dorado-mobile"}
    assert len({g.site for g in guests(default_federation(60, 1200), 1, 240)}) == 20


def test_one_machine_is_compared_with_all_there_are():
    specs = default_federation(6, 600)[:1]
    assert machines_of(specs) == tuple(SCANNERS)


def test_parts_join_to_the_same_scores_however_they_are_cut():
    specs = default_federation(6, 600)
    machines = machines_of(specs)
    who = guests(specs, 3, 12)
    whole = joined([told(BRIGHT, who, machines, 3, SPEC)], who, machines)
    parts = [told(BRIGHT, who[number::3], machines, 3, SPEC) for number in range(3)]
    cut = joined(parts, who, machines)
    np.testing.assert_array_equal(cut.logits, whole.logits)
    assert cut.machines[0] == SCANNERS[machines[0]].manufacturer
    assert (whole.factual == whole.logits[np.arange(12), whole.own]).all()


def test_the_body_is_the_same_and_masks_are_shares():
    (guest,) = guests(default_federation(6, 600), 3, 12)[:1]
    shown = exposed(guest, ("aster-dr", "cygnus-dr"), 3, SPEC)
    stranger = exposed(guests(default_federation(6, 600), 3, 12)[1], ("aster-dr", "cygnus-dr"), 3, SPEC)
    own = np.corrcoef(shown.images[0].ravel(), shown.images[1].ravel())[0, 1]
    other = np.corrcoef(shown.images[0].ravel(), stranger.images[1].ravel())[0, 1]
    assert own > other
    assert 0.1 < shown.lungs.mean() < 0.6
    assert shown.finding.max() <= 1.0


def test_heat_everywhere_is_the_share_of_area():
    specs = default_federation(6, 600)
    who = guests(specs, 3, 12)
    part = told(BRIGHT, who, machines_of(specs), 3, SPEC)
    assert part.lungs is not None
    np.testing.assert_allclose(part.lungs[:, 0], part.lungs[:, 1], atol=1e-6)
    assert part.finding is not None
    assert len(part.finding) == sum(g.positive for g in who)


def test_a_round_is_kept_when_the_next_begins(tmp_path):
    assert chosen(25) == (1, 2, 4, 8, 16)
    assert chosen(1) == ()
    keeper, checkpoint = Snapshots(tmp_path, 6), tmp_path / "checkpoint.safetensors"
    keeper.answered(1)
    for done in range(1, 7):
        checkpoint.write_text(f"model after {done}")
        keeper.answered(done + 1)
        keeper.answered(done + 1)
    assert {number: path.read_text() for number, path in kept(tmp_path).items()} == {
        number: f"model after {number}" for number in (1, 2, 4)
    }
    assert kept(tmp_path / "elsewhere") == {}


@pytest.mark.parametrize("rounds", [2, 3, 8, 9])
def test_the_last_round_is_not_kept_twice(rounds: int):
    assert rounds not in chosen(rounds)
