"""False alarms are as often as stated; the short form of `consilium-sim null-rate`, and a mutant that fails it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from common.errors import InputError
from common.statistics import Sample
from simulations.null_rate.cohorts import NULLS, Cohort
from simulations.null_rate.sweep import LINES, Result, Sweep, null_trial, sweep
from simulations.null_rate.told import MARKS, markdown, promised, put
from simulations.null_rate.trials import ONE, Tally, Trial, carry_out

SIMULATIONS = 300
CASES = {cohort.name: cohort for cohort in NULLS}


class Images(Cohort):
    """The mutant: every image is taken for a patient, so that images are permuted."""

    def draw(self, rng: np.random.Generator) -> Sample:
        sample = super().draw(rng)
        return replace(sample, patients=np.arange(len(sample.truth)))


def alarms(cohort: Cohort) -> tuple[int, int]:
    """False alarms at 5% of one gap a simulation, so that all counted are independent."""
    trial = Trial(cohort, (("manufacturer",),), ("auroc",), permutations=199)
    counts = carry_out(trial, (11,), SIMULATIONS).comparisons[ONE]
    return counts[0], sum(counts)


def as_often_as_stated(found: int, of: int) -> bool:
    """Inside the exact binomial band that holds 5% in 998 of 1,000 cases."""
    return binom.cdf(found, of, 0.05) > 0.001 and binom.sf(found - 1, of, 0.05) > 0.001


@pytest.mark.parametrize("name", ["clustered", "ties", "rare", "sites"])
def test_alarms_are_as_often_as_stated(name):
    assert as_often_as_stated(*alarms(CASES[name]))


def test_permuting_images_instead_of_patients_cries_wolf():
    """The same band, the same seeds: this is what the test above is there to notice."""
    found, of = alarms(Images(**{**CASES["clustered"].__dict__, "name": "images"}))
    assert not as_often_as_stated(found, of)
    assert found / of > 0.10


def test_any_alarm_after_holm_is_rare():
    """Four figures, three families: in 120 simulations at most what 5% explains."""
    trial = replace(null_trial(CASES["plain"]), permutations=999)
    tally = carry_out(trial, (3,), 60)
    assert binom.sf(tally.alarms - 1, tally.simulations, 0.05) > 0.001


def test_a_planted_gap_is_found():
    cohort = Cohort("power", "", patients=900, planted=0.2)
    tally = carry_out(Trial(cohort, (("manufacturer",), ("sex",)), ("auroc",)), (5,), 20)
    assert tally.named >= 18


def test_what_was_kept_is_not_carried_out_again(tmp_path):
    first = sweep(Sweep(16, 0, 1), tmp_path, workers=1)
    lines = (tmp_path / LINES).read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(NULLS)
    with (tmp_path / LINES).open("a", encoding="utf-8") as file:
        file.write(json.dumps(json.loads(lines[0]))[:40])  # killed while it wrote
    assert sweep(Sweep(16, 0, 1), tmp_path, workers=1) == first
    assert len((tmp_path / LINES).read_text(encoding="utf-8").splitlines()) == len(NULLS) + 1


def test_figures_that_are_dear_to_permute_are_judged_apart(tmp_path):
    """Each by itself over its own cohorts, kept like the others, with 199 permutations."""
    result = sweep(Sweep(0, 0, 1, costly=3), tmp_path, workers=1)
    assert set(result.costly) == {"auprc", "slope", "intercept", "calibration_error"}
    for metric, found in result.costly.items():
        assert found.simulations == 3
        assert set(found.comparisons) <= {metric, f"best-worst {metric}"}
        assert found.rate()[1] >= 3 * 3
    assert sweep(Sweep(0, 0, 1, costly=3), tmp_path, workers=1) == result
    assert "| AUPRC | 3 |" in markdown(replace(result, nulls={"plain": tally(500, 10_000)}))


def test_one_dear_figure_that_cries_wolf_breaks_the_promise():
    whole = {"plain": tally(500, 10_000, 400)}
    assert promised(Result(1, whole, {}, {"slope": tally(100, 2000, 100)}))
    assert not promised(Result(1, whole, {}, {"slope": tally(150, 2000, 150)}))


def tally(alarms: int, of: int, wrong: int = 0) -> Tally:
    return Tally(
        of,
        wrong,
        0,
        {"auroc": [alarms, *[(of - alarms) // 19] * 18, of - alarms - 18 * ((of - alarms) // 19)]},
    )


def test_the_verdict_is_the_window(tmp_path):
    assert promised(Result(1, {"plain": tally(500, 10_000, 400)}, {}))
    assert not promised(Result(1, {"plain": tally(440, 10_000)}, {}))
    assert not promised(Result(1, {"plain": tally(560, 10_000)}, {}))
    assert not promised(Result(1, {"plain": tally(500, 10_000, 560)}, {}))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n", encoding="utf-8")
    put(page, Result(1, {"plain": tally(500, 10_000)}, {}))
    written = page.read_text(encoding="utf-8")
    assert "old" not in written
    assert "5.00%" in written
    assert written.endswith("after\n")
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(InputError):
        put(page, Result(1, {}, {}))
    assert markdown(Result(1, {"plain": tally(500, 10_000)}, {})).startswith("False alarms")
