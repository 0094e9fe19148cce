"""What this hospital allows. A plan may ask for less than this, never for more.

The check happens before any data is touched; the server can only tighten (law 3).
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from common.errors import PolicyRefused
from common.plan import Plan


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Policy:
    """Floors and ceilings of `[policy]` in site.toml."""

    allow_non_private: bool = False
    """Whether a plan without differential privacy may train here at all."""
    max_epsilon_per_run: Annotated[float, Field(gt=0)] = 8.0
    max_epsilon_lifetime: Annotated[float, Field(gt=0)] = 16.0
    max_delta: Annotated[float, Field(gt=0, lt=0.01)] = 1e-4
    max_clip: Annotated[float, Field(gt=0)] = 10.0
    min_patients: Annotated[int, Field(ge=1)] = 20
    """Fewest training patients with which this hospital takes part."""
    min_cell: Annotated[int, Field(ge=1)] = 11
    quarantine_days: Annotated[int, Field(ge=1)] = 90
    """Refused originals, encrypted, are kept so long."""
    plans: tuple[str, ...] = field(default_factory=tuple)
    """Digests of the plans approved here (law 4); empty: every plan within this policy."""
    networks: tuple[str, ...] = field(default_factory=tuple)
    """Networks that may be trained here; empty: every network of the installed release."""


def check(policy: Policy, plan: Plan) -> None:
    """Refuse by name a plan that asks for more than the policy allows.

    Raises:
        PolicyRefused: with the code of the first rule broken.
    """
    check_approved(policy, plan)
    name = f"plan {plan.study.name}"
    if plan.private:
        _ceiling(name, "epsilon", plan.privacy.epsilon, policy.max_epsilon_per_run)
        _ceiling(name, "delta", plan.privacy.delta, policy.max_delta)
        _ceiling(name, "clip", plan.privacy.clip, policy.max_clip)
    elif not policy.allow_non_private:
        raise PolicyRefused(
            name,
            "this hospital trains under patient-level differential privacy only",
            "Ask for privacy.mode = 'patient-dp', or set policy.allow_non_private in site.toml",
            code="policy-non-private",
        )
    if policy.networks and plan.model.name not in policy.networks:
        raise PolicyRefused(
            name,
            f"network {plan.model.name} is not on this hospital's list",
            "Add it to policy.networks in site.toml, or choose a listed one",
            code="policy-network",
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


def _ceiling(name: str, what: str, asked: float, allowed: float) -> None:
    if asked > allowed:
        raise PolicyRefused(
            name,
            f"{what} {asked:g} is above this hospital's ceiling {allowed:g}",
            f"Lower privacy.{what}, or raise the ceiling in site.toml",
            code=f"policy-{what}",
        )
