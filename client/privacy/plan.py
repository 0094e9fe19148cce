"""One frozen object in which sampling, clipping, noise and accounting agree.

Nothing can be accounted that was not run, because both read the same fields; and nothing here was
computed from patients: every field comes from the study plan, the hospital's policy or its public bucket,
or, for a clip carried from the round before, from counts that were released with noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from client.privacy.adaptive import LEAST_SHARE, AdaptiveClip
from common import accounting
from common.accounting import DpEventSpec, Schedule
from common.errors import PrivacyRefused
from common.plan import Plan
from common.plan_training import Privacy


@dataclass(frozen=True)
class DpPlan:
    """How one hospital trains under patient-level differential privacy."""

    sampling_rate: float
    """q: each patient enters a step independently with this probability."""
    clip: float
    """C: the largest L2 norm of one patient's contribution to a step; of the first step, if it adapts."""
    noise_multiplier: float
    """sigma: what a step costs, as a Gaussian release: without `adaptive`, the noise's standard deviation in
    units of C."""
    images_per_patient: int
    """K: up to this many images or augmented views of a patient are averaged into their contribution."""
    expected_batch: float
    """q times the public bucket of training patients: the divisor of every step."""
    steps_per_round: int
    delta: float
    rounds: int
    """Rounds the noise was calibrated for, spare ones included."""
    adaptive: AdaptiveClip | None = None
    """How C moves; None: it does not."""

    @classmethod
    def from_plan(cls, plan: Plan, bucket: int, max_clip: float = math.inf) -> DpPlan:
        """Calibrate the noise so that all rounds, spare ones included, stay within the plan's epsilon.

        Args:
            plan: a study plan with privacy.mode = 'patient-dp'.
            bucket: the hospital's public, coarse number of training patients.
            max_clip: the hospital's ceiling, which an adaptive C does not pass either.

        Raises:
            PrivacyRefused: `not-private` for a plan without privacy, `bucket` for an empty bucket,
                `accounting-*` when no noise is enough.
        """
        privacy = plan.privacy
        if not plan.private:
            raise PrivacyRefused(
                f"plan {plan.study.name}", "asks for no privacy", "Train without a DpPlan", code="not-private"
            )
        if bucket < 1:
            raise PrivacyRefused(
                "site.patients_bucket",
                "the public number of training patients is at least 1",
                "Ingest first, or set site.patients_bucket in site.toml",
                code="bucket",
            )
        schedule = Schedule(
            privacy.sampling_rate, privacy.steps_per_round, plan.federation.rounds, privacy.spare_rounds
        )
        sigma = accounting.noise_for(privacy.epsilon, privacy.delta, schedule)
        return cls(
            sampling_rate=privacy.sampling_rate,
            clip=min(privacy.clip, max_clip),
            noise_multiplier=sigma,
            images_per_patient=plan.training.images_per_patient,
            expected_batch=privacy.sampling_rate * bucket,
            steps_per_round=privacy.steps_per_round,
            delta=privacy.delta,
            rounds=schedule.rounds + schedule.spare_rounds,
            adaptive=_adaptive(privacy, sigma, max_clip),
        )

    def carrying(self, clip: float | None) -> DpPlan:
        """The same with C where the round before left it; unchanged when it is fixed, or nothing was left."""
        if self.adaptive is None or clip is None:
            return self
        return replace(self, clip=min(max(clip, self.adaptive.least), self.adaptive.most))

    @property
    def sum_multiplier(self) -> float:
        """Standard deviation of the noise on a step's sum in units of C; above sigma where the count is paid too."""
        if self.adaptive is None:
            return self.noise_multiplier
        return self.adaptive.sum_multiplier(self.noise_multiplier)

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on each coordinate of the first step's sum, before the division."""
        return self.sum_multiplier * self.clip

    @property
    def round_event(self) -> DpEventSpec:
        """What one round does to every patient of the cohort: what the ledger charges, whether C adapts or not."""
        return DpEventSpec(self.sampling_rate, self.noise_multiplier, self.steps_per_round)

    @property
    def epsilon(self) -> float:
        """Epsilon at `delta` of all rounds together; at most the plan's."""
        return accounting.epsilon(
            self.sampling_rate, self.noise_multiplier, self.rounds * self.steps_per_round, self.delta
        )


def _adaptive(privacy: Privacy, sigma: float, max_clip: float) -> AdaptiveClip | None:
    if privacy.clipping == "flat":
        return None
    return AdaptiveClip(
        quantile=privacy.clip_quantile,
        learning_rate=privacy.clip_learning_rate,
        count_std=privacy.count_noise * sigma,
        least=LEAST_SHARE * privacy.clip,
        most=max_clip,
    )
