"""What is described and never judged: what can be read, and where the evidence lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulations.prepare import Federation
from simulations.probes.contract import Seen
from simulations.probes.decode import coarse, decode, records
from simulations.probes.run import MOST_ASKED, Question, assembled, drawn, of_both_kinds
from simulations.probes.saliency import saliency, shares
from simulations.scenario import HERE, load_scenario


def test_what_is_there_is_read_and_what_is_not_lies_in_the_band_of_chance():
    rng = np.random.default_rng(0)
    makers = rng.choice(["a", "b", "c"], 300, p=[0.6, 0.3, 0.1])
    values = rng.normal(size=(300, 40))
    values[makers == "b", 0] += 3
    values[makers == "c", 1] += 3
    found = decode(values, {"maker": makers, "coin": rng.choice(["x", "y"], 300)}, np.arange(300), rng)
    assert found["maker"].accuracy.low > 0.7
    assert found["maker"].band.high < 0.5
    coin = found["coin"]
    assert coin.band.low - 0.05 < coin.accuracy.value < coin.band.high + 0.05
    assert coin.band.low < 0.5 < coin.band.high


def test_no_patient_stands_on_both_sides_of_a_fold():
    """Each patient's two images are the same and say nothing of the maker: only a leak could guess it."""
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(150), 2)
    makers = np.repeat(rng.permutation(["a", "b"] * 75), 2)
    values = np.repeat(rng.normal(size=(150, 2000)), 2, axis=0)
    honest = decode(values, {"maker": makers}, owners, np.random.default_rng(1), deals=20)["maker"]
    assert honest.accuracy.low < 0.5 < honest.accuracy.high
    leaked = decode(values, {"maker": makers}, np.arange(300), np.random.default_rng(1), deals=5)["maker"]
    assert leaked.accuracy.value > 0.7, "the same with a leak is seen"


def test_one_level_is_nothing_to_read_and_records_are_never_judged():
    rng = np.random.default_rng(0)
    found = decode(
        rng.normal(size=(40, 4)),
        {"one": np.full(40, "a"), "two": np.repeat(["a", "b"], 20)},
        np.arange(40),
        rng,
    )
    assert set(found) == {"two"}
    (record,) = records(found, "features", 3)
    assert not record.judged
    assert not replace(record, p=0.0, holm=0.0).found(1.0)
    assert (record.round, record.source, record.subject) == (3, "features", "two")


def test_raw_pixels_are_averaged_to_a_grid():
    images = np.random.default_rng(0).normal(size=(3, 64, 64)).astype(np.float32)
    small = coarse(images)
    assert small.shape == (3, 256)
    assert small[1, 0] == pytest.approx(images[1, :4, :4].mean(), abs=1e-6)


def test_heat_inside_is_counted_and_no_heat_is_no_evidence_either_way():
    inside = np.zeros((2, 8, 8), dtype=np.float32)
    inside[:, :4] = 1
    heat = np.zeros((2, 8, 8))
    heat[0, 0, 0] = 5
    found = shares(heat, inside)
    np.testing.assert_allclose(found, [[1.0, 0.5], [0.5, 0.5]])
    probe = saliency(np.repeat(found[:1], 20, axis=0), "lungs", np.random.default_rng(0))
    assert (probe.figure.value, probe.chance.high, probe.judged) == (1.0, 0.5, False)


def test_a_hospital_with_ill_patients_alone_is_ranked_against_nobody():
    sites = np.array(["ash", "ash", "far", "far", "birch", "birch"])
    truth = np.array([True, False, True, True, False, True])
    seen = Seen(
        np.zeros((6, 4, 4), np.float32), truth, np.arange(6), {"site": sites, "sex": np.array([*"FMFMFM"])}
    )
    left, words = of_both_kinds(seen)
    assert left.attributes["site"].tolist() == ["ash", "ash", "birch", "birch"]
    assert left.patients.tolist() == [0, 1, 4, 5]
    assert "far" in words[0]
    assert of_both_kinds(left) == (left, ())


def test_of_very_many_hospitals_some_are_drawn_and_the_report_says_so(tmp_path):
    names = tuple(f"s{k:03d}" for k in range(200))
    many = Federation(tmp_path, names, (), {}, {})
    some, words = drawn(many, seed=1)
    assert len(some.names) == MOST_ASKED == len(set(some.names))
    assert set(some.names) <= set(names)
    assert some.names == drawn(many, seed=1)[0].names != drawn(many, seed=2)[0].names
    question = Question(
        "federated",
        load_scenario(HERE / "balanced.toml").plan_for("federated"),
        some,
        tmp_path,
        1,
        0.5,
        virtual=True,
        omitted=words,
    )
    assert "of 200, 64 were drawn" in " ".join(assembled(question, []).omitted)
    few = replace(many, names=names[:MOST_ASKED])
    assert drawn(few, seed=1) == (few, ())
