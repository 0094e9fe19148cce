"""What only a simulation can ask: the same chest on every scanner, and whether a model sees the scanner."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from client.dataset import load_dataset
from client.patients import concat
from client.preprocess import to_tensor
from common.messages import Estimate
from common.models import Network
from common.models.metrics import auroc
from common.plan import Plan
from server.records import SameChest, ScannerGuess
from simulations.hospitals import probe_dataset, same_chests
from simulations.prepare import Federation
from simulations.scanners import SCANNERS

CHESTS: Final = 120
"""Virtual patients of the same-chest probe: a standard error of about 0.03 for an AUROC of 0.85."""
_CHUNK: Final = 128
_FOLDS: Final = 4
_PIXEL_GRID: Final = 16
"""Raw pixels are averaged to this many rows and columns before the scanner is guessed from them."""
_MOST: Final = 1200
"""Images used to guess the scanner; more would cost time and change the figure little."""


@torch.no_grad()
def same_chest(net: Network, plan: Plan, seed: int, patients: int = CHESTS) -> tuple[SameChest, ...]:
    """AUROC and shift of the score when the same virtual patients are imaged on every scanner.

    Args:
        net: the trained network, on the CPU.
        plan: its input section prepares the images.
        seed: of patients, poses and exposures; not one of the training patients.
        patients: how many, half of them with the finding.
    """
    chests = same_chests(seed, patients)
    scores = {}
    for name, images in chests.images.items():
        rows = [to_tensor(probe_dataset(pixels, SCANNERS[name]), plan.input) for pixels in images]
        scores[name] = torch.sigmoid(_logits(net, np.stack(rows))).numpy()[:, 0].astype(np.float64)
    mean = np.mean(list(scores.values()), axis=0)
    owners = np.arange(patients)
    return tuple(
        SameChest(
            scanner=SCANNERS[name].manufacturer,
            auroc=auroc(values, chests.labels.astype(np.float64), owners, plan.evaluation.confidence),
            mean_score_shift=float((values - mean).mean()),
            patients=patients,
        )
        for name, values in scores.items()
    )


@torch.no_grad()
def scanner_guess(net: Network, federation: Federation, plan: Plan) -> tuple[ScannerGuess, ...]:
    """How well a linear classifier reads the manufacturer from the model's features and from pixels."""
    tests = [load_dataset(federation.site(name), plan).test for name in federation.names]
    everybody = concat(tests)
    chosen = np.random.default_rng(0).permutation(everybody.n_images)[:_MOST]
    chosen.sort()
    pixels = everybody.pixels(chosen).astype(np.float32)
    makers = everybody.attributes["manufacturer"][chosen]
    owners = everybody.patient_of[chosen]
    features = np.concatenate([_features(net, part) for part in _parts(pixels)])
    return (
        _guess("features", features, makers, owners),
        _guess("pixels", _coarse(pixels), makers, owners),
    )


def _guess(
    source: str,
    values: npt.NDArray[np.float32],
    makers: npt.NDArray[np.str_],
    owners: npt.NDArray[np.int64],
) -> ScannerGuess:
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=200))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    guessed = cross_val_predict(classifier, values, makers, groups=owners, cv=folds)
    value = float(balanced_accuracy_score(makers, guessed))
    draws = _resampled(makers, guessed, owners)
    low, high = np.quantile(draws, [0.025, 0.975])
    return ScannerGuess(
        source=source,
        balanced_accuracy=Estimate(value, float(min(low, value)), float(max(high, value))),
        chance=1.0 / len(np.unique(makers)),
        patients=len(np.unique(owners)),
    )


def _resampled(
    truth: npt.NDArray[np.str_], guessed: npt.NDArray[np.str_], owners: npt.NDArray[np.int64]
) -> list[float]:
    """Balanced accuracy in 300 bootstrap samples of patients."""
    rng = np.random.default_rng(0)
    people, codes = np.unique(owners, return_inverse=True)
    makers = np.unique(truth)
    draws = []
    for _ in range(300):
        weight = np.bincount(rng.integers(len(people), size=len(people)), minlength=len(people))[codes]
        recalls = [
            np.average(guessed[truth == maker] == maker, weights=weight[truth == maker])
            for maker in makers
            if weight[truth == maker].any()
        ]
        draws.append(float(np.mean(recalls)))
    return draws


def _features(net: Network, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    maps = net.features(torch.from_numpy(pixels)[:, None])
    return np.asarray(maps.flatten(1).numpy(), dtype=np.float32)


def _coarse(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    small = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(pixels)[:, None], _PIXEL_GRID)
    return np.asarray(small.flatten(1).numpy(), dtype=np.float32)


def _parts(pixels: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    return [pixels[start : start + _CHUNK] for start in range(0, len(pixels), _CHUNK)]


def _logits(net: Network, pixels: npt.NDArray[np.float32]) -> torch.Tensor:
    return torch.cat([net(torch.from_numpy(part)[:, None]) for part in _parts(pixels)])
