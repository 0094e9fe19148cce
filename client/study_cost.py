"""What a study would cost this hospital's patients, and how many of them it is about; nothing of this leaves.

The cost is worked out as the ledger itself will: the whole run, rounds in reserve included, is composed with what each
patient has spent. Every labelled patient counts as if trained on, so that it is never less than what comes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from client.analytics.analyst import limits_of
from client.index import Index
from client.privacy.book import Charge, Release, cohort_digest
from client.privacy.desk import Desk
from client.privacy.limits import Limits, Span
from client.privacy.plan import DpPlan
from client.twins import without_twins
from common.accounting import DpEventSpec
from common.analytics_noise import event_of
from common.errors import LedgerError
from common.plan import Plan
from common.types import Digest, RunId

if TYPE_CHECKING:
    from client.site import Site

_ANY_BUCKET: Final = 100
"""Noise and sampling follow from the plan alone."""


@dataclass(frozen=True)
class Spent:
    """Of the worst patient, against one limit; None: without bound."""

    span: str
    before: float | None
    after: float | None
    limit: float


@dataclass(frozen=True)
class Cost:
    """What a study asks of the patients here; exact numbers, for this hospital's eyes."""

    patients: int
    """Labelled patients with an image of the plan's modalities."""
    training: int
    """About as many of them would be trained on."""
    images: int
    epsilon: float | None
    """Of the whole run by itself; None without privacy."""
    delta: float
    spent: tuple[Spent, ...]
    refused: str
    """Code with which the ledger would refuse the run before its end; empty when there is room for all of it."""


def cost_of(site: Site, plan: Plan) -> Cost:
    """Work it out; neither index nor ledger is changed.

    Raises:
        LedgerError: the ledger is missing, in use, or not whole.
        StorageError: the index cannot be read.
    """
    keys, images = _qualifying(site, plan)
    if plan.surveys and not plan.analytics.epsilon:
        return Cost(len(keys), 0, images, 0.0, plan.analytics.delta, (), "")
    share = 1 - plan.data.test_fraction - plan.data.validation_fraction
    limits = limits_of(site, plan) if plan.surveys else Limits.of(site.policy, plan)
    with Desk(site).open() as ledger:
        now = max(datetime.now(UTC).isoformat(timespec="seconds"), ledger.book.time)
        before = ledger.book.usage(keys or None, RunId(""), now, limits)
        whole = _whole_run(plan, keys, now)
        refused, after = "", dict.fromkeys(Span, math.inf)
        loose = Limits(math.inf, math.inf, limits.delta, allow_non_private=True)
        if whole.event.private:
            after = {one.span: one.epsilon for one in ledger.book.admit(whole, keys or ("",), loose).usage}
        try:
            ledger.book.admit(whole, keys or ("",), limits)
        except LedgerError as error:
            refused = error.code
    spent = tuple(
        Spent(one.span.value, _finite(one.epsilon), _finite(after[one.span]), one.limit)
        for one in before
        if one.span is not Span.RUN
    )
    return Cost(
        len(keys),
        0 if plan.surveys else round(len(keys) * share),
        images,
        _finite(after[Span.RUN]),
        limits.delta,
        spent,
        refused,
    )


def _qualifying(site: Site, plan: Plan) -> tuple[tuple[str, ...], int]:
    """Names in the ledger of the patients a plan is about, and their images."""
    if not site.index.exists():
        return (), 0
    with Index(site.index) as index:
        images = [row for row in index.images() if row.modality in plan.input.modalities]
    rows = [row for row in without_twins(images) if row.label is not None]
    return tuple(sorted({row.spend_key for row in rows})), len(rows)


def _whole_run(plan: Plan, keys: tuple[str, ...], now: str) -> Charge:
    """All rounds as one charge, under a name that no run has."""
    rounds = plan.federation.rounds + plan.privacy.spare_rounds
    if plan.surveys:
        event = event_of(plan)
    elif plan.private:
        dp = DpPlan.from_plan(plan, _ANY_BUCKET)
        event = DpEventSpec(dp.sampling_rate, dp.noise_multiplier, dp.steps_per_round * rounds)
    else:
        event = DpEventSpec(1.0, 0.0, rounds)
    release = Release(RunId(""), 1, plan.digest, Digest(""))
    delta = plan.analytics.delta if plan.surveys else plan.privacy.delta
    return Charge(release, event, delta, cohort_digest(keys), len(keys), now)


def _finite(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None
