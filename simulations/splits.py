"""A scenario over several patient splits: which hospital is better or worse off, beyond chance.

Each split has its own paired intervals. Over splits the mean difference gets an interval by Nadeau
and Bengio's corrected t ("Inference for the generalization error", Machine Learning 52, 2003), which
allows for training sets that overlap between splits: variance * (1/J + n_test/n_train).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, variance

from rich.table import Table
from scipy.stats import t as student

from common.checkpoints import write_whole
from common.messages import Estimate
from server.records import RunRecord
from simulations.experiment import run_scenario
from simulations.scenario import Scenario, load_scenario
from simulations.table import auroc, columns_of, figure


@dataclass(frozen=True)
class Change:
    """How one model differs from another at one hospital, in AUROC on the same test patients."""

    site: str
    model: str
    other: str
    splits: tuple[Estimate, ...]
    """One paired difference with its interval per split."""
    mean: Estimate
    """Over splits, with the corrected interval."""

    @property
    def harms(self) -> bool:
        """Whether the interval over splits lies wholly below zero."""
        return self.mean.high < 0


@dataclass(frozen=True)
class OverSplits:
    """The whole: mean AUROC per hospital and column, and every paired change."""

    scenario: str
    seeds: tuple[int, ...]
    aurocs: dict[str, dict[str, tuple[float | None, ...]]]
    """Hospital, then column, then one value a split."""
    changes: tuple[Change, ...]
    runs: tuple[str, ...]
    """Names of the folders that hold each split's records and reports."""

    def table(self) -> Table:
        """Rows are hospitals; columns are the models' mean AUROC over splits, and the changes."""
        first = next(iter(self.aurocs.values()), {})
        pairs = sorted({(c.model, c.other) for c in self.changes})
        table = Table(
            title=f"{self.scenario}: mean AUROC over {len(self.seeds)} patient splits", title_justify="left"
        )
        for heading in ("hospital", *first, *(f"{model} - {other}" for model, other in pairs)):
            table.add_column(heading)
        for site, columns in self.aurocs.items():
            changes = {(c.model, c.other): c for c in self.changes if c.site == site}
            means = [_mean(values) for values in columns.values()]
            table.add_row(site, *means, *(_change(changes.get(pair)) for pair in pairs))
        return table


def over_splits(path: Path, data: Path | None, count: int, out: Path) -> OverSplits:
    """Run a scenario with seeds 1 to `count` and put the splits together in `out/<name>-splits.json`."""
    scenarios = [load_scenario(path, seed=seed) for seed in range(1, count + 1)]
    outcomes = [run_scenario(scenario, out, data) for scenario in scenarios]
    summary = put_together(scenarios[0], [outcome.record for outcome in outcomes])
    write_whole(out / f"{summary.scenario}-splits.json", json.dumps(asdict(summary), indent=1).encode())
    return summary


def put_together(scenario: Scenario, records: Sequence[RunRecord]) -> OverSplits:
    """What several splits of one scenario say together.

    Args:
        scenario: gives its name and the sizes of training and test part.
        records: one a split, with the same arms.
    """
    sites = sorted({site for record in records for arm in record.arms.values() for site in arm.sites})
    columns = columns_of(records[0].arms)
    aurocs = {
        site: {
            heading: tuple(_value(auroc(r.arms[arm].sites.get(site), model)) for r in records)
            for heading, arm, model in columns
        }
        for site in sites
    }
    found: dict[tuple[str, str, str], list[Estimate]] = {}
    for record in records:
        for site, comparisons in record.comparisons.items():
            for c in comparisons:
                found.setdefault((site, c.model, c.other), []).append(c.difference)
    ratio = _test_to_train(scenario)
    changes = tuple(
        Change(*key, tuple(values), corrected_mean([v.value for v in values], ratio))
        for key, values in sorted(found.items())
    )
    seeds, runs = tuple(record.seed for record in records), tuple(record.run for record in records)
    return OverSplits(scenario.scenario.name, seeds, aurocs, changes, runs)


def corrected_mean(points: Sequence[float], ratio: float) -> Estimate:
    """Mean of differences in AUROC over splits, with the corrected 95% interval.

    Args:
        points: one a split; from one alone nothing follows, and the interval is all of [-1, 1].
        ratio: test patients to training patients of one split.
    """
    mean = fmean(points)
    if len(points) < 2:
        return Estimate(mean, -1.0, 1.0)
    error = math.sqrt(variance(points) * (1 / len(points) + ratio))
    reach = float(student.ppf(0.975, len(points) - 1)) * error
    return Estimate(mean, mean - reach, mean + reach)


def corrected_p(points: Sequence[float], ratio: float) -> float:
    """Two-sided p-value of the same t: that the mean difference is 0; 1 of one split, and of differences all zero.

    Args:
        points: one a split.
        ratio: test patients to training patients of one split.
    """
    if len(points) < 2 or not any(points):
        return 1.0
    error = math.sqrt(variance(points) * (1 / len(points) + ratio))
    return float(2 * student.sf(abs(fmean(points)) / error, len(points) - 1)) if error else 0.0


def _test_to_train(scenario: Scenario) -> float:
    data = scenario.plan_for(scenario.scenario.arms[0]).data
    return data.test_fraction / (1 - data.test_fraction - data.validation_fraction)


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def _mean(values: tuple[float | None, ...]) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):.3f}" if known else "–"


def _change(change: Change | None) -> str:
    if change is None:
        return "–"
    return figure(change.mean) + (" worse" if change.harms else "")
