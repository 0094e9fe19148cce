"""A hospital's own report data, drawn from a seed."""

from __future__ import annotations

import numpy as np

from client.report.data import (
    CaseImage,
    DeidFigures,
    IntakeFigures,
    LedgerState,
    QualityFigure,
    RefusedReason,
    ScoredCase,
    SiteReportData,
)
from common.messages import Estimate, GroupMetrics, ModelMetrics


def _chest(rng: np.random.Generator, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:size, 0:size] / size
    lungs = sum(np.exp(-(((x - c) / 0.14) ** 2 + ((y - 0.5) / 0.28) ** 2)) for c in (0.3, 0.7))
    at = rng.uniform(0.35, 0.65, 2)
    spot = np.exp(-(((x - at[0]) / 0.07) ** 2 + ((y - at[1]) / 0.07) ** 2))
    pixels = 1 - lungs + 0.5 * spot + rng.normal(0, 0.05, (size, size))
    return pixels.astype(np.float32), spot.astype(np.float32)


def site_data(seed: int = 0, site: str = "altona") -> SiteReportData:
    """A plausible hospital."""
    rng = np.random.default_rng(seed)
    cases = [
        ScoredCase(
            pseudonym=f"P{rng.integers(16**10):010X}",
            score=float(rng.beta(6, 2) if truth else rng.beta(2, 5)),
            truth=truth,
            projection=str(rng.choice(["AP", "PA"])),
            manufacturer="Aster Imaging",
        )
        for truth in [True] * 42 + [False] * 88
    ]
    hits = [case for case in cases if case.truth and case.score >= 0.43][:4]
    misses = [case for case in cases if case.truth != (case.score >= 0.43)][:4]
    shown = [CaseImage(case, case in hits, *_chest(rng)) for case in hits + misses]
    figure = Estimate(0.912, 0.861, 0.953)
    groups = (
        GroupMetrics("all", "all", 42, 88, figure, figure, figure, figure, figure, figure, 0.05),
        GroupMetrics("projection", "AP", 21, 40, figure, figure, figure, figure, figure, figure, 0.05),
        GroupMetrics("projection", "LL", 2, 0, None, None, figure),
    )
    scanners = {k: tuple(rng.normal(m, 0.05, 180)) for k, m in (("Aster DR-1", 0.5), ("Borealis CR", 0.42))}
    return SiteReportData(
        site=site,
        simulated=True,
        created="2025-01-01T10:00:00+00:00",
        study="chest-opacity",
        question="Does this chest radiograph show an opacity?",
        plan_digest="sha256:" + "ab" * 32,
        intake=IntakeFigures(
            520,
            498,
            (
                RefusedReason("burned-in", 4, "text may be burned into it", "Send the image without it"),
                RefusedReason("parser-error", 18, "it is damaged", "Send the file again"),
            ),
            264,
            images_without_label=3,
        ),
        deid=DeidFigures("sha256:" + "cd" * 32, {"keep": 61, "uid": 5}, (("113100", "Basic Profile"),)),
        quality=tuple(QualityFigure(n, scanners) for n in ("exposure", "contrast", "sharpness", "noise")),
        metrics=ModelMetrics("federated", groups, 0.43),
        scores=tuple(cases),
        cases=tuple(shown),
        ledger=LedgerState(7.91, 1e-5, 8.0, 16.0, charges=12),
    )
