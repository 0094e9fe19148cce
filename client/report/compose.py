"""From a site, a plan and a trained network to the hospital's own report."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np

from client.deid.methods import MEANINGS, methods
from client.deid.tighten import effective
from client.intake.outcome import ACCEPTED
from client.intake.quarantine import Quarantine
from client.privacy.ledger import Ledger, Limits
from client.report.cam import gradcam
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
from client.site import Site
from common.errors import LedgerError
from common.plan import Plan

if TYPE_CHECKING:
    from client.evaluation import Scores
    from client.index import ImageRow, Index
    from client.patients import PatientSet
    from common.models import Network

CASES_OF_A_KIND: Final = 4
"""Hits, and misses, that are shown with their maps."""

FIGURES: Final = ("exposure", "contrast", "sharpness", "noise", "saturated")
"""Quality figures that are drawn; all without unit, see `client.quality_figures.measure`."""

_DEFAULT_THRESHOLD: Final = 0.5


@dataclass(frozen=True)
class Shown:
    """Which model the report is about, and where it calls a case positive."""

    model: str = "federated"
    threshold: float | None = None
    """The shared one; the hospital's own best on its validation patients when not given, else 0.5."""
    subset: bool = False
    """Whether the model was trained on fewer hospitals than were expected (law 9)."""


def build(
    site: Site, plan: Plan, net: Network, shown: Shown | None = None, ledger: Ledger | None = None
) -> SiteReportData:
    """Everything for `write_site_report`, from the hospital's index, quarantine, ledger and test patients.

    Args:
        site: the hospital.
        plan: the study plan; binary, or one finding of it is shown.
        net: the trained network.
        shown: the model's name and threshold.
        ledger: the open ledger, where this process holds it; opened and closed here when not given.

    Raises:
        DataError: no test patients, or labels the plan cannot use.
        StorageError: index or store unreadable.
    """
    from client.dataset import load_dataset  # noqa: PLC0415 - torch, paid for by reports only
    from client.evaluation import measure, predict  # noqa: PLC0415
    from client.index import Index  # noqa: PLC0415

    shown = shown or Shown()
    data = load_dataset(site, plan)
    threshold = _threshold(net, data.validation, shown.threshold)
    scores = predict(net, data.test)
    listed = _cases(scores)
    with Index(site.index) as index:
        rows = index.images()
        intake = _intake(site, index)
    return SiteReportData(
        site=site.name,
        simulated=site.simulated,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        study=plan.study.name,
        question=plan.study.question,
        plan_digest=plan.digest,
        intake=intake,
        deid=_deid(site),
        quality=_quality(rows),
        subset=shown.subset,
        metrics=measure(scores, plan, threshold, 1, shown.model),
        scores=tuple(listed),
        cases=_images(net, data.test, listed, threshold),
        ledger=_ledger(site, plan, ledger),
        real_images=plan.labels.source != "synthetic",
    )


def _threshold(net: Network, validation: PatientSet, given: float | None) -> float:
    from client.evaluation import best_threshold, predict  # noqa: PLC0415 - torch, as above

    if given is not None:
        return given
    if not validation.n_images:
        return _DEFAULT_THRESHOLD
    found = best_threshold(predict(net, validation))
    return _DEFAULT_THRESHOLD if found is None else found


def _cases(scores: Scores) -> list[ScoredCase]:
    names = {key: scores.attributes.get(key) for key in ("projection", "manufacturer")}
    truth = scores.truth[:, 0]
    return [
        ScoredCase(
            pseudonym=scores.pseudonyms[int(scores.patient_of[i])],
            score=float(scores.scores[i, 0]),
            truth=bool(truth[i]),
            **{key: str(values[i]) if values is not None else "" for key, values in names.items()},
        )
        for i in range(len(scores.scores))
    ]


def choose(cases: list[ScoredCase], threshold: float, *, hit: bool, most: int) -> list[int]:
    """Positions of the most confident hits (finding present and called) or misses, one image a patient."""
    wanted = []
    for position, case in enumerate(cases):
        called = case.score >= threshold
        if (called and case.truth) if hit else called != case.truth:
            wanted.append(position)
    wanted.sort(key=lambda p: (-abs(cases[p].score - threshold), p))
    chosen: dict[str, int] = {}
    for position in wanted:
        chosen.setdefault(cases[position].pseudonym, position)
    return list(chosen.values())[:most]


def _images(
    net: Network, test: PatientSet, cases: list[ScoredCase], threshold: float
) -> tuple[CaseImage, ...]:
    found: list[CaseImage] = []
    for hit in (True, False):
        positions = np.asarray(choose(cases, threshold, hit=hit, most=CASES_OF_A_KIND), dtype=np.int64)
        if not len(positions):
            continue
        maps = gradcam(net, test.tensor(positions))
        pixels = test.pixels(positions)
        found += [CaseImage(cases[p], hit, pixels[i], maps[i]) for i, p in enumerate(positions)]
    return tuple(found)


def _intake(site: Site, index: Index) -> IntakeFigures:
    outcomes = index.outcomes()
    why = {refusal.code: refusal for refusal in Quarantine.of(site).refusals()}
    refused = tuple(
        RefusedReason(code, n, why[code].rule if code in why else "", why[code].remedy if code in why else "")
        for code, n in outcomes.items()
        if code != ACCEPTED
    )
    last = (index.ingests() or [{}])[-1]
    return IntakeFigures(
        received=sum(outcomes.values()),
        accepted=outcomes.get(ACCEPTED, 0),
        refused=refused,
        patients=index.n_patients(),
        images_without_label=int(last.get("images_without_label", 0)),
        labels_without_image=int(last.get("labels_without_image", 0)),
    )


def _deid(site: Site) -> DeidFigures:
    """The rules this site works by; codes that depend on the single image are not among these."""
    profile = effective(site.deid, site.tighten)
    actions = Counter(rule.action for rule in profile.rules.values())
    codes = methods(site.deid, blanked=False, searched=False, defaced=False, profile=profile)
    done = tuple((code, MEANINGS[code]) for code in codes)
    return DeidFigures(profile.digest, dict(sorted(actions.items())), done)


def _quality(rows: list[ImageRow]) -> tuple[QualityFigure, ...]:
    found = []
    for name in FIGURES:
        values: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            if name in row.quality:
                kind = " ".join(part for part in (row.manufacturer, row.model) if part) or "unknown"
                values[kind].append(float(row.quality[name]))
        if values:
            found.append(QualityFigure(name, {kind: tuple(values[kind]) for kind in sorted(values)}))
    return tuple(found)


def _ledger(site: Site, plan: Plan, ledger: Ledger | None) -> LedgerState:
    limits = Limits.of(site.policy, plan)
    frame = (limits.delta, limits.run_epsilon, limits.lifetime_epsilon)
    if ledger is not None:
        return LedgerState(ledger.epsilon(limits.delta), *frame, charges=len(ledger.charges))
    try:
        with Ledger(site.ledger, simulated=site.simulated) as opened:
            return LedgerState(opened.epsilon(limits.delta), *frame, charges=len(opened.charges))
    except LedgerError as error:
        return LedgerState(None, *frame, problem=error.code)
