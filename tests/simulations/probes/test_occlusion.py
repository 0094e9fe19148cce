"""Hidden borders and markers: an alarm where the model reads them, none where it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from simulations.probes.contract import Seen
from simulations.probes.occlusion import hidden, occlusion, regions
from tests.simulations.probes.made import SIDE, reader, seen

CORNER = (slice(0, 3), slice(0, 3))
SEEDS = 200


def marked(
    given: Seen, rng: np.random.Generator, ill: float, healthy: float, site: str | None = None
) -> Seen:
    """A bright corner on so many of the ill and of the healthy, of one site or of all."""
    here = np.ones(len(given.truth), dtype=bool) if site is None else given.attributes["site"] == site
    images = given.images.copy()
    chosen = here & (rng.random(len(here)) < np.where(given.truth, ill, healthy))
    images[chosen, *CORNER] += 3.0
    return replace(given, images=images)


def test_a_marker_that_goes_with_the_label_is_found_and_hiding_it_takes_the_auroc_down():
    rng = np.random.default_rng(0)
    probes = occlusion(reader(CORNER), marked(seen(rng), rng, 0.9, 0.1))
    whole = {p.subject: p for p in probes if p.where == "all"}
    assert whole["markers"].found(0.05)
    assert whole["markers"].figure.low > 0.05
    assert whole["markers"].before.value > whole["markers"].after.value


def test_the_one_hospital_that_marks_is_named_also_where_it_marks_the_healthy():
    rng = np.random.default_rng(0)
    for ill, healthy, sign in ((0.9, 0.1, 1), (0.1, 0.9, -1)):
        probes = occlusion(reader(CORNER), marked(seen(rng, 400, 4), rng, ill, healthy, "site-2"))
        found = {p.where: p for p in probes if p.subject == "markers"}
        assert found["site-2"].found(0.05)
        assert np.sign(found["site-2"].figure.value) == sign
        assert not found["site-1"].found(0.05)


def test_a_marker_that_tells_nothing_raises_no_more_than_five_per_cent():
    found = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        probes = occlusion(reader(CORNER), marked(seen(rng, 120), rng, 0.5, 0.5))
        # A marker at random is noise in the score: hiding it may help, which is an alarm too, and a true one.
        found += any(p.found(0.05) and p.figure.value > 0 for p in probes)
    assert binom.sf(found - 1, SEEDS, 0.05) > 1e-3


def test_a_change_within_the_margin_raises_none_however_sure_it_is():
    """A region beside the anatomy always gives a little: one in fifty of many patients is sure, and is no shortcut."""
    rng = np.random.default_rng(5)
    given = marked(seen(rng, 6000), rng, 0.03, 0.0)
    of = reader(CORNER)
    (probe,) = (p for p in occlusion(of, given) if p.subject == "markers" and p.where == "all")
    assert probe.figure.low > 0
    assert probe.figure.high < 0.03
    assert not probe.found(0.05)


def test_a_model_that_does_not_look_there_raises_none():
    rng = np.random.default_rng(0)
    probes = occlusion(reader((slice(7, 9), slice(7, 9))), marked(seen(rng), rng, 0.9, 0.1))
    for probe in probes:
        assert probe.figure.value == 0.0
        assert probe.p == 1.0


def test_what_is_hidden_is_the_same_in_every_image_and_nothing_else_changes():
    images = seen(np.random.default_rng(0), 20).images
    for mask in regions(SIDE, SIDE).values():
        changed = hidden(images, mask)
        assert np.ptp(changed[:, mask], axis=0).max() == pytest.approx(0.0, abs=1e-6)
        np.testing.assert_array_equal(changed[:, ~mask], images[:, ~mask])


def test_regions_leave_the_middle():
    for size in (16, 64, 224):
        for mask in regions(size, size).values():
            assert mask.any()
            assert not mask[size // 4 : -size // 4, size // 4 : -size // 4].any()


def test_a_hospital_with_few_patients_of_a_kind_is_not_judged():
    rng = np.random.default_rng(0)
    given = seen(rng, 100)
    few = replace(given, attributes={"site": np.where(np.arange(100) < 12, "tiny", "large")})
    assert {p.where for p in occlusion(reader(CORNER), few)} == {"all", "large"}
