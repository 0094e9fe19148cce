"""The same chest on every scanner, and how well the scanner is read: two tables of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from client.preprocess import to_tensor
from common.models import Network
from common.models.metrics import auroc
from common.plan import Plan
from server.records import SameChest, ScannerGuess
from server.records_bias import Probe
from simulations.hospitals import probe_dataset, same_chests
from simulations.scanners import SCANNERS

CHESTS: Final = 120
"""Virtual patients of the same-chest probe: a standard error of about 0.03 for an AUROC of 0.85."""
_CHUNK: Final = 128


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


def guesses(probes: Sequence[Probe], makers: int) -> tuple[ScannerGuess, ...]:
    """How well the manufacturer is read from the final model's features and from pixels, as `decode` found it.

    Args:
        probes: of a run.
        makers: how many there are among its test images.
    """
    found = (p for p in probes if p.probe == "decode" and p.subject == "manufacturer" and p.round is None)
    return tuple(
        ScannerGuess(p.source, p.figure, 1.0 / makers, p.patients)
        for p in sorted(found, key=lambda p: p.source)
        if p.source in {"features", "pixels"}
    )


def _logits(net: Network, pixels: npt.NDArray[np.float32]) -> torch.Tensor:
    parts = (pixels[start : start + _CHUNK] for start in range(0, len(pixels), _CHUNK))
    return torch.cat([net(torch.from_numpy(part)[:, None]) for part in parts])
