"""Statistics of groups that do not cry wolf: one door, `gaps`. What they do and how it was checked: docs/statistics.md."""

from common.statistics.findings import Findings, Gap, Group, Settings, Spread
from common.statistics.gaps import gaps
from common.statistics.sample import Sample, families_of

__all__ = ["Findings", "Gap", "Group", "Sample", "Settings", "Spread", "families_of", "gaps"]
