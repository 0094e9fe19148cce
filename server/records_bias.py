"""What the bias lab found out about one model: the only source of the bias chapter of a report (law 8).

Simulation only: made from scores and images of single patients of all hospitals at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.messages import Estimate
from common.statistics.findings import Findings


@dataclass(frozen=True)
class Chance:
    """Where a figure lies by chance alone, in 95% of cases."""

    low: float
    high: float


@dataclass(frozen=True)
class Probe:
    """One figure of one probe ([probes](../docs/probes.md))."""

    probe: str
    """`swap`, `occlusion`, `dependence`, `decode`, `saliency` or `move`."""
    subject: str
    """What it is about: `manufacturer`, `site`, `sex`, `border`, `markers`, `lungs`, `finding`, or a machine's maker."""
    figure: Estimate
    judged: bool
    """Whether it can raise an alarm; what is only described never does."""
    patients: int
    where: str = "all"
    """The hospital, or all together."""
    source: str = ""
    """What was read: `features`, `pixels` or `score`; of `move`, the machine that the patients came from."""
    chance: Chance | None = None
    p: float | None = None
    holm: float | None = None
    """The p-value among all that this probe judged."""
    before: Estimate | None = None
    """AUROC as imaged."""
    after: Estimate | None = None
    """AUROC with machines dealt without regard for the truth, or with the region hidden."""
    round: int | None = None
    """Of the model; None: the final one."""

    def found(self, alpha: float) -> bool:
        """Whether it raises an alarm."""
        return self.judged and self.holm is not None and self.holm <= alpha


@dataclass(frozen=True)
class Tile:
    """One image of a picture."""

    caption: str
    png: str
    """Base64."""
    value: float | None = None
    """The score, where the caption says one."""


@dataclass(frozen=True)
class Picture:
    """Images side by side: of virtual patients, or of averages; never one real patient."""

    kind: str
    """`machines`, `hidden` or `saliency`."""
    title: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Bias:
    """Everything that was asked of the model a run publishes."""

    model: str
    """The series, as the report calls it."""
    alpha: float
    """Chance of any false alarm of each judged probe."""
    probes: tuple[Probe, ...]
    findings: Findings | None = None
    """Gaps between groups of test patients."""
    pictures: tuple[Picture, ...] = ()
    omitted: tuple[str, ...] = ()
    """What could not be asked, and why."""

    def alarms(self) -> tuple[Probe, ...]:
        """What the judged probes found, the surest first."""
        found = (p for p in self.probes if p.found(self.alpha))
        return tuple(sorted(found, key=lambda p: (p.holm or 0.0, p.probe, p.where)))
