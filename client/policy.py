"""What this hospital allows. A plan may ask for less than this, never for more.

The check happens before any data is touched; the server can only tighten (law 3). What a plan asks of
training is judged by `check`; what is asked of the hospital at all, by `check_asked`. Both read the plan
and the policy and nothing else, so a refusal tells nothing of a patient.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Final, Literal, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from common.errors import PolicyRefused
from common.plan import Plan

Figure = Literal[
    "auroc",
    "auprc",
    "sensitivity",
    "specificity",
    "precision",
    "f1",
    "ece",
    "calibration",
    "comparison",
    "threshold",
    "progress",
]
"""A kind of figure that may leave: the metrics, and differences, operating points and learning curves."""
Group = Literal["manufacturer", "projection", "sex", "age"]
FIGURES: Final[tuple[Figure, ...]] = get_args(Figure)
GROUPS: Final[tuple[Group, ...]] = get_args(Group)
_ANY_BUCKET: Final = 100
"""The noise of a plan does not depend on how many patients there are; any bucket tells it."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Policy:
    """Floors and ceilings of `[policy]` in site.toml."""

    allow_non_private: bool = False
    """Whether a plan without differential privacy may train here at all."""
    max_epsilon_per_run: Annotated[float, Field(gt=0)] = 8.0
    max_epsilon_lifetime: Annotated[float, Field(gt=0)] = 16.0
    max_epsilon_per_year: Annotated[float, Field(gt=0)] = 8.0
    """Of any one patient within any 365 days: a rate under the limit for life, never a renewal of it."""
    max_delta: Annotated[float, Field(gt=0, lt=0.01)] = 1e-4
    max_clip: Annotated[float, Field(gt=0)] = 10.0
    min_noise_multiplier: Annotated[float, Field(ge=0)] = 0.3
    """Least noise in units of the clip, whatever epsilon a plan could reach with less; 0: no floor."""
    max_sampling_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """A patient enters a noisy step with at most this probability."""
    min_patients: Annotated[int, Field(ge=1)] = 20
    """Fewest training patients with which this hospital takes part."""
    min_cell: Annotated[int, Field(ge=1)] = 11
    quarantine_days: Annotated[int, Field(ge=1)] = 90
    """Refused originals, encrypted, are kept so long."""
    audit_years: Annotated[int, Field(ge=1, le=100)] = 6
    """Closed files of the audit log are kept so long; then the log says that they went."""
    plans: tuple[str, ...] = field(default_factory=tuple)
    """Digests of the plans approved here (law 4); empty: every plan within this policy."""
    networks: tuple[str, ...] = field(default_factory=tuple)
    """Networks that may be asked for here; empty: every network of the installed release."""
    architectures: tuple[str, ...] = field(default_factory=tuple)
    """Digests of the architectures that may be asked for here (`common.models.architecture_digest`), options
    and trainable part included; empty: all."""
    trainable: tuple[Literal["all", "head", "last-block", "norms-and-head", "adapters"], ...] = field(
        default_factory=tuple
    )
    """Parts of a network that may learn here; empty: any."""
    metrics: tuple[Figure, ...] = FIGURES
    """Kinds of figures that may leave; the others are taken out at the door."""
    groups: tuple[Group, ...] = GROUPS
    """Groups of patients of which figures may leave, besides all patients."""
    strict_rates: bool = False
    """Whether a rate, such as the sensitivity, leaves only where neither its hits nor its misses are a small cell."""
    private_progress: bool = False
    """Whether loss and AUROC of validation patients, whom epsilon does not cover, leave beside a private update; and
    in masked rounds the word that a model is worse than the one before, which is made of them."""
    analytics: Literal["off", "totals", "cells"] = "totals"
    """Whether patients are counted here for an analysis: not at all, within sums of several hospitals only, or also shown
    under this hospital's own name where an approved plan says so."""
    max_analyses_per_year: Annotated[int, Field(ge=1)] = 4
    """Runs of analyses that are answered in one calendar year, however they are named."""
    max_surveys_per_run: Annotated[int, Field(ge=1)] = 50
    max_thresholds_per_run: Annotated[int, Field(ge=1)] = 3
    max_evaluations_per_run: Annotated[int, Field(ge=1)] = 3
    max_questions_per_year: Annotated[int, Field(ge=1)] = 200
    """Thresholds and evaluations of all runs together, however they are named, in any 365 days."""


def check(policy: Policy, plan: Plan) -> None:
    """Refuse by name a plan that asks more of training than the policy allows.

    Raises:
        PolicyRefused: with the code of the first rule broken.
        PrivacyRefused: `accounting-*` for a plan whose epsilon no noise can keep.
    """
    check_asked(policy, plan)
    name = f"plan {plan.study.name}"
    if plan.surveys:
        _analysis(policy, plan)
        return
    if policy.trainable and plan.model.trainable not in policy.trainable:
        raise PolicyRefused(
            name,
            f"its trainable part {plan.model.trainable} is not on this hospital's list",
            "Add it to policy.trainable in site.toml, or choose a listed one",
            code="policy-trainable",
        )
    if plan.private:
        _ceiling(name, "epsilon", plan.privacy.epsilon, policy.max_epsilon_per_run)
        _ceiling(name, "delta", plan.privacy.delta, policy.max_delta)
        _ceiling(name, "clip", plan.privacy.clip, policy.max_clip)
        _ceiling(name, "sampling_rate", plan.privacy.sampling_rate, policy.max_sampling_rate)
        _noise(policy, plan)
    elif not policy.allow_non_private:
        raise PolicyRefused(
            name,
            "this hospital trains under patient-level differential privacy only",
            "Ask for privacy.mode = 'patient-dp', or set policy.allow_non_private in site.toml",
            code="policy-non-private",
        )


def check_asked(policy: Policy, plan: Plan) -> None:
    """Refuse a plan under which this hospital answers nothing: not approved, or of a network it does not run.

    Raises:
        PolicyRefused: `policy-plan`, `policy-network` or `policy-architecture`.
        PlanError: a network that cannot be built, where architectures are listed.
    """
    check_approved(policy, plan)
    name = f"plan {plan.study.name}"
    if policy.networks and plan.model.name not in policy.networks:
        raise PolicyRefused(
            name,
            f"network {plan.model.name} is not on this hospital's list",
            "Add it to policy.networks in site.toml, or choose a listed one",
            code="policy-network",
        )
    if policy.architectures and (digest := _architecture(plan)) not in policy.architectures:
        raise PolicyRefused(
            name,
            f"its architecture, {digest}, is not on this hospital's list",
            "Read the plan's [model]; to allow it, add its digest to policy.architectures in site.toml",
            code="policy-architecture",
        )


def check_approved(policy: Policy, plan: Plan) -> None:
    """Refuse a plan this hospital has not approved; asked before any instruction of it is followed.

    Raises:
        PolicyRefused: code `policy-plan`.
    """
    if policy.plans and plan.digest not in policy.plans:
        raise PolicyRefused(
            f"plan {plan.study.name}",
            "its digest is not among those this hospital approved",
            "Read the plan; to approve it, add its digest to policy.plans in site.toml",
            code="policy-plan",
        )


def _analysis(policy: Policy, plan: Plan) -> None:
    """What is asked of an analysis; nothing is trained under it, so nothing else of the plan is asked."""
    name, asked = f"plan {plan.study.name}", plan.analytics
    if policy.analytics == "off":
        raise PolicyRefused(
            name,
            "this hospital takes part in no analysis",
            "Set policy.analytics in site.toml to 'totals' or 'cells'",
            code="policy-analytics",
        )
    if asked.epsilon:
        _ceiling(name, "epsilon", asked.epsilon, policy.max_epsilon_per_run)
        _ceiling(name, "delta", asked.delta, policy.max_delta)


def _ceiling(name: str, what: str, asked: float, allowed: float) -> None:
    if asked > allowed:
        raise PolicyRefused(
            name,
            f"{what} {asked:g} is above this hospital's ceiling {allowed:g}",
            f"Lower privacy.{what}, or raise the ceiling in site.toml",
            code=f"policy-{what.replace('_', '-')}",
        )


def _noise(policy: Policy, plan: Plan) -> None:
    """The floor under the noise; told from the plan alone."""
    if policy.min_noise_multiplier == 0:
        return
    from client.privacy.plan import DpPlan  # noqa: PLC0415 - the ledger's modules read this one

    sigma = DpPlan.from_plan(plan, _ANY_BUCKET).noise_multiplier
    if sigma < policy.min_noise_multiplier:
        raise PolicyRefused(
            f"plan {plan.study.name}",
            f"its noise multiplier {sigma:g} is below this hospital's floor {policy.min_noise_multiplier:g}",
            "Lower privacy.epsilon or ask for more rounds, or lower the floor in site.toml",
            code="policy-noise",
        )


def _architecture(plan: Plan) -> str:
    """The digest of the network a plan asks for; no weight of it is looked at."""
    from common.models import architecture_digest, build  # noqa: PLC0415 - torch, where a list is kept only

    rows, columns = plan.input.shape[-2:]
    return architecture_digest(build(plan.model, plan.task.outputs, (rows, columns)))
