"""How much one patient may spend, and how near the worst of a cohort has come to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from client.policy import Policy
from common.plan import Plan

WARN_AT: Final = 0.8
"""The share of a limit from which on people are told."""


class Span(StrEnum):
    """Over what a limit counts."""

    RUN = "run"
    YEAR = "year"
    """Any 365 days: a rate under the limit for life, never a renewal of it."""
    LIFETIME = "lifetime"


@dataclass(frozen=True)
class Limits:
    """How much one patient may spend; from the plan and the hospital's policy, never from patients."""

    run_epsilon: float
    lifetime_epsilon: float
    delta: float
    allow_non_private: bool = False
    yearly_epsilon: float = math.inf

    @classmethod
    def of(cls, policy: Policy, plan: Plan) -> Limits:
        """The tighter of plan and policy for the run, the policy's for a year and for life."""
        return cls(
            run_epsilon=min(plan.privacy.epsilon, policy.max_epsilon_per_run),
            lifetime_epsilon=policy.max_epsilon_lifetime,
            delta=plan.privacy.delta,
            allow_non_private=policy.allow_non_private,
            yearly_epsilon=policy.max_epsilon_per_year,
        )

    @classmethod
    def of_policy(cls, policy: Policy) -> Limits:
        """The policy's alone, for showing what is left without a plan at hand."""
        return cls(
            run_epsilon=policy.max_epsilon_per_run,
            lifetime_epsilon=policy.max_epsilon_lifetime,
            delta=policy.max_delta,
            allow_non_private=policy.allow_non_private,
            yearly_epsilon=policy.max_epsilon_per_year,
        )

    def of_span(self, span: Span) -> float:
        """The limit over one span."""
        return {
            Span.RUN: self.run_epsilon,
            Span.YEAR: self.yearly_epsilon,
            Span.LIFETIME: self.lifetime_epsilon,
        }[span]


@dataclass(frozen=True)
class Usage:
    """What the worst patient has spent of one limit."""

    span: Span
    epsilon: float
    """At the smallest delta that was promised within the span."""
    limit: float

    @property
    def share(self) -> float:
        """Of the limit, 1 being all of it; 0 of a limit that is not there."""
        return self.epsilon / self.limit if math.isfinite(self.limit) else 0.0

    @property
    def near(self) -> bool:
        """Whether it is time to tell people."""
        return self.share >= WARN_AT
