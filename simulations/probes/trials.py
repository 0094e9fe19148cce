"""How often a judged probe raises an alarm: where nothing is wrong, and where a shortcut was planted.

Each trial deals a federation of a shipped scenario from a bank of virtual patients, trains a linear model on half of the
patients (pooled: where a federation would end if it converged) and asks every judged probe of the other half. 600 patients in
the hospitals of the scenario; in three of them where something is planted at one.

| case | scenario | what is planted |
|---|---|---|
| `balanced` | balanced | nothing: hospitals differ in name only, the machines are as different as ever |
| `unrelated` | balanced | at one hospital half of the images have a marker, whoever is ill |
| `scanner` | confounded | the machine tells who is ill; the model finds that out by itself |
| `marker` | balanced | at one hospital a marker on 90% of the ill and 10% of the healthy |
| `border` | balanced | at one hospital a brighter border, likewise |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from common.messages import Estimate
from common.models.intervals import wilson
from common.types import FloatArray
from server.records_bias import Probe
from simulations.probes.bank import MACHINES, SIDE, Bank, Dealt, deal
from simulations.probes.contract import Counterfactual, Images, Model, Seen
from simulations.probes.dependence import Taught, dependence
from simulations.probes.occlusion import occlusion, regions
from simulations.probes.swap import swap
from simulations.scanners import SCANNERS
from simulations.scenario import HERE, load_scenario
from simulations.sites import virtual_sites

ALPHA: Final = 0.05
NULL: Final = ("balanced", "unrelated")
EXPECTED: Final = {
    "scanner": ("swap", "dependence"),
    "marker": ("occlusion",),
    "border": ("occlusion",),
}
"""Which probes must fire on which planted shortcut."""
CASES: Final = (*NULL, *EXPECTED)
PROBES: Final = ("swap", "dependence", "occlusion")
_PATIENTS: Final = 600
"""Of all hospitals together."""
_FEW: Final = 3
"""Hospitals where something was planted at the first of them: 100 of its patients are then tested."""
_MARKED: Final = ("unrelated", "marker", "border")
_LINKED: Final = 0.9
_BRIGHT: Final = 2.0
"""Standard deviations of the image that a planted mark is brighter by."""


@dataclass(frozen=True)
class Trial:
    """What one seed gave."""

    case: str
    seed: int
    alarms: tuple[str, ...]
    """The probes that raised one."""
    auroc: float
    """Of the model on its test patients."""
    lost: dict[str, float]
    """By region, AUROC as imaged less AUROC with it hidden, all hospitals together."""


@dataclass(frozen=True)
class Rate:
    """How often a probe raised an alarm in a case, with its 95% interval (Wilson 1927)."""

    case: str
    probe: str
    share: Estimate
    alarms: int
    trials: int
    planted: bool
    """Whether it should have."""


def trial(bank: Bank, case: str, seed: int) -> Trial:
    """Deal, train and ask once."""
    rng = np.random.default_rng([seed, CASES.index(case)])
    scenario = load_scenario(HERE / f"{'confounded' if case == 'scanner' else 'balanced'}.toml")
    specs = virtual_sites(scenario.site, seed)[: _FEW if case in _MARKED else None]
    dealt = deal(bank, specs, _PATIENTS // len(specs), rng)
    truth = bank.truth[dealt.body]
    every = bank.images[dealt.body].astype(np.float32)
    _plant(every, case, dealt, truth, rng)
    own = every[np.arange(len(truth)), dealt.machine]
    model = _trained(own[dealt.train], truth[dealt.train], seed)
    tested, makers = ~dealt.train, np.array([SCANNERS[name].manufacturer for name in MACHINES])
    owners = np.arange(len(truth))
    attributes = {
        "site": dealt.sites,
        "manufacturer": makers[dealt.machine],
        "sex": np.where(bank.female[dealt.body], "F", "M"),
    }
    seen = Seen(own[tested], truth[tested], owners[tested], {k: v[tested] for k, v in attributes.items()})
    taught = Taught(
        truth[dealt.train], owners[dealt.train], {k: v[dealt.train] for k, v in attributes.items()}
    )
    logits = model.logits(every[tested].reshape(-1, SIDE, SIDE)).reshape(-1, len(MACHINES))
    cohort = Counterfactual(logits, tuple(makers), truth[tested], dealt.sites[tested], dealt.machine[tested])
    hidden = occlusion(model, seen)
    found = [*swap(cohort, rng, resamples=0), *dependence(model, seen, taught, rng), *hidden]
    whole = [probe for probe in hidden if probe.where == "all"]
    return Trial(
        case,
        seed,
        tuple(name for name in PROBES if any(p.probe == name and p.found(ALPHA) for p in found)),
        _before(whole),
        {probe.subject: probe.figure.value for probe in whole},
    )


def trials(
    bank: Bank,
    cases: Iterable[tuple[str, int]],
    path: Path | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Trial]:
    """Every case with its number of seeds; with a path, goes on where it stopped.

    Args:
        bank: of bodies.
        cases: name and number of seeds each.
        path: a file of JSON lines that keeps every trial.
        progress: told (done, all).
    """
    known = {(one.case, one.seed): one for one in _read(path)} if path is not None else {}
    wanted = [(case, seed) for case, count in cases for seed in range(1, count + 1)]
    found = []
    for number, key in enumerate(wanted, start=1):
        one = known.get(key) or trial(bank, *key)
        if key not in known and path is not None:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(one)) + "\n")
        found.append(one)
        progress(number, len(wanted))
    return found


def rates(found: Iterable[Trial]) -> list[Rate]:
    """The shares, case by case and probe by probe."""
    by_case: dict[str, list[Trial]] = {}
    for one in found:
        by_case.setdefault(one.case, []).append(one)
    rows = []
    for case, ones in by_case.items():
        for probe in PROBES:
            alarms = sum(probe in one.alarms for one in ones)
            share = wilson(alarms / len(ones), len(ones), 0.95)
            rows.append(Rate(case, probe, share, alarms, len(ones), probe in EXPECTED.get(case, ())))
    return rows


def promised(rows: Iterable[Rate]) -> bool:
    """Whether no false-alarm rate is surely above 5%, and every planted shortcut is found in most trials."""
    return all(
        row.share.value >= 0.5 if row.planted else row.share.low <= ALPHA
        for row in rows
        if row.planted or row.case in NULL
    )


def _before(whole: list[Probe]) -> float:
    return next((p.before.value for p in whole if p.before is not None), float("nan"))


def _plant(every: Images, case: str, dealt: Dealt, truth: np.ndarray, rng: np.random.Generator) -> None:
    """Mark the images of the first hospital, on every machine alike, in place."""
    if case not in _MARKED:
        return
    here = dealt.sites == dealt.sites[0]
    chance = np.full(len(truth), 0.5) if case == "unrelated" else np.where(truth, _LINKED, 1 - _LINKED)
    marked = here & (rng.random(len(truth)) < chance)
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[2:5, 2:5] = True
    if case == "border":
        mask = regions(SIDE, SIDE)["border"]
    every[np.ix_(marked, np.ones(every.shape[1], dtype=bool))] += np.float32(_BRIGHT) * mask


def _trained(images: Images, truth: np.ndarray, seed: int) -> Model:
    values = _values(images)
    mean, spread = values.mean(axis=0), values.std(axis=0) + 1e-6
    fitted = LogisticRegression(C=3e-3, max_iter=300, random_state=seed).fit((values - mean) / spread, truth)
    return Model(
        lambda given: np.asarray(fitted.decision_function((_values(given) - mean) / spread), dtype=np.float64)
    )


def _values(images: Images) -> FloatArray:
    """Brightness in 16 x 16 places and roughness in 8 x 8, [images, 320]."""
    whole = torch.from_numpy(images)[:, None]
    rough = (whole - torch.nn.functional.avg_pool2d(whole, 3, 1, 1)).abs()
    parts = [torch.nn.functional.adaptive_avg_pool2d(part, grid) for part, grid in ((whole, 16), (rough, 8))]
    return np.concatenate([part.flatten(1).numpy() for part in parts], axis=1).astype(np.float64)


def _read(path: Path) -> list[Trial]:
    if not path.is_file():
        return []
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [Trial(**{**row, "alarms": tuple(row["alarms"])}) for row in rows]
