"""What was found: every group with its figures, every gap beside what chance alone gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from common.messages import Estimate
from common.statistics.catalogue import BETTER, METRICS, Metric
from common.statistics.permutation import Band
from common.statistics.sample import Family

STEPS: Final = (999, 1999, 4999, 9999, 19999, 49999, 99999)
"""Permutations: each with 1 divides by 1,000, so that a level of 0.05 is met exactly."""


@dataclass(frozen=True)
class Settings:
    """How it is judged."""

    metrics: tuple[Metric, ...] = METRICS
    alpha: float = 0.05
    """Chance of any false alarm among all gaps that are judged together."""
    fixed: tuple[str, ...] = ("site",)
    """Attributes within whose levels groups change places; those the sample lacks are passed over."""
    permutations: int | None = None
    """None: as many as the smallest p-value that Holm may ask for needs, twice over."""
    resamples: int = 1000
    """Of the patient bootstrap; 0: no intervals at all, for simulations of thousands."""
    area: str = "delong"
    """Intervals of AUROC: `delong` or `bootstrap`."""
    least_positives: int = 10
    """Patients with the finding, and without, below which a group is shown but not judged or ranked."""
    least_cell: int = 11
    """Patients below which a group, or a count, is held back."""

    def draws(self, tests: int) -> int:
        """Permutations for so many gaps judged together."""
        if self.permutations is not None:
            return self.permutations
        return next((n for n in STEPS if (n + 1) * self.alpha >= 2 * tests), STEPS[-1])


@dataclass(frozen=True)
class Group:
    """One group of patients and how well the model does for it."""

    family: Family
    level: str
    patients: int | None
    positives: int | None
    """Patients with the finding; None: held back."""
    negatives: int | None
    figures: dict[str, Estimate]
    """By name of the metric, and `fnr` and `fpr`; empty where the group is too small to be shown."""
    ranked: bool
    why: str = ""
    """Why it is not ranked."""


@dataclass(frozen=True)
class Gap:
    """A group less everybody else of its family, by one figure, beside chance."""

    family: Family
    level: str
    metric: str
    value: float
    """The group's own figure."""
    gap: Estimate
    alone: Band
    """What chance gives this gap, were it the only one."""
    together: Band
    """What chance gives it at the level that Holm asks of it: outside of it is found."""
    p: float
    holm: float
    worse: bool
    """Whether the group is served worse than the others, seen from the centre of the band of chance."""
    mirrored: bool = False
    """Whether the other group of a family of two is the same test, counted there."""

    def found(self, alpha: float = 0.05) -> bool:
        """Whether it is more than chance, all gaps taken together."""
        return self.holm <= alpha


@dataclass(frozen=True)
class Spread:
    """The best and the worst of the ranked groups of a family; or the equalised-odds difference.

    That is the larger of the spreads of sensitivity and of specificity (Hardt, Price and Srebro 2016, as the largest
    difference between any two groups).
    """

    family: Family
    metric: str
    worst: str
    best: str
    value: float
    alone: float
    """What chance alone stays under in all but a share alpha of cases."""
    p: float
    holm: float


@dataclass(frozen=True)
class Findings:
    """Everything that one call judged together."""

    groups: tuple[Group, ...]
    gaps: tuple[Gap, ...]
    spreads: tuple[Spread, ...]
    tests: int
    permutations: int
    threshold: float
    settings: Settings

    def found(self) -> tuple[Gap, ...]:
        """Gaps that are more than chance, the surest first."""
        sure = (g for g in self.gaps if g.found(self.settings.alpha))
        return tuple(sorted(sure, key=lambda g: (g.holm, -abs(g.gap.value))))

    def worst(self, metric: str) -> Group | None:
        """The ranked group that the model serves worst by a metric; None where none is ranked."""
        ranked = [g for g in self.groups if g.ranked and metric in g.figures]
        better = BETTER[metric]
        return min(ranked, key=lambda g: better(g.figures[metric].value), default=None)
