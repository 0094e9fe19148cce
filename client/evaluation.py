"""What a model does on one hospital's patients: scores, and the figures that may leave.

Figures are of images, with intervals that know which images are of one patient; counts are of
patients. A patient counts as positive when any image of theirs is. Suppression is
`client/suppression`; test figures are suppressed, not differentially private (law 0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from client.device import choose_device
from client.features import cache, in_chunks
from client.patients import PatientSet
from client.suppression import Cell, Least, releasable, shown_bins, suppressed_levels
from common.errors import DataError, WrongOrder
from common.messages import Comparison, Estimate, GroupMetrics, ModelMetrics, Progress
from common.models import Network, metrics
from common.models.metrics import Bootstrap, Metric
from common.plan import Plan
from common.types import FloatArray

DECIMALS: Final = 3
"""Places after the point of a figure that leaves."""
_LEAST_CHANCE: Final = 1e-7
"""Probabilities are kept this far from 0 and 1 in the logarithm of the loss."""


@dataclass(frozen=True)
class Scores:
    """A model's answers; patient-level, so they never leave the hospital."""

    scores: FloatArray
    """[n_images, outputs] probabilities, float64."""
    labels: npt.NDArray[np.generic]
    """[n_images, outputs] 0 or 1, or [n_images] class numbers for multiclass."""
    patient_of: npt.NDArray[np.int64]
    """[n_images] the 0-based patient of each image."""
    attributes: dict[str, npt.NDArray[np.str_]]
    """Per image."""
    pseudonyms: list[str]
    """Per patient."""

    def take(self, which: npt.NDArray[np.bool_]) -> Scores:
        """The scores of some of the images."""
        attributes = {name: values[which] for name, values in self.attributes.items()}
        return replace(
            self,
            scores=self.scores[which],
            labels=self.labels[which],
            patient_of=self.patient_of[which],
            attributes=attributes,
        )

    @property
    def truth(self) -> npt.NDArray[np.bool_]:
        """[n_images, classes] whether the class is there."""
        if self.labels.ndim == 1 and self.scores.shape[1] > 1:
            return np.asarray(self.labels[:, None] == np.arange(self.scores.shape[1]))
        return self.labels.reshape(self.scores.shape).astype(np.float64) > 0.5

    @property
    def cell(self) -> Cell:
        """Positive and negative patients; of the rarest class where there are several."""
        truth = self.truth
        owners, codes = np.unique(self.patient_of, return_inverse=True)
        positive = np.zeros((len(owners), truth.shape[1]), dtype=bool)
        np.logical_or.at(positive, codes, truth)
        counts = positive.sum(axis=0)
        return Cell(
            int(counts.min(initial=len(owners))), int((len(owners) - counts).min(initial=len(owners)))
        )


@torch.no_grad()
def predict(net: Network, data: PatientSet, device: str | torch.device | None = None) -> Scores:
    """Probabilities for every image of `data`, in evaluation mode; the network's mode is put back."""
    place = choose_device(str(device) if device is not None else None)
    training = net.training
    net.to(place).eval()
    try:
        logits = _logits(net, data, place)
    finally:
        net.train(training)
    exclusive = data.labels.ndim == 1 and logits.shape[1] > 1
    chances = torch.softmax(logits, dim=1) if exclusive else torch.sigmoid(logits)
    return Scores(chances.numpy(), data.labels, data.patient_of, dict(data.attributes), list(data.pseudonyms))


def measure(
    scores: Scores,
    plan: Plan,
    threshold: float,
    min_cell: int | Least,
    model: str = "federated",
) -> ModelMetrics:
    """Every figure of the plan, over all patients and by group, suppressed.

    Args:
        scores: of the hospital's test patients.
        plan: names the groups, the confidence and the bootstrap.
        threshold: the shared operating point; not used for multiclass.
        min_cell: the larger of the plan's and the policy's, or both where they differ.
        model: `federated`, `personalised`, `alone` or `pooled`.
    """
    least = min_cell if isinstance(min_cell, Least) else Least(min_cell, min_cell)
    cell = scores.cell
    one_class = 0 in (cell.positives, cell.negatives)
    whole = (
        _shown(scores, plan, threshold, least)
        if releasable(cell, least.cell, one_class=one_class)
        else _HIDDEN
    )
    groups = [replace(whole, group="all", level="all")]
    for name in plan.evaluation.groups:
        if name in scores.attributes:
            groups.extend(_by_level(name, scores, plan, threshold, (least, one_class)))
    return ModelMetrics(model, tuple(groups), threshold)


def best_threshold(scores: Scores, min_cell: int = 1) -> float | None:
    """Where Youden's J is largest, to 0.001; None when not binary, of one class, or a small cell."""
    if scores.scores.shape[1] != 1 or not releasable(scores.cell, max(1, min_cell)):
        return None
    return round(metrics.youden_threshold(scores.scores, scores.labels.astype(np.float64)), 3)


def progress(scores: Scores, min_cell: int) -> Progress:
    """Loss in nats (mean over patients) and AUROC of validation patients; None where suppressed."""
    cell = scores.cell
    one_class = 0 in (cell.positives, cell.negatives)
    if not releasable(cell, min_cell, one_class=one_class):
        return Progress(None, None)
    area = _or_none(lambda: metrics.auroc(scores.scores, scores.labels, scores.patient_of))
    return Progress(round(log_loss(scores), DECIMALS), round(area.value, DECIMALS) if area else None)


def log_loss(scores: Scores) -> float:
    """Cross-entropy in nats: mean over a patient's images, then over patients."""
    chances = np.clip(scores.scores, _LEAST_CHANCE, 1 - _LEAST_CHANCE)
    truth = scores.truth
    if scores.labels.ndim == 1 and scores.scores.shape[1] > 1:
        each = -np.log(chances[truth])
    else:
        each = -np.where(truth, np.log(chances), np.log1p(-chances)).mean(axis=1)
    _, codes = np.unique(scores.patient_of, return_inverse=True)
    return float((np.bincount(codes, each) / np.bincount(codes)).mean())


def compare(
    scores: Scores,
    other: Scores,
    plan: Plan,
    *,
    names: tuple[str, str],
    metric: Metric = "auroc",
    threshold: float = 0.5,
) -> Comparison | None:
    """`metric(scores) - metric(other)` on the same images, paired by patient.

    Returns None where the figure does not exist or a cell is smaller than the plan's minimum.

    Raises:
        WrongOrder: the two are not of the same images.
    """
    if not np.array_equal(scores.patient_of, other.patient_of) or not np.array_equal(
        scores.labels, other.labels
    ):
        raise WrongOrder("comparison", "both models score the same images", "Predict on one patient set")
    cell = scores.cell
    one_class = 0 in (cell.positives, cell.negatives)
    if not releasable(cell, plan.evaluation.min_cell, one_class=one_class):
        return None
    found = _or_none(
        lambda: metrics.difference(
            metric,
            (scores.scores, other.scores),
            scores.labels,
            scores.patient_of,
            threshold=threshold,
            bootstrap=_bootstrap(plan),
        )
    )
    return Comparison(*names, metric, found) if found else None


_HIDDEN: Final = GroupMetrics("", "", None, None)


def _by_level(
    group: str, scores: Scores, plan: Plan, threshold: float, limits: tuple[Least, bool]
) -> list[GroupMetrics]:
    least, one_class = limits
    values = scores.attributes[group]
    parts = {level: scores.take(values == level) for level in sorted(set(values.tolist()))}

    def rest(shown: frozenset[str]) -> Cell:
        seen = scores.patient_of[np.isin(values, list(shown))]
        return scores.take(~np.isin(scores.patient_of, seen)).cell

    cells = {level: part.cell for level, part in parts.items()}
    always = suppressed_levels(cells, rest, least.floor, one_class=one_class)
    hidden = suppressed_levels(cells, rest, least.cell, one_class=one_class, already=always)

    def told(level: str, part: Scores) -> GroupMetrics:
        found = _HIDDEN if level in hidden else _shown(part, plan, threshold, least)
        return replace(found, group=group, level=level, calibration=())

    return [told(level, part) for level, part in parts.items()]


def _shown(scores: Scores, plan: Plan, threshold: float, least: Least) -> GroupMetrics:
    """Figures of a group that is large enough; with one class only, the one rate that exists."""
    cell, sample = scores.cell, (scores.scores, scores.labels, scores.patient_of)
    confidence, bootstrap = plan.evaluation.confidence, _bootstrap(plan)
    both = cell.positives > 0 and cell.negatives > 0

    def figure(find: Callable[[], Estimate], *, needed: bool) -> Estimate | None:
        return _or_none(find) if needed else None

    return GroupMetrics(
        group="",
        level="",
        positives=cell.positives or None,
        negatives=cell.negatives or None,
        auroc=figure(lambda: metrics.auroc(*sample, confidence), needed=both),
        auprc=figure(lambda: metrics.auprc(*sample, bootstrap), needed=both),
        sensitivity=figure(
            lambda: metrics.sensitivity(*sample, threshold, confidence), needed=cell.positives > 0
        ),
        specificity=figure(
            lambda: metrics.specificity(*sample, threshold, confidence), needed=cell.negatives > 0
        ),
        precision=figure(lambda: metrics.precision(*sample, threshold, bootstrap), needed=both),
        f1=figure(lambda: metrics.f1(*sample, threshold, bootstrap), needed=both),
        ece=metrics.ece(scores.scores, scores.labels) if both else None,
        calibration=shown_bins(metrics.calibration(*sample), least) if both else (),
    )


def _bootstrap(plan: Plan) -> Bootstrap:
    return Bootstrap(plan.evaluation.confidence, plan.evaluation.bootstrap)


def _or_none(find: Callable[[], Estimate]) -> Estimate | None:
    try:
        return find()
    except DataError as error:
        if error.code != "one-class":
            raise
        return None


def _logits(net: Network, data: PatientSet, device: torch.device) -> torch.Tensor:
    """Logits [n_images, outputs], float64 on the CPU."""
    count = data.n_images
    if not count:
        raise DataError("patients to score", "there are none", "Ingest more studies", code="no-patients")
    if net.frozen_features:
        maps = cache.maps(net, data, device)
        parts = [net.classify(maps[torch.from_numpy(p)].to(device)) for p in in_chunks(count)]
    else:
        parts = [net(data.tensor(p).to(device)) for p in in_chunks(count)]
    return torch.cat(parts).to("cpu", torch.float64)
