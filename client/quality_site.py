"""The site's own quality bounds, refreshed from its accepted images after an ingestion."""

from __future__ import annotations

from client.index import Index
from client.quality import site_percentiles


def refresh_percentiles(index: Index) -> int:
    """Take bounds anew for every modality and scanner with enough images; returns for how many."""
    groups = sorted({(row.modality, row.scanner) for row in index.images()})
    refreshed = 0
    with index.transaction():
        for modality, scanner in groups:
            bounds = site_percentiles(index.quality_figures(modality, scanner))
            if bounds is not None:
                index.set_percentiles(modality, scanner, bounds)
                refreshed += 1
    return refreshed
