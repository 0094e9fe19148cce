"""The figures by name: which way is better, and how each is computed for a family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import numpy as np

from common.models.bootstrap import average_precision
from common.models.influence import midranks
from common.statistics import calibrated
from common.statistics.area import Area
from common.statistics.cells import Cells
from common.statistics.draws import Table
from common.statistics.measures import Measure, Plain, Ratio
from common.statistics.sample import Sample
from common.types import FloatArray

Metric = Literal[
    "auroc", "auprc", "sensitivity", "specificity", "brier", "slope", "intercept", "calibration_error"
]

METRICS: Final[tuple[Metric, ...]] = (
    "auroc",
    "auprc",
    "sensitivity",
    "specificity",
    "brier",
    "slope",
    "intercept",
    "calibration_error",
)

LABELS: Final[dict[str, str]] = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "brier": "Brier score",
    "slope": "calibration slope",
    "intercept": "calibration intercept",
    "calibration_error": "calibration error",
    "equalised_odds": "equalised-odds difference",
}

SMALLER_IS_BETTER: Final = ("brier", "calibration_error")

BETTER: Final[dict[str, Callable[[float], float]]] = {
    "auroc": lambda v: v,
    "auprc": lambda v: v,
    "sensitivity": lambda v: v,
    "specificity": lambda v: v,
    "brier": lambda v: -v,
    "slope": lambda v: -abs(v - 1),
    "intercept": lambda v: -abs(v),
    "calibration_error": lambda v: -max(v, 0.0),
}
"""Of a figure, a number that is larger the better it is: the worst group has the smallest."""


def measure_of(metric: Metric, sample: Sample, cells: Cells) -> Measure:
    """A figure made ready for the cells of a family.

    Sensitivity is 1 - FNR and specificity 1 - FPR, at the sample's one threshold: their gaps are those of the
    error rates with the sign turned, and are tested once.
    """
    scores = np.asarray(sample.scores, dtype=np.float64)[cells.images]
    truth, calls = sample.truth[cells.images], sample.calls[cells.images]
    if metric == "auroc":
        return Area(cells, scores, truth)
    if metric in ("sensitivity", "specificity"):
        hits, among = (calls, truth) if metric == "sensitivity" else (~calls, ~truth)
        # Equal rates are told apart by how high the scores of these images rank.
        ranks = np.zeros(len(scores))
        ranks[among] = midranks(scores[among]) if metric == "sensitivity" else -midranks(scores[among])
        return Ratio(cells, (hits & among).astype(np.float64), among.astype(np.float64), ranks)
    if metric == "brier":
        return Ratio(cells, np.square(scores - truth), np.ones(len(scores)), None)
    if metric == "auprc":
        return Plain(_precision(cells, scores, truth))
    fitted = {
        "slope": calibrated.slope,
        "intercept": calibrated.intercept,
        "calibration_error": calibrated.error,
    }
    return Plain(fitted[metric](cells, scores, truth))


def _precision(cells: Cells, scores: FloatArray, truth: np.ndarray) -> Callable[[Table], FloatArray]:
    by_image = average_precision(scores, truth)

    def figure(weights: Table) -> FloatArray:
        return by_image(np.ascontiguousarray(weights[cells.cell].T, dtype=np.float64))

    return figure
