"""What a hospital answers under a plan that is an analysis: its own cells, or its part of a masked sum.

1. The plan says in which of the two this hospital is, and the policy allows it; nothing else is answered under such a plan.
2. The year's laws (`client.analytics.memory`) come before the index is read.
3. With noise, the ledger is charged before it is drawn, and what was drawn is on disk before it leaves.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import numpy as np

from client.analytics.count import counted, everybody, patients_of
from client.analytics.memory import NAME, OWN, SUM, Memory, Wanted
from client.analytics.noise import noisy
from client.privacy.desk import Asked, Desk, Pay
from client.privacy.ledger import Limits, Release
from client.site import Site
from common.analytics import Counts, Schema, schema_of
from common.analytics_noise import Noise
from common.arrays import digest
from common.cells import exact_tables
from common.code import code_digest
from common.errors import FederationError, PolicyRefused, WrongOrder
from common.messages import Instruction, Kind, LedgerHead, Tally, Terms
from common.plan import Plan

ANSWERED: Final = (Kind.PRESENT, Kind.ANALYSE, Kind.KEYS, Kind.SHARES, Kind.CONSENT, Kind.UNMASK)
"""What is answered under a plan that is an analysis."""


@dataclass(frozen=True)
class Part:
    """What a hospital puts into a sum, before masks."""

    counts: Counts
    simulated: bool
    epsilon: float | None = None
    """Spent by this run; None for exact counts."""
    head: LedgerHead | None = None


def check_kind(plan: Plan, instruction: Instruction) -> None:
    """Refuse a question that the plan is not for: an analysis trains nothing, and a study counts nothing.

    Raises:
        PolicyRefused: code `kind`.
        FederationError: code `round`; an analysis has one.
    """
    kind = instruction.kind
    if plan.surveys and kind not in ANSWERED:
        raise _not_asked("under an analysis nothing is trained or measured")
    if not plan.surveys and kind is Kind.ANALYSE:
        raise _not_asked("the plan is not an analysis")
    if plan.surveys and kind is not Kind.PRESENT and instruction.round != 1:
        raise FederationError("instruction", "an analysis is one round", "Compare the releases", code="round")


def limits_of(site: Site, plan: Plan) -> Limits:
    """What one patient may spend on an analysis."""
    policy, asked = site.policy, plan.analytics
    return Limits(
        run_epsilon=min(asked.epsilon, policy.max_epsilon_per_run),
        lifetime_epsilon=policy.max_epsilon_lifetime,
        delta=asked.delta,
        allow_non_private=policy.allow_non_private,
        yearly_epsilon=policy.max_epsilon_per_year,
    )


def _not_asked(rule: str) -> PolicyRefused:
    return PolicyRefused("instruction", rule, "Release a plan of its own for it", code="kind")


class Analyst:
    """The analyses of one site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._memory = Memory(site.state / NAME)
        self._desk = Desk(site)

    def tally(self, instruction: Instruction, plan: Plan) -> Tally:
        """The hospital's own cells, exact; the door takes out what may not leave.

        Raises:
            PolicyRefused: `policy-analytics` where plan or policy do not show them, or the year's laws say no.
            DataError: `data-label`.
            StorageError: index or memory cannot be read.
        """
        if self._site.name not in plan.analytics.own or self._site.policy.analytics != "cells":
            raise PolicyRefused(
                f"plan {plan.study.name}",
                "this hospital shows no cells of its own in it",
                "Name it in analytics.own, and let it set policy.analytics to 'cells'",
                code="policy-analytics",
            )
        schema = schema_of(plan)
        counts = self._counts(instruction, plan, OWN)
        return Tally(
            self._site.name,
            instruction.run,
            instruction.round,
            instruction.plan_digest,
            code_digest(),
            schema.digest,
            exact_tables(schema, counts),
            self._site.simulated,
        )

    def part(self, instruction: Instruction, plan: Plan, terms: Terms) -> Part:
        """What goes into the sum: exact, or with this hospital's share of noise, charged and kept.

        Raises:
            PolicyRefused, DataError, StorageError: as `tally`.
            PrivacyRefused, LedgerError: the budget or the ledger says no.
        """
        if not plan.analytics.epsilon:
            return Part(self._counts(instruction, plan, SUM), self._site.simulated)
        schema = schema_of(plan)
        noise = Noise.of(plan, len(terms.members), terms.threshold)
        limits = limits_of(self._site, plan)
        release = Release(instruction.run, instruction.round, instruction.plan_digest, digest({}))

        def work(pay: Pay) -> bytes:
            counts = self._counts(instruction, plan, SUM)
            cohort = self._counted(instruction, plan)
            pay(sorted(cohort), noise.event, limits)
            return json.dumps(noisy(counts, noise).tolist()).encode()

        blob = self._desk.send(Asked(release, instruction.countersignature), work)
        counts = np.array(json.loads(blob), dtype=np.int64)
        if counts.size != schema.size:
            raise WrongOrder("the ledger", "what it kept is not this analysis", "Ask under a run of its own")
        return Part(counts, self._site.simulated, plan.analytics.epsilon, self._desk.head())

    def _counts(self, instruction: Instruction, plan: Plan, place: str) -> Counts:
        schema = schema_of(plan)
        year = self._begun(instruction, schema, place)

        def count() -> Counts:
            cohort = self._memory.cohort(year, everybody(self._site))
            return counted(patients_of(self._site, plan), plan, cohort)

        return self._memory.counts(year, schema.digest, count)

    def _counted(self, instruction: Instruction, plan: Plan) -> frozenset[str]:
        """The names in the ledger of those who are counted."""
        year = self._begun(instruction, schema_of(plan), SUM)
        return self._memory.cohort(year, everybody(self._site)) & set(patients_of(self._site, plan))

    def _begun(self, instruction: Instruction, schema: Schema, place: str) -> int:
        return self._memory.begin(Wanted(instruction.run, place, schema.digest), self._site.policy)
