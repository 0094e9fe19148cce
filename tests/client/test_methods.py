"""The site's half of the methods: what stays, what leaves, and what a kill leaves behind."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from client.coarsen import Rules, cleaned
from client.dataset import SiteData
from client.duties import ImagingDuties
from client.evaluation import Scores, log_loss, predict
from client.methods import Memory, Own, Round, learn
from client.methods.calibration import Platt, calibrated, fit
from client.methods.contract import Given
from client.methods.ditto import own_model
from client.methods.local_affine import LocalAffine
from client.methods.memory import RUNS
from client.policy import Policy
from client.study_words import words
from client.training import train
from common import plan as plans
from common import wire
from common.checkpoints import load
from common.code import code_digest
from common.errors import FederationError, PlanError, StorageError
from common.messages import Instruction, Kind, Update
from common.models import build, get_arrays, metrics, set_arrays
from server.start import start_of
from server.strategies import strategy_for
from tests.client.few_patients import few_patients, small_plan
from tests.client.made import made_plan
from tests.sites import image_site

EASY = {"bootstrap": 100, "min_cell": 1}
STEPS = {"momentum": 0.0, "learning_rate": 0.1, "local_steps": 3}
SCAFFOLD = made_plan(federation={"strategy": "scaffold"}, training=STEPS, evaluation=EASY)
DITTO = {"method": "ditto", "epochs": 2, "learning_rate": 0.05, "proximal_mu": 0.5}


def new(plan):
    return build(plan.model, plan.task.outputs, plan.input.shape)


def learned(plan, data, kept=None, number=1, model=None, **sent):
    net = new(plan)
    arrays = {**(model or get_arrays(net)), **sent}
    return learn(net, data, plan, None, Round(number, arrays, kept or {}))


def far(one, other):
    return float(np.sqrt(sum(np.square(one[n] - other[n]).sum() for n in other)))


# ---- training under a method ---------------------------------------------------------------------------


def test_so_many_steps_at_every_site_whatever_its_size():
    plan = small_plan(training={"local_steps": 7})
    assert {train(new(plan), few_patients(n), plan, dp=None, round=1).steps for n in (4, 9, 30)} == {7}


def test_plain_learning_is_training_to_the_bit():
    plan, data = small_plan(), few_patients(8)
    plain, through = train(new(plan), data, plan, dp=None, round=1), learned(plan, data)
    assert all(plain.delta[n].tobytes() == through.result.delta[n].tobytes() for n in plain.delta)
    assert through.kept == {}


def test_a_push_of_the_gradients_opposite_holds_the_weights_where_they_are():
    """One step of plain SGD: what is pushed is added to the gradient, no more and no less."""
    training = {"local_steps": 1, "momentum": 0.0, "batch_patients": 8}
    plan, data = small_plan(training=training), few_patients(8, most=1)
    free = train(new(plan), data, plan, dp=None, round=1)
    push = {n: d / np.float32(plan.training.learning_rate) for n, d in free.delta.items()}
    held = train(new(plan), data, plan, dp=None, round=1, push=push)
    assert (
        far(held.delta, {n: 0 * d for n, d in free.delta.items()})
        < 1e-5 * far(free.delta, {n: 0 * d for n, d in free.delta.items()}) + 1e-7
    )


def test_a_variate_follows_the_papers_second_option():
    plan, data = small_plan(federation={"strategy": "scaffold"}, training=STEPS), few_patients(8)
    model = get_arrays(new(plan))
    control = {f"control.{n}": np.full(a.shape, 0.01, np.float32) for n, a in model.items()}
    first = learned(plan, data, **control)
    stride = 3 * 0.1
    for name, change in first.result.delta.items():
        np.testing.assert_allclose(first.kept[f"variate.{name}"], -0.01 - change / stride, atol=1e-6)
    second = learned(plan, data, first.kept, 2, **control)
    for name, change in second.result.delta.items():
        before = first.kept[f"variate.{name}"]
        np.testing.assert_allclose(second.kept[f"variate.{name}"], before - 0.01 - change / stride, atol=1e-6)


def test_without_the_servers_variate_it_is_refused():
    with pytest.raises(FederationError) as caught:
        learned(small_plan(federation={"strategy": "scaffold"}, training=STEPS), few_patients(4))
    assert caught.value.code == "method"


# ---- Ditto ---------------------------------------------------------------------------------------------


def test_ditto_lies_between_training_alone_and_the_shared_model_as_lambda_grows():
    """Li et al. 2021: at 0 the own model is trained alone; the larger lambda is, the nearer it stays."""
    data, distances = few_patients(10), []
    for mu in (0.0, 1.0, 4.0, 15.0):
        plan = small_plan(
            training={"momentum": 0.0}, personalisation={**DITTO, "proximal_mu": mu, "epochs": 6}
        )
        model = get_arrays(new(plan))
        kept = learned(plan, data).kept
        own = own_model(Given(model, kept=kept))
        distances.append(far(own, model))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.5 * distances[0]


def test_ditto_changes_nothing_of_what_leaves_and_goes_on_from_its_own_model():
    plan, data = small_plan(personalisation=DITTO), few_patients(8)
    plain = learned(small_plan(), data)
    first = learned(plan, data)
    assert all(plain.result.delta[n].tobytes() == d.tobytes() for n, d in first.result.delta.items())
    again, on = learned(plan, data, number=2), learned(plan, data, first.kept, 2)
    assert far(on.kept, first.kept) > 0
    assert far(on.kept, again.kept) > 0


# ---- local affine --------------------------------------------------------------------------------------


def test_scales_and_shifts_stay_and_the_shared_model_hears_how_far_they_are():
    plan, data = small_plan(personalisation={"method": "local-affine"}), few_patients(8)
    net = new(plan)
    method, model = LocalAffine.of(net), get_arrays(net)
    assert method.names
    assert all(name.split(".")[-1] in ("weight", "bias") and model[name].ndim == 1 for name in method.names)
    first = learned(plan, data)
    moved = {n: a + 0.5 for n, a in model.items()}
    second = learned(plan, data, first.kept, 2, moved)
    began = method.with_own(moved, first.kept)
    for name in model:
        if name in method.names:
            np.testing.assert_array_equal(began[name], first.kept[f"affine.{name}"])
            np.testing.assert_allclose(
                second.result.delta[name], second.kept[f"affine.{name}"] - moved[name], atol=1e-7
            )
        else:
            np.testing.assert_array_equal(began[name], moved[name])


def test_a_network_without_such_layers_is_refused():
    plan = small_plan(personalisation={"method": "local-affine"})
    bare = build(
        small_plan(model={"name": "scatter", "options": {"scales": 2, "grid": 4}}).model, 1, (16, 16)
    )
    with pytest.raises(PlanError, match="trains none"):
        learn(bare, few_patients(4), plan, None, Round(1, get_arrays(bare), {}))


def test_sites_whose_machines_differ_learn_sooner_with_layers_of_their_own():
    """Li et al. 2021 (FedBN), figure 3: under a shift of features the training loss falls faster than FedAvg's."""
    first, second = few_patients(12, seed=1), few_patients(12, seed=2)
    second = replace(second, images=(0.3 * second.images - 1.5).astype(np.float32))

    def after(personalisation):
        plan = small_plan(personalisation=personalisation, training={"local_epochs": 2})
        rule, net = strategy_for(plan), new(plan)
        carried, kept = get_arrays(net), [{}, {}]
        for number in range(1, 13):
            state = rule.init({n: a.shape for n, a in carried.items()}, 20)
            for k, data in enumerate((first, second)):
                one = learned(plan, data, kept[k], number, carried)
                kept[k] = one.kept
                state = rule.fold(state, one.result.delta, 10)
            carried = rule.apply(carried, state, 1.0)
        losses = []
        for k, data in enumerate((first, second)):
            set_arrays(net, LocalAffine.of(net).with_own(carried, kept[k]))
            losses.append(log_loss(predict(net, data)))
        return np.mean(losses)

    assert after({"method": "local-affine"}) < after({})


# ---- calibration ---------------------------------------------------------------------------------------


def _scores(chances, truth):
    n = len(chances)
    names = [f"p{i}" for i in range(n)]
    return Scores(np.asarray(chances)[:, None], np.asarray(truth, float)[:, None], np.arange(n), {}, names)


def test_slope_and_offset_are_found_again():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 20_000)
    truth = rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * logits - 0.7)))
    found = fit(1 / (1 + np.exp(-logits)), truth, np.ones(20_000))
    assert (found.slope, found.offset) == (pytest.approx(0.5, abs=0.03), pytest.approx(-0.7, abs=0.05))


def test_an_overconfident_network_is_calibrated_and_its_ranks_stay():
    """Guo et al. 2017: expected calibration error falls, discrimination does not change."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1.5, 600)
    truth = rng.random(600) < 1 / (1 + np.exp(-logits))
    loud = _scores(1 / (1 + np.exp(-4 * logits)), truth)
    half = np.arange(600) < 300
    test, validation = loud.take(~half), loud.take(half)
    better = calibrated(test, validation)
    assert metrics.ece(better.scores, better.labels) < 0.5 * metrics.ece(test.scores, test.labels)
    assert log_loss(better) < log_loss(test)
    assert (np.argsort(better.scores[:, 0]) == np.argsort(test.scores[:, 0])).all()


def test_what_cannot_be_calibrated_stays_as_it_was():
    chances = np.array([0.2, 0.4, 0.6, 0.9])
    assert fit(chances, np.zeros(4, bool), np.ones(4)) == Platt()
    assert fit(chances, np.array([True, True, False, False]), np.ones(4)) == Platt()
    perfect = fit(chances, np.array([False, False, True, True]), np.ones(4))
    assert 0 < perfect.slope < 100, "Platt's targets keep a perfect separation finite"


# ---- what is kept on disk ------------------------------------------------------------------------------


def test_a_round_begins_from_the_round_before_never_from_itself(tmp_path):
    memory = Memory(tmp_path, "run-1")
    assert memory.newest() == {}
    for number in (1, 2, 4):
        memory.keep(number, {"w": np.full(2, number, np.float32)}, "sha256:p")
    assert [memory.before(n)["w"][0] for n in (3, 4, 5)] == [2, 2, 4]
    assert sorted(p.name for p in (tmp_path / "methods" / "run-1").iterdir()) == [
        "2.safetensors",
        "4.safetensors",
    ]
    memory.erase()
    assert memory.newest() == {}


def test_runs_that_were_never_measured_do_not_pile_up(tmp_path):
    for number in range(RUNS + 2):
        Memory(tmp_path, f"run-{number}").keep(1, {"w": np.ones(1, np.float32)}, "sha256:p")
    left = {p.name for p in (tmp_path / "methods").iterdir()}
    assert left == {f"run-{number}" for number in range(2, RUNS + 2)}


def test_what_was_altered_on_disk_is_refused(tmp_path):
    memory = Memory(tmp_path, "run-1")
    memory.keep(1, {"w": np.ones(4, np.float32)}, "sha256:p")
    path = tmp_path / "methods" / "run-1" / "1.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(StorageError):
        memory.newest()


def _instruction(plan, kind=Kind.TRAIN, round_=1, model=None):
    rule = strategy_for(plan)
    carried = rule.begin(model or start_of(plan).arrays)
    arrays = rule.sent(carried) if kind is Kind.TRAIN else start_of(plan).arrays
    text = plans.dump_plan(plan)
    return Instruction(kind, "run-1", round_, text, plan.digest, code_digest(), arrays, 0.4)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sites")
    image_site(folder / "alpha", "alpha")
    return folder / "alpha"


_DIES = """
import os, signal, sys
from pathlib import Path
seen = []
def watch(event, args):
    if seen:
        seen.clear()
        os.kill(os.getpid(), signal.SIGKILL)
    if event == "os.rename" and str(args[1]).endswith("methods/run-1/2.safetensors"):
        seen.append("renamed")
from client.duties import ImagingDuties
from client.site import load_site
from common import wire
from common.plan import parse_plan
asked = wire.unpack(Path(sys.argv[2]).read_bytes())
duties = ImagingDuties(load_site(Path(sys.argv[1])))
sys.addaudithook(watch)
duties.train(asked, parse_plan(asked.plan_toml))
"""


def test_killed_after_its_variate_was_written_a_round_begins_anew_where_it_began(prepared, tmp_path):
    """SIGKILL between the file of round 2 and its update: trained again, the update is that of a run never killed."""
    updates = []
    for name in ("whole", "torn"):
        shutil.copytree(prepared, tmp_path / name / "alpha")
        site = image_site(tmp_path / name / "alpha", "alpha")
        ImagingDuties(site).train(_instruction(SCAFFOLD), SCAFFOLD)
        second = _instruction(SCAFFOLD, round_=2)
        if name == "torn":
            (tmp_path / "asked").write_bytes(wire.pack(second))
            command = [sys.executable, "-c", _DIES, site.folder, tmp_path / "asked"]
            died = subprocess.run(command, capture_output=True, timeout=300, check=False)
            assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
            kept = Memory(site.state, "run-1")
            assert any(not np.array_equal(a, kept.before(2)[n]) for n, a in kept.newest().items())
        updates.append(ImagingDuties(site).train(second, SCAFFOLD))
    one, two = (update.arrays for update in updates)
    assert all(one[n].tobytes() == two[n].tobytes() for n in one)


# ---- over whole duties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ditto", "local-affine", "calibrate"])
def test_the_own_model_is_measured_kept_at_home_and_what_made_it_erased(prepared, tmp_path, method):
    plan = made_plan(personalisation={**DITTO, "method": method}, evaluation=EASY)
    shutil.copytree(prepared, tmp_path / "alpha")
    site = image_site(tmp_path / "alpha", "alpha")
    duties = ImagingDuties(site)
    duties.train(_instruction(plan), plan)
    assert (site.state / "methods" / "run-1").exists() == (method != "calibrate")
    asked = _instruction(plan, Kind.EVALUATE)
    first = duties.evaluate(asked, plan)
    assert [m.model for m in first.models] == ["federated", "personalised"]
    assert load(site.data / "models" / "personalised.safetensors").run == "run-1"
    assert not (site.state / "methods" / "run-1").exists()
    again = ImagingDuties(site).evaluate(asked, plan)
    assert again.models == first.models, "asked again, the saved model answers for what was erased"


def test_under_privacy_layers_of_noised_steps_may_be_told_of_and_cost_nothing_more(prepared, tmp_path):
    plan = made_plan(
        personalisation={"method": "local-affine"}, privacy={"mode": "patient-dp"}, evaluation=EASY
    )
    shutil.copytree(prepared, tmp_path / "alpha")
    site = replace(image_site(tmp_path / "alpha", "alpha"), policy=Policy(min_patients=5, min_cell=1))
    duties = ImagingDuties(site)
    duties.train(_instruction(plan), plan)
    told = duties.evaluate(_instruction(plan, Kind.EVALUATE), plan)
    assert [m.model for m in told.models] == ["federated", "personalised"]
    assert told.epsilon is not None
    assert np.isfinite(told.epsilon)


@pytest.mark.parametrize("method", ["ditto", "calibrate"])
def test_under_privacy_an_own_model_without_noise_is_not_told_of(prepared, tmp_path, method):
    plan = made_plan(
        personalisation={**DITTO, "method": method}, privacy={"mode": "patient-dp"}, evaluation=EASY
    )
    shutil.copytree(prepared, tmp_path / "alpha")
    site = replace(image_site(tmp_path / "alpha", "alpha"), policy=Policy(min_patients=5, min_cell=1))
    duties = ImagingDuties(site)
    duties.train(_instruction(plan), plan)
    assert [m.model for m in duties.evaluate(_instruction(plan, Kind.EVALUATE), plan).models] == ["federated"]


@pytest.mark.parametrize("plan", [SCAFFOLD, made_plan(personalisation=DITTO, evaluation=EASY)])
def test_a_hospital_by_itself_trains_as_it_is_whatever_the_plans_method(prepared, tmp_path, plan):
    """`consilium-site train` with the federation's own plan: there is no variate and nothing to hold a model near to."""
    shutil.copytree(prepared, tmp_path / "alpha")
    site = image_site(tmp_path / "alpha", "alpha")
    asked = replace(_instruction(plan), arrays=start_of(plan).arrays)
    update = ImagingDuties(site, alone=True).train(asked, plan)
    assert list(update.arrays) == list(start_of(plan).arrays)
    assert not (site.state / "methods").exists()


# ---- the loss at the door ------------------------------------------------------------------------------

FAIR = {"federation": {"strategy": "q-ffl"}, "method": {"fairness_q": 1.0}}
OPEN = Policy(allow_non_private=True)


def _leaves(policy, plan):
    update = Update("alpha", "run-1", 1, plan.digest, code_digest(), 100, {}, objective=0.123456)
    return cleaned(update, Rules.of(policy, plan)).objective


def test_the_training_loss_leaves_for_a_method_that_weights_by_it_and_for_no_other():
    assert _leaves(OPEN, made_plan(**FAIR)) == 0.123
    assert _leaves(OPEN, made_plan()) is None
    assert _leaves(Policy(allow_non_private=True, metrics=("auroc",)), made_plan(**FAIR)) is None
    assert _leaves(Policy(private_progress=True), made_plan(privacy={"mode": "patient-dp"})) is None
    assert Rules.of(OPEN).objective is False


def test_the_door_does_not_rest_on_the_plans_own_rules():
    """A private or masked plan of such a method is refused; should one come all the same, the loss stays."""
    plan = made_plan(**FAIR)
    private = replace(plan, privacy=plans.Privacy(mode="patient-dp"))
    masked = replace(plan, federation=replace(plan.federation, aggregation="secure", least_sites=3))
    told = Policy(allow_non_private=True, private_progress=True)
    assert [Rules.of(told, one).objective for one in (plan, private, masked)] == [True, False, False]


def test_who_approves_a_study_is_told_which_method_it_has_and_that_a_loss_leaves():
    plain, fair = (dict(words(plan, OPEN)) for plan in (made_plan(), made_plan(**FAIR)))
    assert "training loss" in fair["what leaves"]
    assert "training loss" not in plain["what leaves"]
    assert fair["methods"].startswith("q-ffl (Li et al.")
    kept = made_plan(personalisation={"method": "local-affine"})
    assert "layers of your own" in dict(words(kept, OPEN))["stays here"]


def test_it_is_the_loss_of_the_incoming_model_on_training_patients(prepared, tmp_path):
    plan = made_plan(**FAIR, evaluation=EASY)
    shutil.copytree(prepared, tmp_path / "alpha")
    site = image_site(tmp_path / "alpha", "alpha")
    update = ImagingDuties(site).train(_instruction(plan), plan)
    from client.dataset import load_dataset  # noqa: PLC0415 - one test's

    net = new(plan)
    set_arrays(net, start_of(plan).arrays)
    assert update.objective == pytest.approx(log_loss(predict(net, load_dataset(site, plan).train)))


def test_an_own_model_that_does_harm_is_not_taken_over():
    plan, data = small_plan(personalisation=DITTO), few_patients(40)
    net = new(plan)
    train(net, data, small_plan(training={"local_epochs": 12}), dp=None, round=1)
    shared = get_arrays(net)
    bad = {f"own.{n}": -a for n, a in shared.items()}
    Own(plan, bad, {}).scores(net, SiteData(data, data, data))
    assert all(np.array_equal(get_arrays(net)[n], a) for n, a in shared.items())
