"""What of a reply may leave, and how exact: small cells, unnamed figures and needless digits are taken out.

Pure: the record as the work produced it goes in, the record as it may leave comes out. `client.egress` is the
only caller, and lets nothing out that did not pass here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from client.analytics.release import released
from client.policy import FIGURES, GROUPS, Policy
from client.suppression import (
    Cell,
    Least,
    public_count,
    public_files,
    releasable,
    shown_bins,
    suppressed_levels,
)
from client.vocabulary import WITHHELD
from common.codes import file_code, refusal_code
from common.messages import (
    Comparison,
    Estimate,
    GroupMetrics,
    IntakeSummary,
    ModelMetrics,
    Progress,
    Refusal,
    Reply,
    SiteMetrics,
    Tally,
    Update,
)
from common.methods import TELLS_LOSS
from common.plan import Plan

DECIMALS: Final = 3
"""Places after the point of a figure that leaves: exact shares of small groups could be read from more."""


@dataclass(frozen=True)
class Rules:
    """What this door lets out under one plan."""

    least: Least
    figures: frozenset[str] = frozenset(FIGURES)
    groups: frozenset[str] = frozenset(GROUPS)
    progress: bool = True
    """Whether the figures of validation patients may leave beside an update."""
    vote: bool = True
    """Whether a word made of them may leave: that a model is worse than the one before, in or after masked rounds."""
    objective: bool = False
    """Whether the training loss may leave: of a plan without privacy, whose method asks for it, in the open."""
    strict_rates: bool = False
    cells: bool = False
    """Whether counts of an analysis may leave under this hospital's own name."""

    @classmethod
    def of(cls, policy: Policy, plan: Plan | None = None) -> Rules:
        """Of a policy, tightened by a plan where one was read."""
        asked = policy.min_cell if plan is None else plan.evaluation.min_cell
        # Epsilon covers training patients alone: what is made of validation patients in every round, be it one bit,
        # leaves beside a private plan by the hospital's explicit word only.
        beside = policy.private_progress or (plan is not None and not plan.private)
        return cls(
            least=Least.of(asked, policy.min_cell),
            figures=frozenset(policy.metrics),
            groups=frozenset(policy.groups),
            progress="progress" in policy.metrics and beside,
            vote="threshold" in policy.metrics and beside,
            objective="progress" in policy.metrics and plan is not None and _weights_by_loss(plan),
            strict_rates=policy.strict_rates,
            cells=policy.analytics == "cells",
        )


def cleaned(reply: Reply, rules: Rules) -> Reply:
    """The same record with nothing in it that these rules do not let out; other objects as they are."""
    match reply:
        case SiteMetrics() if type(reply) is SiteMetrics:
            return suppress(reply, rules)
        case Update() if type(reply) is Update:
            known = reply.progress if rules.progress else Progress(None, None)
            told = _short(reply.objective) if rules.objective else None
            return replace(reply, progress=Progress(_short(known.loss), _short(known.auroc)), objective=told)
        case Tally() if type(reply) is Tally:
            return released(reply, rules.least, rules.groups, shown=rules.cells)
        case Refusal() if type(reply) is Refusal:
            return replace(reply, code=refusal_code(reply.code))
    return reply


def suppress(metrics: SiteMetrics, rules: Rules) -> SiteMetrics:
    """The same record without small cells and what the policy does not name, counts and figures coarse."""
    comparisons = metrics.comparisons if "comparison" in rules.figures else ()
    return replace(
        metrics,
        models=tuple(_model(model, rules) for model in metrics.models),
        comparisons=tuple(_comparison(one) for one in comparisons if one.metric in rules.figures),
        intake=metrics.intake and _intake(metrics.intake, rules.least.floor),
        threshold=_short(metrics.threshold) if "threshold" in rules.figures else None,
        worse=metrics.worse if rules.vote else None,
    )


def _intake(intake: IntakeSummary, least: int) -> IntakeSummary:
    """Files in coarse numbers; reasons that are not on the list are counted together."""
    refused: dict[str, int] = {}
    for code, count in intake.refused.items():
        said = file_code(code)
        refused[said] = refused.get(said, 0) + (count or 0)
    return replace(
        intake,
        received=public_files(intake.received, least),
        accepted=public_files(intake.accepted, least),
        refused={code: public_files(count, least) for code, count in sorted(refused.items())},
    )


def _comparison(one: Comparison) -> Comparison:
    return replace(one, difference=_figure(one.difference))


def _model(model: ModelMetrics, rules: Rules) -> ModelMetrics:
    """All patients first, then each attribute, its hidden levels together as one without a name."""
    whole = next((one for one in model.groups if one.group == "all"), None)
    found = [] if whole is None else [_group(whole, rules, one_class=_one_class(whole))]
    names = dict.fromkeys(one.group for one in model.groups if one.group in rules.groups)
    for name in names:
        levels = {one.level: one for one in model.groups if one.group == name}
        hidden = _hidden(whole, levels, rules)
        shown = (one for level, one in levels.items() if level not in hidden)
        found += [_group(one, rules, one_class=_one_class(whole)) for one in shown]
        if hidden:
            found.append(GroupMetrics(name, WITHHELD, None, None))
    return replace(model, groups=tuple(found))


def _hidden(whole: GroupMetrics | None, levels: dict[str, GroupMetrics], rules: Rules) -> frozenset[str]:
    """The levels of one attribute that stay, by their counts alone: a second look after that of the evaluation."""
    cells = {level: _cell(one) for level, one in levels.items()}
    total = Cell(0, 0) if whole is None else _cell(whole)

    def rest(shown: frozenset[str]) -> Cell:
        left = (
            total.positives - sum(cells[one].positives for one in shown),
            total.negatives - sum(cells[one].negatives for one in shown),
        )
        # Patients in several levels: subtraction tells nothing here, and the evaluation has counted them.
        return Cell(*left) if min(left) >= 0 else total

    found: frozenset[str] = frozenset()
    for least in (rules.least.floor, rules.least.cell):
        found = suppressed_levels(cells, rest, least, one_class=_one_class(whole), already=found)
    return found


def _group(group: GroupMetrics, rules: Rules, *, one_class: bool) -> GroupMetrics:
    if not releasable(_cell(group), rules.least.cell, one_class=one_class):
        return GroupMetrics(group.group, group.level, None, None)
    floor = rules.least.floor
    curve = "calibration" in rules.figures and group.group == "all"
    bins = shown_bins(group.calibration, rules.least) if curve else ()
    return replace(
        group,
        positives=public_count(group.positives or None, floor),
        negatives=public_count(group.negatives or None, floor),
        auroc=_named("auroc", group.auroc, rules),
        auprc=_named("auprc", group.auprc, rules),
        sensitivity=_rate("sensitivity", group.sensitivity, group.positives, rules),
        specificity=_rate("specificity", group.specificity, group.negatives, rules),
        precision=_rate("precision", group.precision, group.positives, rules),
        f1=_rate("f1", group.f1, group.positives, rules),
        ece=_short(group.ece) if "ece" in rules.figures else None,
        calibration=tuple(
            replace(
                one,
                mean_score=round(one.mean_score, DECIMALS),
                observed=round(one.observed, DECIMALS),
                patients=public_count(one.patients, floor) or 0,
            )
            for one in bins
        ),
    )


def _rate(name: str, found: Estimate | None, judged: int | None, rules: Rules) -> Estimate | None:
    """A share of patients; under strict rules only where neither those in it nor the others are few."""
    if found is not None and rules.strict_rates:
        count = judged or 0
        if min(found.value * count, (1 - found.value) * count) < rules.least.cell:
            return None
    return _named(name, found, rules)


def _named(name: str, found: Estimate | None, rules: Rules) -> Estimate | None:
    return _figure(found) if found is not None and name in rules.figures else None


def _figure(found: Estimate) -> Estimate:
    return Estimate(*(round(value, DECIMALS) for value in (found.value, found.low, found.high)))


def _weights_by_loss(plan: Plan) -> bool:
    """Whether the training loss is part of the method; under privacy no noise covers it, under masks nobody sees it."""
    hidden = plan.private or plan.federation.aggregation == "secure"
    return plan.federation.strategy in TELLS_LOSS and not hidden


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)


def _cell(group: GroupMetrics) -> Cell:
    return Cell(group.positives or 0, group.negatives or 0)


def _one_class(whole: GroupMetrics | None) -> bool:
    cell = Cell(0, 0) if whole is None else _cell(whole)
    return 0 in (cell.positives, cell.negatives)
