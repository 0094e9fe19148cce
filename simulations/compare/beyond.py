"""Two questions to a way's model that its hospitals cannot ask.

Is a gap between two of them chance? The permutation test of `common.statistics` on two hospitals at a time: their patients
change places within equal truth. Can one tell them apart? A linear classifier names the hospital from what goes into the
network, from its features and from its score; that is described, never judged: to read is not to use.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from client.dataset import load_dataset
from client.evaluation import Scores
from client.patients import PatientSet
from common import checkpoints
from common.errors import DataError
from common.models import Network, architecture_digest, build, set_arrays
from common.plan import Plan
from common.statistics import Sample, Settings, gaps
from common.types import FloatArray
from simulations.compare.cells import Pair
from simulations.partition import read_table
from simulations.prepare import Federation
from simulations.probes.contract import Images, Names
from simulations.probes.decode import coarse
from simulations.probes.networks import model_of
from simulations.scenario import Scenario

SIDE: Final = 32
"""Pixels a side of the images from which the hospital is told."""
_EACH: Final = 1500
"""Most images of one hospital that are looked at."""
_MOST_SITES: Final = 8
"""With more hospitals, pairs are too many to be judged."""
_DRAWS: Final = 9999
_STRENGTH: Final = 0.01
"""Of the classifier that names hospitals: the inverse of its penalty."""
_STEPS: Final = 300
_KEY: Final = 0x706169


def pairs(scores: Mapping[str, Scores], seed: int) -> tuple[Pair, ...]:
    """Every two hospitals: AUROC of the one less that of the other, and how often chance alone gives as much.

    Args:
        scores: by hospital, of its own test patients; nothing for more than eight hospitals.
        seed: of the permutations.

    Returns:
        Pairs in which both have ten patients of either kind.
    """
    if len(scores) > _MOST_SITES:
        return ()
    found = (_pair(one, other, scores, seed) for one, other in combinations(sorted(scores), 2))
    return tuple(pair for pair in found if pair is not None)


def _pair(one: str, other: str, scores: Mapping[str, Scores], seed: int) -> Pair | None:
    parts = [scores[one], scores[other]]
    owners = np.concatenate([parts[0].patient_of, parts[1].patient_of + len(parts[0].pseudonyms)])
    sample = Sample(
        np.concatenate([part.scores[:, 0] for part in parts]),
        np.concatenate([part.truth[:, 0] for part in parts]),
        owners,
        {"site": np.repeat([one, other], [len(part.scores) for part in parts])},
    )
    settings = Settings(metrics=("auroc",), permutations=_DRAWS, resamples=0)
    judged = gaps(sample, (("site",),), np.random.default_rng([seed, _KEY]), settings)
    gap = next((g for g in judged.gaps if g.level == one), None)
    return None if gap is None else Pair(one, other, gap.gap.value, gap.p)


def reads(federation: Federation, plan: Plan, model: Path | None, seed: int) -> dict[str, float]:
    """Balanced accuracy with which the training hospitals are told apart, by what it is read from.

    The classifier learns from training patients and is asked about test patients.

    Args:
        federation: whose hospitals.
        plan: how images are prepared, and which network it is.
        model: its weights; None: only `pixels`, the input averaged to 32 pixels, is read.
        seed: of who is looked at where a hospital has very many images.

    Returns:
        `pixels`, and of a model `features` (what the last layer reads) and `score`; nothing for volumes.
    """
    names = federation.training
    if len(plan.input.shape) != 2 or not 1 < len(names) <= _MOST_SITES:
        return {}
    data = {name: load_dataset(federation.site(name), plan) for name in names}
    taught, asked = (
        _looked({n: d.train for n, d in data.items()}, seed),
        _looked({n: d.test for n, d in data.items()}, seed),
    )
    views: dict[str, Callable[[Images], FloatArray]] = {"pixels": partial(coarse, side=SIDE)}
    if model is not None:
        net = model_of(_network(plan, model))
        views["score"] = lambda images: net.logits(images)[:, None]
        if net.features is not None:
            views["features"] = net.features
    return {
        source: told_apart((of(taught[0]), taught[1]), (of(asked[0]), asked[1]))
        for source, of in views.items()
    }


def raw_read(scenario: Scenario, data: Path) -> float | None:
    """The same from the files of the folder as they are, scaled to 32 by 32 pixels and not prepared in any way.

    Args:
        scenario: of kind `images`; its table, cut and external sites.
        data: the folder.

    Returns:
        None where one site trains, or more than eight do.

    Raises:
        LabelError: of the table.
        DataError: a file of it cannot be read.
    """
    setting, plan = scenario.scenario, scenario.plan_for(scenario.scenario.arms[0])
    rows = read_table(data / setting.table)
    sites = np.array(setting.cut.sites_of(rows, setting.seed))
    rng = np.random.default_rng([setting.seed, _KEY])
    people, owner = np.unique([row["patient_id"] for row in rows], return_inverse=True)
    tested = (rng.random(len(people)) < plan.data.test_fraction)[owner.reshape(-1)]
    known = [name for name in _once(sites) if name not in setting.external]
    if not 1 < len(known) <= _MOST_SITES:
        return None
    parts = []
    for which in (~tested, tested):
        chosen = np.concatenate([_some(np.flatnonzero(which & (sites == name)), rng) for name in known])
        pixels = np.stack([_small(data / rows[k]["path"], int(k)) for k in chosen])
        parts.append((pixels, sites[chosen]))
    return told_apart(parts[0], parts[1])


def told_apart(taught: tuple[FloatArray, Names], asked: tuple[FloatArray, Names]) -> float:
    """Balanced accuracy of a logistic regression that counts every hospital the same.

    Args:
        taught: values [images, features] and hospitals [images] from which it learns.
        asked: those that it is tested on.
    """
    mean, spread = taught[0].mean(axis=0), taught[0].std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    with warnings.catch_warnings():
        # Stopped early it is a little worse at telling, which is said of the limit below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = LogisticRegression(C=_STRENGTH, max_iter=_STEPS, class_weight="balanced").fit(
            (taught[0] - mean) / spread, taught[1]
        )
    right = fitted.predict((asked[0] - mean) / spread) == asked[1]
    return float(np.mean([right[asked[1] == name].mean() for name in _once(asked[1])]))


def _small(path: Path, row: int) -> FloatArray:
    try:
        with Image.open(path) as image:
            small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    except (OSError, UnidentifiedImageError):
        raise DataError(
            f"image of row {row + 1}", "it is no image that can be read", "Check the folder"
        ) from None
    return np.asarray(small, dtype=np.float64).reshape(-1) / 255


def _looked(parts: Mapping[str, PatientSet], seed: int) -> tuple[Images, Names]:
    """Images of each hospital with its name."""
    rng = np.random.default_rng([seed, _KEY])
    full = {name: one for name, one in parts.items() if one.n_images}
    images = [one.pixels(_some(np.arange(one.n_images), rng)) for one in full.values()]
    return np.concatenate(images), np.repeat(list(full), [len(one) for one in images])


def _some(places: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return np.sort(rng.permutation(places)[:_EACH])


def _once(values: Names) -> list[str]:
    return list(dict.fromkeys(map(str, values)))


def _network(plan: Plan, path: Path) -> Network:
    torch.set_num_threads(1)
    rows, columns = plan.input.shape[-2:]
    net = build(plan.model, plan.task.outputs, (rows, columns))
    set_arrays(net, checkpoints.load(path, architecture_digest(net)).arrays)
    return net
