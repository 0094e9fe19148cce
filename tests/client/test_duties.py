"""The imaging work behind the gates: policy first, paid before noise, repeated for free."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from client import scores
from client.at_hand import AtHand
from client.dataset import public_bucket
from client.duties import ImagingDuties
from client.index import Index
from client.privacy.ledger import Ledger
from client.service import SiteService
from client.site import init_site
from common import plan as plans
from common import wire
from common.arrays import norm
from common.audit import read
from common.code import code_digest
from common.errors import DataError, LedgerError, PolicyRefused
from common.messages import Instruction, Kind, Refusal, Update
from server.start import start_of
from tests.client.made import add, made_image, made_plan, noise
from tests.sites import image_site

OPEN = made_plan(evaluation={"min_cell": 1, "bootstrap": 100})
PRIVATE = made_plan(privacy={"mode": "patient-dp"}, evaluation={"min_cell": 1, "bootstrap": 100})


def _instruction(kind, plan, round_=1, **changes):
    arrays = {} if kind is Kind.SURVEY else start_of(plan).arrays
    made = Instruction(kind, "run-1", round_, plans.dump_plan(plan), plan.digest, code_digest(), arrays, 0.4)
    return replace(made, **changes)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sites")
    image_site(folder / "alpha", "alpha")
    return folder / "alpha"


@pytest.fixture
def site(prepared, tmp_path):
    """The prepared hospital with a state of its own, as each arm of a simulation has it."""
    shutil.copytree(prepared, tmp_path / "alpha")
    return image_site(tmp_path / "alpha", "alpha")


def test_a_survey_says_a_public_bucket_that_stays_when_patients_come_and_go(site):
    duties = ImagingDuties(site)
    bucket = duties.survey(_instruction(Kind.SURVEY, OPEN), OPEN).intake.patients_bucket
    assert bucket == 20
    with Index(site.index) as index:
        for patient in ("P001", "P002", "P003", "P004", "P005", "P006", "P007", "P008", "P009"):
            index.withdraw(patient)
    again = ImagingDuties(site).survey(_instruction(Kind.SURVEY, OPEN), OPEN).intake.patients_bucket
    assert again == bucket


def test_asking_with_many_fractions_does_not_tell_the_exact_number_of_patients(site):
    """Each answer must follow from the first one and the plan; then no answer adds anything to it."""
    duties = ImagingDuties(site)
    first = duties.survey(_instruction(Kind.SURVEY, OPEN), OPEN).intake.patients_bucket
    share = 1 - OPEN.data.test_fraction - OPEN.data.validation_fraction
    for fraction in (0.05, 0.1, 0.15, 0.2, 0.4, 0.6):
        plan = plans.replace(OPEN, data={"test_fraction": fraction, "split_seed": 7})
        asked = 1 - fraction - plan.data.validation_fraction
        told = duties.survey(_instruction(Kind.SURVEY, plan), plan).intake.patients_bucket
        assert told == public_bucket(int(first * asked / share))


def test_training_without_privacy_is_the_same_to_the_bit_and_charged_as_infinite(site, tmp_path):
    first = ImagingDuties(site).train(_instruction(Kind.TRAIN, OPEN), OPEN)
    shutil.rmtree(site.state)
    second = ImagingDuties(site).train(_instruction(Kind.TRAIN, OPEN), OPEN)
    assert all(first.arrays[n].tobytes() == second.arrays[n].tobytes() for n in first.arrays)
    assert first.epsilon is None
    assert norm(first.arrays) > 0
    with Ledger(site.ledger, simulated=True) as ledger:
        assert ledger.epsilon(1e-5) == float("inf")


def test_a_private_update_is_charged_and_a_repeat_sends_the_same_bytes_for_free(site):
    duties = ImagingDuties(site)
    first = duties.train(_instruction(Kind.TRAIN, PRIVATE), PRIVATE)
    again = ImagingDuties(site).train(_instruction(Kind.TRAIN, PRIVATE), PRIVATE)
    assert wire.pack(first) == wire.pack(again)
    with Ledger(site.ledger, simulated=True) as ledger:
        assert len(ledger.charges) == 1
        assert ledger.epsilon(1e-5) == pytest.approx(first.epsilon)
    assert 0 < first.epsilon <= PRIVATE.privacy.epsilon
    assert "update.replayed" in [entry["event"] for entry in read(site.audit)]


def test_another_incoming_model_in_the_same_round_is_charged_again(site):
    duties = ImagingDuties(site)
    first = duties.train(_instruction(Kind.TRAIN, PRIVATE), PRIVATE)
    moved = {n: a + np.float32(0.01) for n, a in start_of(PRIVATE).arrays.items()}
    second = duties.train(_instruction(Kind.TRAIN, PRIVATE, arrays=moved), PRIVATE)
    assert second.epsilon > first.epsilon
    assert wire.pack(first) != wire.pack(second)


def test_a_spent_budget_ends_training_and_says_so(site):
    duties = ImagingDuties(site)
    plan = plans.replace(PRIVATE, federation={"rounds": 2})
    service = SiteService(site, duties)
    replies = []
    for round_ in (1, 2, 3, 4):
        moved = {n: a + np.float32(round_) / 100 for n, a in start_of(plan).arrays.items()}
        replies.append(service.handle(_instruction(Kind.TRAIN, plan, round_, arrays=moved)))
    assert [type(reply) for reply in replies] == [Update, Update, Refusal, Refusal]
    assert replies[2].code == "ledger-spent"


def test_policy_comes_before_data(tmp_path):
    """A hospital that allows private plans only refuses without even having an index."""
    site = init_site(tmp_path / "a", "a", simulation_seed=1)
    with pytest.raises(PolicyRefused) as caught:
        ImagingDuties(site).train(_instruction(Kind.TRAIN, OPEN), OPEN)
    assert caught.value.code == "policy-non-private"
    assert not site.index.exists()
    assert not site.ledger.exists()


def test_a_real_site_without_its_ledger_does_not_train(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "alpha")
    real = replace(image_site(tmp_path / "alpha", "alpha"), simulated=False)
    with pytest.raises(LedgerError) as caught:
        ImagingDuties(real).train(_instruction(Kind.TRAIN, PRIVATE), PRIVATE)
    assert caught.value.code == "ledger-missing"


def test_a_site_with_three_patients_is_told_by_name(tmp_path):
    site = image_site(tmp_path / "few", "few", patients=3)
    with pytest.raises(DataError):
        ImagingDuties(site).train(_instruction(Kind.TRAIN, OPEN), OPEN)


def test_a_site_that_only_tests_trains_nothing_and_measures(tmp_path):
    site = image_site(tmp_path / "ext", "ext", split="test")
    duties = ImagingDuties(site)
    assert duties.survey(_instruction(Kind.SURVEY, OPEN), OPEN).intake.patients_bucket == 0
    with pytest.raises(PolicyRefused) as caught:
        duties.train(_instruction(Kind.TRAIN, OPEN), OPEN)
    assert caught.value.code == "test-only"
    assert duties.threshold(_instruction(Kind.THRESHOLD, OPEN), OPEN).threshold is None
    assert duties.evaluate(_instruction(Kind.EVALUATE, OPEN), OPEN).models[0].groups[0].auroc is not None


def test_scores_stay_home_and_models_that_scored_the_same_patients_are_paired(site):
    plan = plans.replace(OPEN, personalisation={"method": "finetune", "epochs": 1})
    duties = ImagingDuties(site)
    before = duties.evaluate(_instruction(Kind.EVALUATE, plan), plan)
    assert [m.model for m in before.models] == ["federated", "personalised"]
    assert [(c.model, c.other) for c in before.comparisons] == [("personalised", "federated")]
    assert {m.threshold for m in before.models} == {0.4}
    own = scores.load(site, "federated")
    scores.save(site, scores.ALONE, replace(own, scores=1 - own.scores))
    after = duties.evaluate(_instruction(Kind.EVALUATE, plan), plan)
    pairs = {(c.model, c.other) for c in after.comparisons}
    assert pairs == {("federated", "alone"), ("personalised", "alone"), ("personalised", "federated")}
    assert [m.model for m in after.models] == ["federated", "personalised"]


@pytest.mark.parametrize("asked", [OPEN, PRIVATE])
def test_without_the_policys_word_no_figure_of_a_model_tuned_without_noise_leaves(site, asked):
    """A fine-tuned model is a function of training patients that no noise covers; the hospital keeps it."""
    plan = plans.replace(asked, personalisation={"method": "finetune", "epochs": 1})
    strict = replace(site, policy=replace(site.policy, allow_non_private=False))
    told = ImagingDuties(strict).evaluate(_instruction(Kind.EVALUATE, plan), plan)
    assert [m.model for m in told.models] == ["federated"]
    assert told.comparisons == ()
    assert scores.load(site, "personalised-dp" if plan.private else "personalised") is not None
    assert "ledger.charged" not in [entry["event"] for entry in read(site.audit)]


def test_figures_of_a_model_tuned_without_noise_are_on_the_ledger_beside_the_private_rounds(site):
    plan = plans.replace(PRIVATE, personalisation={"method": "finetune", "epochs": 1})
    duties = ImagingDuties(site)
    duties.train(_instruction(Kind.TRAIN, plan), plan)
    told = duties.evaluate(_instruction(Kind.EVALUATE, plan), plan)
    assert "personalised" in [m.model for m in told.models]
    assert 0 < told.epsilon <= plan.privacy.epsilon
    with Ledger(site.ledger, simulated=True) as ledger:
        assert ledger.epsilon(plan.privacy.delta) == float("inf")
        assert [charge.event.private for charge in ledger.charges] == [True, False]


def test_a_run_that_only_fine_tuned_here_is_listed_for_its_patients(site):
    """Who withdraws is told of every run that learned from them, also of one whose rounds they missed."""
    plan = plans.replace(OPEN, personalisation={"method": "finetune", "epochs": 1})
    ImagingDuties(site).evaluate(_instruction(Kind.EVALUATE, plan), plan)
    with Index(site.index) as index:
        assert any("run-1" in index.runs_of(f"P{n:03d}") for n in range(40))


def test_scores_of_other_patients_are_not_paired(site):
    duties = ImagingDuties(site)
    duties.evaluate(_instruction(Kind.EVALUATE, OPEN), OPEN)
    own = scores.load(site, "federated")
    scores.save(site, scores.ALONE, replace(own, pseudonyms=[*own.pseudonyms[:-1], "someone"]))
    assert duties.evaluate(_instruction(Kind.EVALUATE, OPEN), OPEN).comparisons == ()


def test_a_patient_who_withdraws_is_out_of_the_next_round(site):
    duties = ImagingDuties(site)
    duties.train(_instruction(Kind.TRAIN, PRIVATE), PRIVATE)
    with Ledger(site.ledger, simulated=True) as ledger:
        before = ledger.charges[-1].patients
    with Index(site.index) as index:
        trained = [p for p in (f"P{n:03d}" for n in range(40)) if "run-1" in index.runs_of(p)]
        gone = trained[:10]
        for patient in gone:
            index.withdraw(patient)
    duties.train(_instruction(Kind.TRAIN, PRIVATE, 2), PRIVATE)
    with Ledger(site.ledger, simulated=True) as ledger:
        after = ledger.charges[-1].patients
    assert before - 10 <= after < before


def test_patients_stay_at_hand_when_a_run_notes_them_and_not_when_one_of_them_withdraws_or_comes(site):
    """What is read again in every round makes a simulation slow; what is not read again would outlive a withdrawal."""
    at_hand = AtHand(site)
    first = at_hand.data(OPEN)
    with Index(site.index) as index:
        index.record_run("run-7", first.train.pseudonyms)
    assert at_hand.data(OPEN) is first
    with Index(site.index) as index:
        index.withdraw(first.train.pseudonyms[0])
    second = at_hand.data(OPEN)
    assert second.train.n_patients == first.train.n_patients - 1
    made = made_image(noise(4711), SOPInstanceUID="2.25.4711")
    add(site, made, "P999", label=1)
    assert at_hand.data(OPEN) is not second


def test_weights_of_another_network_are_refused(site):
    wrong = {**start_of(OPEN).arrays, "extra": np.zeros(1, np.float32)}
    reply = SiteService(site).handle(_instruction(Kind.TRAIN, OPEN, arrays=wrong))
    assert isinstance(reply, Refusal)
    assert reply.code == "arrays"


def test_an_adaptive_clip_goes_on_where_the_run_left_it_in_another_process_too(site):
    plan = plans.replace(PRIVATE, privacy={"clipping": "adaptive"})
    duties = ImagingDuties(site)
    duties.train(_instruction(Kind.TRAIN, plan), plan)
    ceiling = site.policy.max_clip
    assert duties._mechanism("run-1", plan, 20).clip != plan.privacy.clip
    assert duties._mechanism("run-2", plan, 20).clip == plan.privacy.clip
    left = duties._mechanism("run-1", plan, 20).clip
    assert ImagingDuties(site)._mechanism("run-1", plan, 20).clip == left
    assert duties._mechanism("run-1", plan, 20).adaptive.most == ceiling
