"""The short form of the privacy audit: it passes what hospitals run, and fails every broken variant of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from client.site import Site, load_site
from common.errors import InputError
from simulations.attacks import canaries, imprint, ledger, membership, scale, sensitivity
from simulations.attacks.audit import membership_plan
from simulations.attacks.chapter import add_chapter
from simulations.attacks.images import chests
from simulations.attacks.likeness import best_matches, psnr, ssim
from simulations.attacks.page import Shown, write_page
from simulations.attacks.records import AuditRecord, Canaries, Check
from simulations.attacks.target import Target, mechanism
from tests.simulations import mutants
from tests.simulations.runs import once

SMALL = canaries.Setting(canaries=300, side=128)


def failed(checks) -> set[str]:
    """Names of the claims that did not hold."""
    return {check.name for check in checks if not check.passed}


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return chests(np.random.default_rng(3), 40, 32)


@pytest.fixture(scope="session")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A virtual hospital with 60 patients; the ledger's checks work on copies of it."""
    folder = once(tmp_path_factory, "audited", lambda place: ledger.hospital(place, 1))
    return load_site(folder / "site")


def test_real_noise_has_the_scale_that_was_accounted() -> None:
    assert not failed(scale.noise(Target()))


def test_halved_noise_fails_the_audit() -> None:
    """Mutant 1. Canaries would miss it; the direct test does not."""
    found = failed(scale.noise(Target(mutants.noise(mutants.HalfNoise))))
    assert found >= {
        "noise, one step",
        "noise, 4 steps",
        "noise, the registry's network",
        "noise, adaptive clip",
    }


def test_noise_two_percent_too_small_fails_too() -> None:
    class Slightly(mutants.NoiseSource):
        def fill(self, out, std):
            return super().fill(out, 0.98 * std)

    assert "noise, one step" in failed(scale.noise(Target(mutants.noise(Slightly))))


def test_the_same_noise_twice_fails_the_audit() -> None:
    """A server that gets two updates with one noise subtracts them."""
    assert "noise, fresh" in failed(scale.noise(Target(mutants.noise(mutants.SameNoise))))


def test_sampling_is_poisson_at_the_plan_s_rate() -> None:
    assert not failed(scale.sampling(Target()))


def test_drawing_patients_twice_as_often_fails_the_audit() -> None:
    found = failed(scale.sampling(Target(mutants.noise(mutants.TwiceDrawn))))
    assert "sampling, rate" in found


def test_batches_of_a_fixed_size_fail_the_audit() -> None:
    found = failed(scale.sampling(Target(mutants.noise(mutants.FixedSize))))
    assert "sampling, independence" in found


def test_no_patient_moves_the_real_sum_by_more_than_the_clip(pictures: np.ndarray) -> None:
    checks = sensitivity.clipping(Target(), pictures)
    assert not failed(checks)
    assert all(check.measured > 0.99 for check in checks if check.name.startswith("clipping"))


def test_skipped_clipping_fails_the_audit(pictures: np.ndarray) -> None:
    """Mutant 2."""
    found = failed(sensitivity.clipping(Target(mutants.engine(mutants.Unclipped)), pictures))
    assert found >= {"clipping, K = 1", "clipping, K = 4"}


def test_clipping_each_image_instead_of_each_patient_fails_the_audit(pictures: np.ndarray) -> None:
    """Mutant 3: with one image of each patient it is the same, and only there."""
    found = failed(sensitivity.clipping(Target(mutants.engine(mutants.ClippedPerImage)), pictures))
    assert found == {"clipping, K = 4"}


def test_batch_norm_in_train_mode_fails_the_audit(pictures: np.ndarray) -> None:
    """Mutant 4, hidden from every check by class: it mixes patients, and writes them into buffers."""
    found = failed(sensitivity.clipping(Target(network=mutants.batch_norm_network), pictures))
    assert found >= {"clipping, K = 1", "buffers"}


def test_batch_norm_by_its_own_name_is_refused_and_fails_the_audit(pictures: np.ndarray) -> None:
    def honest(side: int):
        return mutants.batch_norm_network(side, nn.BatchNorm2d)

    (check,) = sensitivity.clipping(Target(network=honest), pictures)
    assert (check.passed, check.note) == (False, "refused: dp-batch-norm")


def test_a_real_round_is_paid_for_repeated_and_refused_beyond_the_budget(
    audited: Site, tmp_path: Path
) -> None:
    assert not failed(ledger.paid(Target(), audited, tmp_path / "copy"))


@pytest.mark.parametrize("service", [mutants.unpaid, mutants.elsewhere])
def test_a_bypassed_ledger_fails_the_audit(audited: Site, tmp_path: Path, service) -> None:
    """Mutant 5: duties that never charge, and duties that charge where nobody looks."""
    found = failed(ledger.paid(Target(service=service), audited, tmp_path / "copy"))
    assert "ledger, charged" in found


def test_canaries_do_not_contradict_the_real_mechanism() -> None:
    found = canaries.plant(Target(), SMALL, "real", 1.0, np.random.default_rng(5))
    assert found.lower_bound <= 1.0


def test_canaries_contradict_the_claim_where_clipping_is_skipped() -> None:
    broken = Target(mutants.engine(mutants.Unclipped))
    found = canaries.plant(broken, SMALL, "unclipped", 1.0, np.random.default_rng(5))
    assert found.lower_bound > 3.0


def test_canaries_see_everything_without_protection() -> None:
    found = canaries.plant(Target(), SMALL, "plain", None, np.random.default_rng(5))
    assert found.correct == found.guesses
    assert found.lower_bound > 3.0


def test_the_bound_from_canaries_is_the_binomial_s_where_delta_is_nothing() -> None:
    """100 of 100 right: e^eps / (1 + e^eps) = 0.05^(1/100), which gives 3.491 by hand."""
    assert canaries.lower_bound(100, 100, 100, 0.0, 0.05) == pytest.approx(3.491, abs=2e-3)
    assert canaries.lower_bound(100, 100, 55, 0.0, 0.05) == 0.0
    assert canaries.lower_bound(100, 100, 100, 1e-3, 0.05) < 3.49


def test_what_epsilon_allows_an_attacker_is_the_formula() -> None:
    """Randomised response at ε = 1 tells the truth with e / (1 + e) = 0.731: true less false positives 0.462."""
    assert membership.allowed_advantage(1.0, 0.0) == pytest.approx(0.731059 - 0.268941, abs=1e-6)
    assert membership.allowed_advantage(0.0, 1e-3) == pytest.approx(1e-3)


def test_membership_without_protection_is_told_and_contradicts_a_claim_of_one() -> None:
    """Mutant: a hospital that trains without noise and claims ε = 1 is found out by its models alone."""
    bare, claimed = membership_plan(None), membership_plan(1.0)
    crowd = membership.train_crowd(Target(), chests(np.random.default_rng(3), 32, 32), bare, 8, 1)
    attacks = ("likelihood-ratio", "loss")
    honest = [membership.judge(crowd, "none", attack, bare, 1) for attack in attacks]
    assert not failed(membership.verdicts(honest)), "the attack has the power it needs"
    lying = [membership.judge(crowd, "ε = 1", attack, claimed, 1) for attack in attacks]
    assert failed(membership.verdicts(lying)) == {
        "membership, ε = 1, likelihood ratio",
        "membership, ε = 1, loss",
    }


def test_membership_under_privacy_is_within_what_epsilon_allows() -> None:
    plan = membership_plan(1.0)
    crowd = membership.train_crowd(Target(), chests(np.random.default_rng(3), 32, 32), plan, 6, 1)
    rows = [membership.judge(crowd, "ε = 1", attack, plan, 1) for attack in ("likelihood-ratio", "loss")]
    assert not failed(membership.verdicts(rows))
    assert all(row.advantage.value < row.allowed for row in rows)


def test_an_attack_without_power_fails_the_audit() -> None:
    """Guesses that know nothing prove nothing of the protected arms."""
    rng, plan = np.random.default_rng(2), membership_plan(None)
    blind = membership.Crowd(rng.normal(size=(8, 50)), rng.random((8, 50)) < 0.5)
    (check,) = membership.verdicts([membership.judge(blind, "none", "loss", plan, 1)])
    assert (check.name, check.passed) == ("membership, power", False)


def test_imprint_recovers_images_without_noise_and_none_under_it() -> None:
    everyone = chests(np.random.default_rng(4), 8 + 64, 64)
    originals, public = everyone[:8], everyone[8:]
    arms = {
        "plain": imprint.Arm("plain", None),
        "clipped": imprint.Arm("clipped", mechanism(0.0, 8)),
        "noisy": imprint.Arm("noisy", mechanism(1.0, 8)),
    }
    found = {
        name: imprint.attack(Target(), originals, public, arm)[0].recovered for name, arm in arms.items()
    }
    assert found["plain"] >= 6
    assert found["clipped"] >= 6
    assert found["noisy"] == 0


def test_likeness_knows_a_picture_from_another(pictures: np.ndarray) -> None:
    one, other = pictures[0], pictures[1]
    assert psnr(one, one) == 100.0
    assert ssim(one, one) == pytest.approx(1.0)
    assert ssim(one, other) < 0.95
    assert psnr(one, one + np.float32(0.1)) == pytest.approx(20.0, abs=1e-3)
    (found,) = best_matches(pictures[:1], np.stack([other, 3 * one - 1]))
    assert psnr(one, found) > 60


def test_an_audit_fails_where_one_claim_fails_or_nothing_was_tested(tmp_path: Path) -> None:
    """And its page says which, whatever else held."""
    good = Check("noise", "has its scale", 1.0, 0.99, 1.01, passed=True)
    bad = Check("clipping", "is done", 7.5, None, 1.0, passed=False)
    record = AuditRecord("2026-01-01T00:00:00+00:00", "sha256:0", 1.0, 1, True, "phantoms", "", (good,))
    assert record.passed
    assert not replace(record, checks=()).passed
    assert not replace(record, left_out=("ledger",)).passed
    broken = replace(record, checks=(good, bad))
    assert not broken.passed
    shown = (Shown("imprint", "original", chests(np.random.default_rng(0), 2, 32)),)
    write_page(broken, shown, tmp_path)
    text = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "The audit failed" in text
    assert "clipping: is done" in text
    assert "<script" not in text
    assert len(list((tmp_path / "pictures").iterdir())) == 2


def test_an_audit_becomes_a_chapter_of_a_run_s_report(run: Path, tmp_path: Path) -> None:
    for name in ("metrics.json", "report.html"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    picture = "data:image/png;base64,"
    before = (run / "report.html").read_text(encoding="utf-8").count(picture)
    good = Check("noise", "has its scale", 1.0, 0.99, 1.01, passed=True)
    found = Canaries("ε = 8", 8.0, 1e-5, 500, 124, 122, 2.67)
    audit = AuditRecord(
        "2026-01-01T00:00:00+00:00", "sha256:0", 1.0, 1, True, "phantoms", "", (good,), canaries=(found,)
    )
    originals = chests(np.random.default_rng(0), 2, 32)
    shown = (Shown("imprint", "original", originals), Shown("imprint", "none", originals))
    add_chapter(audit, shown, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Attacks on what hospitals send" in text
    assert "ε at least 2.67" in text
    assert text.count(picture) == before + 2
    assert "Originals, which stay in the hospital" in text
    assert "Imprint, none" in text
    add_chapter(replace(audit, images="real"), shown, tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count(picture) == before
    with pytest.raises(InputError, match="no run"):
        add_chapter(audit, shown, tmp_path / "elsewhere")
