"""What the hospital's own report shows: exact figures, cases and images of its own patients. Never leaves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.messages import ModelMetrics


@dataclass(frozen=True)
class RefusedReason:
    """Files refused for one reason, and what to do about it."""

    code: str
    files: int
    rule: str
    remedy: str


@dataclass(frozen=True)
class IntakeFigures:
    """What was received over all ingestions, in files, and what became of it."""

    received: int
    accepted: int
    refused: tuple[RefusedReason, ...]
    patients: int
    images_without_label: int = 0
    labels_without_image: int = 0


@dataclass(frozen=True)
class DeidFigures:
    """How files were de-identified: the profile in force, rules by action, and the methods written into the files."""

    profile_digest: str
    actions: dict[str, int]
    """Action to the number of attributes it applies to; every other attribute is removed."""
    methods: tuple[tuple[str, str], ...]
    """(code of DICOM PS3.16 CID 7050, meaning)."""


@dataclass(frozen=True)
class QualityFigure:
    """One figure of the quality gate over the accepted images, by kind of scanner."""

    name: str
    by_scanner: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class ScoredCase:
    """One test image under the model: the hospital reads its own cases."""

    pseudonym: str
    score: float
    truth: bool
    projection: str
    manufacturer: str


@dataclass(frozen=True)
class CaseImage:
    """One test image with the map of where the model looked."""

    case: ScoredCase
    hit: bool
    pixels: npt.NDArray[np.float32]
    """[rows, columns] as the network sees it."""
    heat: npt.NDArray[np.float32]
    """[rows, columns] in [0, 1]."""


@dataclass(frozen=True)
class LedgerState:
    """What this hospital's training patients have spent, by the worst of them."""

    epsilon: float | None
    """Lifetime spend; None when no ledger could be read; infinite after a non-private release."""
    delta: float
    run_limit: float
    lifetime_limit: float
    charges: int = 0
    problem: str = ""
    """Code of the ledger's error, where it could not be read."""


@dataclass(frozen=True)
class SiteReportData:
    """Everything in the hospital's own report."""

    site: str
    simulated: bool
    created: str
    """UTC, ISO 8601."""
    study: str
    question: str
    plan_digest: str
    intake: IntakeFigures
    deid: DeidFigures
    quality: tuple[QualityFigure, ...]
    metrics: ModelMetrics
    """Exact: nothing held back, because it does not leave."""
    scores: tuple[ScoredCase, ...]
    cases: tuple[CaseImage, ...]
    ledger: LedgerState
    real_images: bool = False
    """Whether the plan's labels are of real patients; in a simulation, which only the federation then is."""
    subset: bool = False
    """Whether the model was trained on fewer hospitals than were expected."""
