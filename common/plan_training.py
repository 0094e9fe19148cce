"""What a plan says of learning: the local loop, its augmentation and privacy, and a hospital's own model."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from common.plan_fields import STRICT, Count, Fraction, NotNegative, Positive, Seed


@dataclass(frozen=True, config=STRICT)
class Augmentation:
    """Strengths of the random changes made to a training image; zero switches one off."""

    rotation_deg: Annotated[float, Field(strict=True, ge=0, le=15)] = 0.0
    brightness: Annotated[float, Field(strict=True, ge=0, le=0.5)] = 0.0
    contrast: Annotated[float, Field(strict=True, ge=0, le=0.5)] = 0.0
    noise_std: Annotated[float, Field(strict=True, ge=0, le=0.5)] = 0.0
    elastic_px: Annotated[float, Field(strict=True, ge=0, le=8)] = 0.0
    scanner: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.0
    """A random chain of what scanners do to an image: tone curve, sharpness, noise, exposure, in random order."""

    @property
    def active(self) -> bool:
        """Whether any change is made at all."""
        return any(getattr(self, f.name) > 0 for f in dataclasses.fields(self))


@dataclass(frozen=True, config=STRICT)
class Training:
    """The local loop. Batches are counted in patients, because the privacy unit is the patient."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Positive = 0.05
    momentum: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 0.0
    batch_patients: Count = 16
    local_epochs: Count = 1
    local_steps: Annotated[int, Field(strict=True, ge=0)] = 0
    """Without privacy: exactly so many steps a round, whatever a site's size, in place of `local_epochs`; 0: epochs."""
    images_per_patient: Count = 4
    """K: up to this many images or augmented views of a patient enter one step, averaged."""
    loss: Literal["cross-entropy", "focal"] = "cross-entropy"
    focal_gamma: NotNegative = 2.0
    positive_weight: Positive = 1.0
    seed: Seed = 0
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True, config=STRICT)
class Personalisation:
    """What a hospital may do to the final model for its own use; the result never leaves."""

    method: Literal["none", "finetune", "ditto", "local-affine", "calibrate"] = "none"
    epochs: Count = 5
    learning_rate: Positive = 0.01
    proximal_mu: NotNegative = 0.0


@dataclass(frozen=True, config=STRICT)
class Privacy:
    """Patient-level differential privacy, or its explicit absence."""

    mode: Literal["none", "patient-dp"] = "none"
    epsilon: Annotated[float, Field(strict=True, gt=0, le=50)] = 8.0
    delta: Annotated[float, Field(strict=True, gt=0, lt=0.01)] = 1e-5
    clip: Positive = 1.0
    """C: the largest L2 norm of one patient's contribution to a step; where it begins, if it adapts."""
    clipping: Literal["flat", "adaptive"] = "flat"
    clip_quantile: Fraction = 0.5
    """Adaptive: the share of patients whose norm shall be at most C."""
    clip_learning_rate: Annotated[float, Field(strict=True, gt=0, le=5)] = 0.2
    count_noise: Annotated[float, Field(strict=True, gt=0.5, le=100)] = 2.0
    """Adaptive: noise on the count of patients within C, in units of the calibrated noise multiplier; at 0.5
    the count alone would cost what count and sum may cost together."""
    sampling_rate: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.25
    """q: each patient enters a step independently with this probability."""
    steps_per_round: Count = 4
    spare_rounds: Annotated[int, Field(strict=True, ge=0)] = 0
    """Rounds kept in reserve for repeats; they are paid for in the noise from the start."""
