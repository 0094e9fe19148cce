"""Bias records as a run leaves them: alarms or none, gaps, a picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from common.messages import Estimate
from common.statistics import Sample, Settings, gaps
from server.records import RunRecord
from server.records_bias import Bias, Chance, Picture, Probe, Tile
from tests.server.report_records import realistic

DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
"""One black pixel."""
MAKERS = ("Aster Imaging", "Dorado Imaging")


def findings(weak: float = 1.2):
    """Two makers at two hospitals; the second is `weak` standard deviations worse."""
    rng = np.random.default_rng(1)
    truth = np.arange(400) % 2 == 0
    maker = rng.choice(MAKERS, 400)
    raw = rng.normal(size=400) + 2.0 * truth - weak * truth * (maker == MAKERS[1])
    sample = Sample(
        1 / (1 + np.exp(-raw)),
        truth,
        np.arange(400),
        {"site": rng.choice(["altona", "bergen"], 400), "manufacturer": maker},
    )
    return gaps(sample, (("site",), ("manufacturer",)), rng, Settings(metrics=("auroc",), permutations=999))


def judged(probe: str, subject: str, value: float, holm: float, where: str = "all") -> Probe:
    """A judged figure; with AUROCs where the probe has them."""
    spread = Estimate(value, value - 0.02, value + 0.02)
    areas = (
        (Estimate(0.9, 0.86, 0.93), Estimate(0.9 - value, 0.85, 0.92))
        if probe != "dependence"
        else (None, None)
    )
    return Probe(
        probe, subject, spread, judged=True, patients=240, where=where, chance=Chance(-0.03, 0.03),
        p=holm, holm=holm, before=areas[0], after=areas[1],
    )  # fmt: skip


def bias(holm: float = 0.001, weak: float = 1.2) -> Bias:
    """Everything that is asked; `holm` is the p-value of what is judged."""
    moved = tuple(
        Probe("move", new, Estimate(0.1, 0.08, 0.12), judged=False, patients=240, source=old)
        for old, new in (MAKERS, MAKERS[::-1])
    )
    reads = tuple(
        Probe(
            "decode", name, Estimate(0.9, 0.88, 0.92), judged=False, patients=200, source=source,
            chance=Chance(0.4, 0.6), round=at,
        )
        for name in ("manufacturer", "site", "sex")
        for source, at in (("pixels", None), ("features", None), ("score", 1), ("score", None))
    )  # fmt: skip
    looks = tuple(
        Probe("saliency", name, Estimate(0.4, 0.3, 0.5), judged=False, patients=100, chance=Chance(0.3, 0.31))
        for name in ("lungs", "finding")
    )
    return Bias(
        "federated",
        0.05,
        (
            judged("swap", "manufacturer", 0.05, holm),
            judged("swap", "manufacturer", -0.05, holm, "cadiz"),
            *moved,
            judged("dependence", "manufacturer", 0.11, holm),
            judged("dependence", "sex", 0.01, 1.0),
            judged("occlusion", "border", 0.06, holm, "bergen"),
            judged("occlusion", "markers", -0.04, holm),
            *reads,
            *looks,
        ),
        findings(weak),
        (
            Picture(
                "machines",
                "The same patient",
                (Tile("Aster: score 0.20", DOT, 0.2), Tile("Dorado: score 0.96", DOT, 0.96)),
            ),
            Picture("hidden", "What was hidden", (Tile("Hidden: border", DOT),)),
        ),
        ("One thing could not be asked.",),
    )


def biased(holm: float = 0.001, weak: float = 1.2, *, harm: bool = False) -> RunRecord:
    """A demo run with a bias chapter."""
    record = realistic(harm=harm)
    assert record.simulation_only is not None
    return replace(record, simulation_only=replace(record.simulation_only, bias=bias(holm, weak)))
