"""What the ledger knows, and what it allows: pure bookkeeping, no file and no clock.

Patients whose cohorts are the same share one history and therefore one composition, so that a round
costs as many compositions as there are kinds of history, not as there are patients.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from client.privacy.limits import Limits, Span, Usage
from common import accounting
from common.accounting import DpEventSpec
from common.errors import LedgerError
from common.types import Digest, RunId

YEAR: Final = timedelta(days=365)


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
class Charge:
    """One row of spending: this event happened to every patient of this cohort."""

    release: Release
    event: DpEventSpec
    delta: float
    cohort: Digest
    patients: int
    time: str
    """UTC, ISO 8601, never before that of the charge before: the limit per year depends on it."""


Cohorts = tuple[Digest, ...]
_Sums = dict[Digest, Counter[DpEventSpec]]
"""Per cohort how many steps of each kind of event; the kind is the event with 0 steps."""


@dataclass(frozen=True)
class Spent:
    """What the worst patient of a cohort has spent, a charge that is being tried included."""

    epsilon: float
    """For life, at the plan's delta."""
    run_epsilon: float
    """Over the charge's run alone, at the plan's delta."""
    usage: tuple[Usage, ...]
    """Of each limit."""


def cohort_digest(spend_keys: Iterable[str]) -> Digest:
    """SHA-256 over the sorted spend keys; who they are cannot be read from it without the keys."""
    text = "\n".join(sorted(spend_keys))
    return Digest("sha256:" + hashlib.sha256(text.encode()).hexdigest())


@dataclass
class Window:
    """The charges of the 365 days before a moment, kept as sums; of the others none is forgotten.

    The moment moves on with every question, and back again where a clock ran ahead and was set right: a question
    that was asked meanwhile must not have freed anything.
    """

    sums: _Sums = field(default_factory=dict)
    _charges: list[Charge] = field(default_factory=list)
    _first: int = 0
    """Of the charges that count."""

    def add(self, charge: Charge) -> None:
        """Put in a charge that is not older than those before."""
        self._charges.append(charge)
        _count(self.sums, charge, 1)

    def move(self, now: str) -> None:
        """Leave out what happened more than 365 days before `now`."""
        oldest = (datetime.fromisoformat(now) - YEAR).isoformat(timespec="seconds")
        while self._first < len(self._charges) and self._charges[self._first].time <= oldest:
            _count(self.sums, self._charges[self._first], -1)
            self._first += 1
        while self._first and self._charges[self._first - 1].time > oldest:
            self._first -= 1
            _count(self.sums, self._charges[self._first], 1)

    def delta(self, least: float) -> float:
        """The smallest delta promised within the window, at most `least`."""
        within = islice(self._charges, self._first, None)
        return min([least, *(c.delta for c in within if c.event.private)])


@dataclass
class Book:
    """Every charge so far, indexed for composition."""

    charges: list[Charge] = field(default_factory=list)
    _cohorts_of: dict[str, Cohorts] = field(default_factory=dict)
    _known: set[Digest] = field(default_factory=set)
    _life: _Sums = field(default_factory=dict)
    _runs: dict[RunId, _Sums] = field(default_factory=dict)
    _year: Window = field(default_factory=Window)
    _delta: float = 1.0

    @property
    def time(self) -> str:
        """Of the last charge; empty before the first."""
        return self.charges[-1].time if self.charges else ""

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
        _count(self._life, charge, 1)
        _count(self._runs.setdefault(charge.release.run, {}), charge, 1)
        self._year.add(charge)
        if charge.event.private:
            self._delta = min(self._delta, charge.delta)

    def admit(self, charge: Charge, spend_keys: Iterable[str], limits: Limits) -> Spent:
        """Try the composition with this charge, before anything is written.

        Returns:
            What the cohort's worst patient has spent after it.

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
        usage = self._usage(histories, charge, charge.release.run, charge.time, limits)
        for one in usage:
            if one.epsilon > one.limit:
                raise _spent(charge, one)
        of_run = self._runs.get(charge.release.run, {})
        return Spent(
            self._worst(histories, self._life, limits.delta, charge),
            self._worst(histories, of_run, limits.delta, charge),
            usage,
        )

    def usage(
        self, spend_keys: Iterable[str] | None, run: RunId | None, now: str, limits: Limits
    ) -> tuple[Usage, ...]:
        """What the worst of these patients (all on record when not given) has spent of each limit.

        Args:
            spend_keys: the cohort.
            run: whose limit is meant; the run that spent most when not given.
            now: end of the year that counts, UTC.
            limits: of plan and policy.
        """
        histories = self._all() if spend_keys is None else self._histories(spend_keys)
        return self._usage(histories, None, run, now, limits)

    def epsilon(
        self, delta: float, spend_keys: Iterable[str] | None = None, run: RunId | None = None
    ) -> float:
        """Spend of the worst of these patients (all on record when not given), over one run or for life."""
        histories = self._all() if spend_keys is None else self._histories(spend_keys)
        return self._worst(histories, self._life if run is None else self._runs.get(run, {}), delta, None)

    def epsilon_of(self, charges: Iterable[Charge], delta: float) -> float:
        """Spend of the patient whom these charges, of all there are, cost most."""
        sums: _Sums = {}
        for charge in charges:
            _count(sums, charge, 1)
        return self._worst(self._all(), sums, delta, None)

    def patients(self, delta: float) -> list[tuple[float, int]]:
        """Lifetime spend and number of patients, for each kind of history."""
        kinds = Counter(self._cohorts_of.values())
        return sorted((self._worst({history}, self._life, delta, None), n) for history, n in kinds.items())

    @property
    def strictest_delta(self) -> float:
        """The smallest delta ever promised; 1 before any private charge."""
        return self._delta

    def _all(self) -> set[Cohorts]:
        return set(self._cohorts_of.values())

    def _histories(self, spend_keys: Iterable[str]) -> set[Cohorts]:
        return {self._cohorts_of.get(key, ()) for key in spend_keys}

    def _usage(
        self, histories: set[Cohorts], extra: Charge | None, run: RunId | None, now: str, limits: Limits
    ) -> tuple[Usage, ...]:
        self._year.move(now)
        runs = list(self._runs.values()) if run is None else [self._runs.get(run, {})]
        # Life and year are counted at the smallest delta promised in them, so that a later, looser delta
        # frees nothing.
        counted = {
            Span.RUN: (runs, limits.delta),
            Span.LIFETIME: ([self._life], min(limits.delta, self._delta)),
            Span.YEAR: ([self._year.sums], self._year.delta(limits.delta)),
        }
        private = limits.allow_non_private
        return tuple(
            Usage(
                span,
                max((self._worst(histories, s, delta, extra, private=private) for s in sums), default=0.0),
                limits.of_span(span),
            )
            for span, (sums, delta) in counted.items()
        )

    def _worst(
        self,
        histories: set[Cohorts],
        sums: _Sums,
        delta: float,
        extra: Charge | None,
        *,
        private: bool = False,
    ) -> float:
        """Epsilon of the worst history; with `private`, of its private events only."""
        worst = 0.0
        for events in {frozenset(_events(history, sums, extra).items()) for history in histories}:
            kept = [replace(kind, steps=n) for kind, n in events if kind.private or not private]
            worst = max(worst, accounting.compose(kept, delta))
        return worst


def _count(sums: _Sums, charge: Charge, sign: int) -> None:
    of_cohort = sums.setdefault(charge.cohort, Counter())
    of_cohort[replace(charge.event, steps=0)] += sign * charge.event.steps


def _events(history: Cohorts, sums: _Sums, extra: Charge | None) -> Counter[DpEventSpec]:
    steps: Counter[DpEventSpec] = Counter()
    for cohort in history:
        steps.update(sums.get(cohort, {}))
    if extra is not None:
        steps[replace(extra.event, steps=0)] += extra.event.steps
    return +steps


def _spent(charge: Charge, usage: Usage) -> LedgerError:
    what = "yearly" if usage.span is Span.YEAR else usage.span.value
    value = "infinite" if math.isinf(usage.epsilon) else f"{usage.epsilon:.4g}"
    return LedgerError(
        f"run {charge.release.run}",
        f"this round would bring a patient's {what} epsilon to {value}, above the limit {usage.limit:g}",
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
