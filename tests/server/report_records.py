"""Run records as a real run leaves them, drawn from a seed: hospitals, scanners, arms, rounds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm, rankdata

from common.messages import (
    CalibrationBin,
    Comparison,
    Estimate,
    GroupMetrics,
    IntakeSummary,
    ModelMetrics,
    SiteMetrics,
)
from common.types import Digest, RunId, SiteName
from server.records import (
    ArmRecord,
    FederationRecord,
    RoundRecord,
    RunRecord,
    SameChest,
    ScannerGuess,
    SimulationOnly,
    SiteRound,
)

DIGEST = Digest("sha256:" + "ab" * 32)
RUN = RunId("demo-20250101")
WEAK = "Dorado Imaging"
SCANNER_OF = {
    "altona": "Aster Imaging",
    "bergen": "Borealis",
    "cadiz": WEAK,
    "delft": "Aster Imaging",
    "evora": "Cygnus Medical",
    "fermo": "Borealis",
}
PLAN = """
[study]
name = "chest-opacity"
question = "Does this chest radiograph show an opacity?"
[task]
kind = "binary"
classes = ["opacity"]
[input]
modalities = ["DX", "CR"]
shape = [96, 96]
[labels]
source = "synthetic"
provenance = "drawn with the phantom"
[model]
name = "scatter"
[privacy]
mode = "patient-dp"
epsilon = 8.0
"""


@dataclass(frozen=True)
class Drawn:
    """Scores and truth of some test patients."""

    scores: np.ndarray
    labels: np.ndarray


def draw(rng: np.random.Generator, positives: int, negatives: int, auroc: float) -> Drawn:
    """Binormal scores with a true AUROC, squeezed into [0, 1]."""
    shift = np.sqrt(2) * norm.ppf(auroc)
    raw = np.concatenate([rng.normal(shift, 1, positives), rng.normal(0, 1, negatives)])
    labels = np.concatenate([np.ones(positives), np.zeros(negatives)])
    slope = max(shift, 0.1)
    return Drawn(1 / (1 + np.exp(-(slope * raw - shift**2 / 2 - 0.4))), labels)


def auroc_estimate(data: Drawn) -> Estimate:
    """AUROC with DeLong's interval."""
    x, y = data.scores[data.labels == 1], data.scores[data.labels == 0]
    p, n = len(x), len(y)
    ranks = rankdata(np.concatenate([x, y]))
    v10 = (ranks[:p] - rankdata(x)) / n
    v01 = 1 - (ranks[p:] - rankdata(y)) / p
    value = float(v10.mean())
    reach = 1.96 * float(np.sqrt(v10.var(ddof=1) / p + v01.var(ddof=1) / n))
    return Estimate(value, max(value - reach, 0.0), min(value + reach, 1.0))


def _share(hits: int, of: int) -> Estimate | None:
    if of == 0:
        return None
    value = hits / of
    reach = 1.96 * np.sqrt(max(value * (1 - value), 0.25 / of) / of)
    return Estimate(value, max(value - reach, 0.0), min(value + reach, 1.0))


def group(name: str, level: str, data: Drawn, threshold: float = 0.5, min_cell: int = 11) -> GroupMetrics:
    """Released metrics of a group, suppressed as a hospital suppresses them."""
    positive = data.labels == 1
    p, n = int(positive.sum()), int((~positive).sum())
    called = data.scores >= threshold
    held = (p and p < min_cell) or (n and n < min_cell)
    if held:
        return GroupMetrics(name, level, None, None)
    both = p > 0 and n > 0
    hits = int((called & positive).sum())
    bins = []
    for low in np.arange(0, 1, 0.1):
        inside = (data.scores >= low) & (data.scores < low + 0.1)
        if inside.sum() >= min_cell:
            bins.append(
                CalibrationBin(
                    float(data.scores[inside].mean()), float(data.labels[inside].mean()), int(inside.sum())
                )
            )
    return GroupMetrics(
        group=name,
        level=level,
        positives=p,
        negatives=n,
        auroc=auroc_estimate(data) if both else None,
        auprc=_share(hits, p) if both else None,
        sensitivity=_share(hits, p),
        specificity=_share(int((~called & ~positive).sum()), n),
        precision=_share(hits, int(called.sum())) if both else None,
        f1=_share(2 * hits, int(called.sum()) + p) if both else None,
        ece=0.0734 if both else None,
        calibration=tuple(bins) if both else (),
    )


def model(
    rng: np.random.Generator, name: str, site: str, aurocs: tuple[float, float], size: tuple[int, int]
) -> ModelMetrics:
    """A model's released metrics at a hospital whose two projections have these AUROCs; size is (positives, negatives)."""
    positives, negatives = size
    halves = [
        draw(rng, positives // 2, negatives // 2, aurocs[0]),
        draw(rng, positives - positives // 2, negatives - negatives // 2, aurocs[1]),
    ]
    whole = Drawn(np.concatenate([h.scores for h in halves]), np.concatenate([h.labels for h in halves]))
    groups = [
        group("all", "all", whole),
        group("manufacturer", SCANNER_OF.get(site, "Aster Imaging"), whole),
        *(group("projection", level, half) for level, half in zip(("AP", "PA"), halves, strict=True)),
    ]
    return ModelMetrics(name, tuple(groups), threshold=0.43)


def site_metrics(site: str, models: tuple[ModelMetrics, ...], epsilon: float | None = None) -> SiteMetrics:
    """A hospital's reply."""
    return SiteMetrics(SiteName(site), RUN, 12, DIGEST, models, epsilon=epsilon, simulated=True)


def federation(
    sites: tuple[str, ...], rng: np.random.Generator, *, private: bool, missing: tuple[str, ...] = ()
) -> FederationRecord:
    """Twelve rounds of a run in which `missing` hospitals never reply."""
    trained = tuple(s for s in sites if s not in missing)
    rounds = []
    for number in range(1, 13):
        done = {
            s: SiteRound(
                weight=150,
                update_norm=0.8 + 0.1 * i,
                loss=float(0.7 * np.exp(-number / 7) + 0.2 + 0.03 * i + rng.normal(0, 0.008)),
                auroc=float(0.93 - 0.4 * np.exp(-number / 4) - 0.015 * i + rng.normal(0, 0.006)),
                epsilon=float(7.9 * np.sqrt(number / 12)) if private else None,
            )
            for i, s in enumerate(trained)
        }
        refused = dict.fromkeys(missing, "no-reply")
        rounds.append(RoundRecord(number, 3.1, 91_000, 91_000, done, refused))
    return FederationRecord(
        run=RUN,
        plan_digest=DIGEST,
        code_digest=DIGEST,
        strategy="fedavg",
        private=private,
        expected=sites,
        registered=trained,
        trained=trained,
        subset=bool(missing),
        status="completed",
        rounds=tuple(rounds),
        threshold=0.43,
    )


ARMS = {"alone": 0.86, "federated": 0.93, "federated-dp": 0.88, "pooled": 0.935}


def realistic(seed: int = 0, *, harm: bool = False, missing: tuple[str, ...] = ()) -> RunRecord:
    """A demo run: six hospitals, one weak scanner, every arm."""
    rng = np.random.default_rng(seed)
    sites = tuple(SCANNER_OF)
    size = (42, 88)
    arms = {}
    for arm, level in ARMS.items():
        metrics = {}
        for site in sites:
            true = level - (0.2 if SCANNER_OF[site] == WEAK else 0.0)
            true -= 0.12 if harm and site == "evora" and arm == "federated" else 0.0
            models = [
                model(rng, arm if arm in ("alone", "pooled") else "federated", site, (true, true), size)
            ]
            if arm == "federated":
                better = true + 0.01
                models.append(model(rng, "personalised", site, (better, better), size))
            metrics[site] = site_metrics(site, tuple(models), 7.9 if arm.endswith("dp") else None)
        run = federation(sites, rng, private=arm.endswith("dp"), missing=missing) if "fed" in arm else None
        arms[arm] = ArmRecord(arm, metrics, run, 61.0)
    return RunRecord(
        run=RUN,
        created="2025-01-01T10:00:00+00:00",
        study="chest-opacity",
        question="Does this chest radiograph show an opacity?",
        plan_digest=DIGEST,
        code_digest=DIGEST,
        seed=7,
        simulated=True,
        arms=arms,
        comparisons={site: _comparisons(rng, harmed=harm and site == "evora") for site in sites},
        intake={site: _intake(i) for i, site in enumerate(sites)},
        simulation_only=SimulationOnly(dict(SCANNER_OF), WEAK, _same_chest(), _guesses()),
        plan_toml=PLAN,
    )


def _comparisons(rng: np.random.Generator, *, harmed: bool) -> tuple[Comparison, ...]:
    middle = {
        ("federated", "alone"): -0.08 if harmed else 0.06,
        ("personalised", "alone"): 0.07,
        ("federated-dp", "alone"): 0.02,
        ("federated", "federated-dp"): 0.05,
    }
    found = []
    for (first, second), centre in middle.items():
        value = centre + float(rng.normal(0, 0.006))
        found.append(Comparison(first, second, "auroc", Estimate(value, value - 0.035, value + 0.033)))
    return tuple(found)


def _intake(index: int) -> IntakeSummary:
    refused = {"quality-blank": None, "parser-error": 12 + index, "burned-in": None}
    return IntakeSummary(520 + 13 * index, 498 + 12 * index, refused, 150)


def _same_chest() -> tuple[SameChest, ...]:
    shifts = {"Aster Imaging": 0.021, "Borealis": 0.008, "Cygnus Medical": 0.034, WEAK: -0.063}
    return tuple(
        SameChest(name, Estimate(a := 0.74 if name == WEAK else 0.93, a - 0.05, a + 0.04), shift, 240)
        for name, shift in shifts.items()
    )


def _guesses() -> tuple[ScannerGuess, ...]:
    return (
        ScannerGuess("features", Estimate(0.61, 0.57, 0.65), 0.25, 240),
        ScannerGuess("pixels", Estimate(0.94, 0.92, 0.96), 0.25, 240),
    )


def only(record: RunRecord, *arms: str) -> RunRecord:
    """The record with some arms alone."""
    kept = {name: arm for name, arm in record.arms.items() if name in arms}
    return replace(record, arms=kept, comparisons={}, simulation_only=None)


def with_external(record: RunRecord, site: str = "hannover") -> RunRecord:
    """The record with a hospital that only tests and has positives only."""
    rng = np.random.default_rng(3)
    arms = {}
    for name, arm in record.arms.items():
        if name == "alone":
            arms[name] = arm
            continue
        m = "pooled" if name == "pooled" else "federated"
        all_positive = group("all", "all", draw(rng, 90, 0, 0.9))
        external = site_metrics(site, (ModelMetrics(m, (all_positive,), 0.43),))
        arms[name] = replace(arm, sites={**arm.sites, site: external})
    return replace(record, arms=arms, external=(site,))
