"""What the ledger knows, and what it allows: pure bookkeeping, no file and no clock.

Patients whose cohorts are the same share one history and therefore one composition, so that a round
costs as many compositions as there are kinds of history, not as there are patients.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from client.policy import Policy
from common import accounting
from common.accounting import DpEventSpec
from common.errors import LedgerError
from common.plan import Plan
from common.types import Digest, RunId


@dataclass(frozen=True)
class Release:
    """Names one protected update: repeated in every field, the same bytes may be sent again for free."""

    run: RunId
    round: int
    plan_digest: Digest
    model_digest: Digest
    """Digest of the incoming model the update was, or will be, trained from."""
    roster_digest: str = ""
    """Digest of the sites taking part, where masks depend on it."""


@dataclass(frozen=True)
class Limits:
    """How much one patient may spend; from the plan and the hospital's policy, never from patients."""

    run_epsilon: float
    lifetime_epsilon: float
    delta: float
    allow_non_private: bool = False

    @classmethod
    def of(cls, policy: Policy, plan: Plan) -> Limits:
        """The tighter of plan and policy for the run, the policy's cap for life."""
        return cls(
            run_epsilon=min(plan.privacy.epsilon, policy.max_epsilon_per_run),
            lifetime_epsilon=policy.max_epsilon_lifetime,
            delta=plan.privacy.delta,
            allow_non_private=policy.allow_non_private,
        )


@dataclass(frozen=True)
class Charge:
    """One row of spending: this event happened to every patient of this cohort."""

    release: Release
    event: DpEventSpec
    delta: float
    cohort: Digest
    patients: int
    time: str
    """UTC, ISO 8601; for the reader, no rule depends on it."""


Cohorts = tuple[Digest, ...]
_Totals = dict[tuple[Digest, RunId], Counter[tuple[float, float]]]


def cohort_digest(spend_keys: Iterable[str]) -> Digest:
    """SHA-256 over the sorted spend keys; who they are cannot be read from it without the keys."""
    text = "\n".join(sorted(spend_keys))
    return Digest("sha256:" + hashlib.sha256(text.encode()).hexdigest())


@dataclass
class Book:
    """Every charge so far, indexed for composition."""

    charges: list[Charge] = field(default_factory=list)
    _cohorts_of: dict[str, Cohorts] = field(default_factory=dict)
    _known: set[Digest] = field(default_factory=set)
    _totals: _Totals = field(default_factory=dict)

    def knows(self, cohort: Digest) -> bool:
        """Whether the members of this cohort are already on record."""
        return cohort in self._known

    def enrol(self, cohort: Digest, spend_keys: Iterable[str]) -> None:
        """Put a cohort's members on record; once."""
        if cohort in self._known:
            return
        self._known.add(cohort)
        for key in spend_keys:
            self._cohorts_of[key] = (*self._cohorts_of.get(key, ()), cohort)

    def record(self, charge: Charge) -> None:
        """Add a charge that is already on disk."""
        self.charges.append(charge)
        totals = self._totals.setdefault((charge.cohort, charge.release.run), Counter())
        totals[charge.event.sampling_rate, charge.event.noise_multiplier] += charge.event.steps

    def admit(self, charge: Charge, spend_keys: Iterable[str], limits: Limits) -> float:
        """Try the composition with this charge, before anything is written.

        Returns:
            The lifetime epsilon of the cohort's worst patient after it, at the charge's delta.

        Raises:
            LedgerError: `ledger-spent` or `ledger-non-private`.
        """
        if not charge.event.private and not limits.allow_non_private:
            raise LedgerError(
                f"run {charge.release.run}",
                "a release without noise needs the policy's explicit word",
                "Set policy.allow_non_private in site.toml, or ask for privacy.mode = 'patient-dp'",
                code="ledger-non-private",
            )
        histories = self._histories(spend_keys)
        # Checked at the smallest delta ever promised, so that a later, looser delta frees nothing.
        strict = min([limits.delta, *(c.delta for c in self.charges if c.event.private)])
        run = charge.release.run
        self._within(histories, charge, limits.delta, run=run, limits=limits)
        self._within(histories, charge, strict, run=None, limits=limits)
        return max((self._spend(h, limits.delta, None, charge) for h in histories), default=0.0)

    def epsilon(
        self, delta: float, spend_keys: Iterable[str] | None = None, run: RunId | None = None
    ) -> float:
        """Spend of the worst of these patients (all on record when not given), over one run or for life."""
        histories = set(self._cohorts_of.values()) if spend_keys is None else self._histories(spend_keys)
        return max((self._spend(h, delta, run, None) for h in histories), default=0.0)

    def _histories(self, spend_keys: Iterable[str]) -> set[Cohorts]:
        return {self._cohorts_of.get(key, ()) for key in spend_keys}

    def _within(
        self, histories: set[Cohorts], charge: Charge, delta: float, *, run: RunId | None, limits: Limits
    ) -> None:
        limit = limits.lifetime_epsilon if run is None else limits.run_epsilon
        for history in histories:
            events = self._events(history, run, charge)
            if limits.allow_non_private:
                events = [e for e in events if e.private]
            spent = accounting.compose(events, delta)
            if spent > limit:
                raise _spent(charge, spent, limit, lifetime=run is None)

    def _spend(self, history: Cohorts, delta: float, run: RunId | None, extra: Charge | None) -> float:
        return accounting.compose(self._events(history, run, extra), delta)

    def _events(self, history: Cohorts, run: RunId | None, extra: Charge | None) -> list[DpEventSpec]:
        wanted = frozenset(history)
        steps: Counter[tuple[float, float]] = Counter()
        for (cohort, of_run), totals in self._totals.items():
            if cohort in wanted and (run is None or of_run == run):
                steps.update(totals)
        if extra is not None:
            steps[extra.event.sampling_rate, extra.event.noise_multiplier] += extra.event.steps
        return [DpEventSpec(q, sigma, n) for (q, sigma), n in steps.items()]


def _spent(charge: Charge, spent: float, limit: float, *, lifetime: bool) -> LedgerError:
    what = "lifetime" if lifetime else "run"
    value = "infinite" if math.isinf(spent) else f"{spent:.4g}"
    return LedgerError(
        f"run {charge.release.run}",
        f"this round would bring a patient's {what} epsilon to {value}, above the limit {limit:g}",
        "Stop this run; nothing was spent by this refusal",
        code="ledger-spent",
    )


def release_from(values: Mapping[str, object]) -> Release:
    """A Release back from the plain values of a ledger row."""
    return Release(
        run=RunId(str(values["run"])),
        round=int(str(values["round"])),
        plan_digest=Digest(str(values["plan_digest"])),
        model_digest=Digest(str(values["model_digest"])),
        roster_digest=str(values["roster_digest"]),
    )
