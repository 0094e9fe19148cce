"""What an approval is said to cost is about those who would be trained on, and about nobody else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from client.dataset import load_dataset
from client.policy import Policy
from client.privacy.ledger import Ledger, Limits, Release
from client.privacy.plan import DpPlan
from client.quality_hash import alike, perceptual_hash
from client.site import Site
from client.study_cost import Cost, cost_of
from common.accounting import DpEventSpec
from tests.client.made import add, fill, made_image, made_plan, noise
from tests.enrolled import consortium, enrol, hospital

PRIVATE = made_plan(
    federation={"rounds": 4, "least_sites": 1},
    privacy={"mode": "patient-dp", "epsilon": 3.0, "sampling_rate": 0.2},
)
OWN = 20
"""Patients whose pictures nobody else has."""


def _picture(grain: float) -> np.ndarray:
    """One picture in another export: [160, 160] float32, smooth parts and detail, a little noisier each time."""
    rng = np.random.default_rng(3)
    coarse, fine = (np.kron(rng.normal(size=(n, n)), np.ones((160 // n,) * 2)) for n in (20, 80))
    rough = grain * rng.normal(size=(160, 160))
    return (1000 + 300 * coarse + 60 * fine + rough).astype(np.float32)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Twenty patients of their own, and two pictures that two patients share, near but not equal.

    Of the first pair one picture has no label; of the second one patient has a picture of their own, too.
    """
    policy = Policy(min_patients=5, max_epsilon_lifetime=4.0, max_epsilon_per_year=4.0)
    made = hospital(tmp_path, policy=policy)
    enrol(consortium(tmp_path), made)
    made.dicom.mkdir()
    fill(made, OWN - 1, 1, 2)
    first, second = perceptual_hash(_picture(0)), perceptual_hash(_picture(8))
    assert first != second
    assert alike([first, second], ["A", "B"])
    third, fourth = perceptual_hash(_picture(0).T), perceptual_hash(_picture(8).T)
    assert not alike([first, third], ["A", "C"])
    _add(made, 901, "A", first, 1)
    _add(made, 902, "B", second, None)
    _add(made, 903, "C", third, 0)
    _add(made, 904, "D", fourth, 0)
    _add(made, 905, "D", "", 1)
    return made


def _add(site: Site, number: int, patient: str, code: str, label: int | None) -> None:
    image = made_image(noise(number), SOPInstanceUID=f"2.25.{number}")
    add(site, image, patient, label=label, perceptual_hash=code)


def _spend(site: Site, *patients: str) -> None:
    """A whole run that these patients alone were in."""
    dp = DpPlan.from_plan(PRIVATE, 100)
    rounds = PRIVATE.federation.rounds + PRIVATE.privacy.spare_rounds
    event = DpEventSpec(dp.sampling_rate, dp.noise_multiplier, dp.steps_per_round * rounds)
    keys = [f"spend-{patient}" for patient in patients]
    with Ledger(site.ledger) as ledger:
        ledger.charge(Release("run-0", 1, PRIVATE.digest, "m"), keys, event, Limits.of(site.policy, PRIVATE))


def _lifetime(cost: Cost) -> float | None:
    return next(one.before for one in cost.spent if one.span == "lifetime")


def test_those_who_share_a_picture_are_counted_as_the_training_counts_them(site: Site) -> None:
    data = load_dataset(site, PRIVATE)
    parts = (data.train, data.validation, data.test)
    cost = cost_of(site, PRIVATE)
    assert cost.patients == sum(part.n_patients for part in parts) == OWN
    assert cost.images == sum(len(part.rows) for part in parts) == OWN


def test_what_a_patient_spent_who_will_not_be_trained_on_costs_nobody(site: Site) -> None:
    """A, B and C have nothing left; the study is not about them, so it is neither dearer nor refused."""
    fresh = cost_of(site, PRIVATE)
    _spend(site, "A", "B", "C")
    cost = cost_of(site, PRIVATE)
    assert cost == fresh
    assert (_lifetime(cost), cost.refused) == (0.0, "")


def test_what_a_patient_spent_whose_other_picture_is_their_own_counts(site: Site) -> None:
    """D stays in the training with one picture, and the ledger will refuse the run for D's sake."""
    fresh = cost_of(site, PRIVATE)
    _spend(site, "D")
    cost = cost_of(site, PRIVATE)
    assert _lifetime(cost) == pytest.approx(fresh.epsilon)
    assert cost.refused == "ledger-spent"
    assert (cost.patients, cost.images) == (fresh.patients, fresh.images)
