"""Figures of a group and gaps with their intervals; whole patients are resampled."""

from __future__ import annotations

import math

import numpy as np

from common.messages import Estimate
from common.models.bootstrap import percentile_interval
from common.models.influence import BoolArray, Figure, auroc_figure, patient_codes, rate_figure
from common.models.intervals import auroc_interval, difference_interval, rate_interval
from common.statistics.cells import Cells
from common.statistics.chance import Measures
from common.statistics.findings import Settings
from common.statistics.sample import Sample
from common.types import FloatArray

RATES = ("sensitivity", "specificity")


class Intervals:
    """The intervals of one family."""

    def __init__(
        self, sample: Sample, cells: Cells, measures: Measures, how: tuple[Settings, np.random.Generator]
    ) -> None:
        self._sample, self._cells, self._measures = sample, cells, measures
        self._settings, rng = how
        self._wanted = self._settings.resamples > 0
        self._codes = patient_codes(np.asarray(sample.patients))
        self._weights: FloatArray | None = None
        if self._wanted:
            owners = int(cells.patient.max(initial=0)) + 1
            drawn = rng.multinomial(owners, np.full(owners, 1 / owners), size=self._settings.resamples)
            self._weights = drawn.T[cells.patient].astype(np.float32)

    @property
    def confidence(self) -> float:
        """Of every interval by itself."""
        return 1 - self._settings.alpha

    def figures(self, level: int) -> dict[str, Estimate]:
        """Every figure of a group that exists, with `fnr` and `fpr`."""
        found = {}
        for metric in self._measures:
            one = self._figure(metric, level)
            if math.isfinite(one.value):
                found[metric] = one
        for rate, error in zip(RATES, ("fnr", "fpr"), strict=True):
            if rate in found:
                e = found[rate]
                found[error] = Estimate(1 - e.value, 1 - e.high, 1 - e.low)
        return found

    def gap(self, metric: str, level: int) -> Estimate:
        """A group less everybody else."""
        own, other = (
            (self._influence(metric, part) for part in self._parts(level)) if self._wanted else (None, None)
        )
        if own is not None and other is not None:
            interval = auroc_interval if metric == "auroc" else rate_interval
            return difference_interval(own, other, interval, self.confidence)
        inside = self._resampled(metric, level, inside=True)
        outside = self._resampled(metric, level, inside=False)
        return self._middle(inside - outside)

    def _figure(self, metric: str, level: int) -> Estimate:
        own = self._influence(metric, self._parts(level)[0]) if self._wanted else None
        if own is None:
            return self._middle(self._resampled(metric, level, inside=True))
        interval = auroc_interval if metric == "auroc" else rate_interval
        return interval(own, self.confidence)

    def _parts(self, level: int) -> tuple[BoolArray, BoolArray]:
        inside = np.zeros(len(self._codes), dtype=bool)
        outside = inside.copy()
        of = self._cells.level[self._cells.cell] == level
        inside[self._cells.images[of]] = True
        outside[self._cells.images[~of]] = True
        return inside, outside

    def _influence(self, metric: str, among: BoolArray) -> Figure | None:
        """The figure by formula; None where it has none, or the bootstrap is asked for."""
        sample = self._sample
        truth, calls = sample.truth, sample.calls
        if metric == "auroc" and self._settings.area == "delong":
            return auroc_figure(np.asarray(sample.scores, dtype=np.float64), truth, self._codes, among)
        if metric == "sensitivity":
            return rate_figure(calls, truth & among, self._codes)
        if metric == "specificity":
            return rate_figure(~calls, ~truth & among, self._codes)
        return None

    def _resampled(self, metric: str, level: int, *, inside: bool) -> FloatArray:
        """The figure as observed, then on every resample."""
        of = (self._cells.level == level) == inside
        own = of.astype(np.float32)[:, None]
        weights = own if self._weights is None else np.concatenate([own, self._weights * own], axis=1)
        return self._measures[metric].figure(weights)

    def _middle(self, figures: FloatArray) -> Estimate:
        value = float(figures[0])
        if len(figures) == 1 or not math.isfinite(value):
            return Estimate(value, math.nan, math.nan)
        return percentile_interval(value, figures[1:], self.confidence)
