"""The site's own quality bounds, refreshed from its accepted images after an ingestion."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from client.index import ImageRow, Index
from client.quality import site_percentiles

ENOUGH_PATIENTS: Final = 50
"""Many images of few patients show a few bodies, not what a scanner makes of everybody."""


def refresh_percentiles(index: Index) -> int:
    """Take bounds anew for every modality and scanner with enough images of enough patients.

    Returns:
        for how many pairs there are bounds now.
    """
    groups: dict[tuple[str, str], list[ImageRow]] = defaultdict(list)
    for row in index.images():
        groups[row.modality, row.scanner].append(row)
    refreshed = 0
    with index.transaction():
        for (modality, scanner), rows in sorted(groups.items()):
            bounds = site_percentiles([row.quality for row in rows])
            if bounds is not None and len({row.patient for row in rows}) >= ENOUGH_PATIENTS:
                index.set_percentiles(modality, scanner, bounds)
                refreshed += 1
    return refreshed
