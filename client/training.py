"""The local loop: one round of one hospital, with or without differential privacy.

Without privacy it is deterministic: the same weights, patients, plan and round give the same bits on
the same machine with the same number of threads, by which sums are cut. With privacy, who is drawn, the
noise and every other draw come from the operating system and are different every time; the ledger must have
been charged before `train` is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from client.batches import at_random, up_to
from client.device import choose_device
from client.learner import Learner
from client.patients import PatientSet
from client.privacy.ahead import NoiseAhead
from client.privacy.mechanism import Mechanism, refuse_unsafe
from client.privacy.parts import TRUSTED, Parts
from client.privacy.plan import DpPlan
from common.errors import FederationError
from common.models import Network, get_arrays
from common.plan import Plan
from common.types import Arrays


@dataclass(frozen=True)
class TrainResult:
    """What one round of training changed."""

    delta: dict[str, npt.NDArray[np.float32]]
    """`trained - incoming` for each trainable tensor."""
    steps: int
    images_seen: int
    """Exact, and therefore for the hospital's own eyes only; never leaves."""
    clip: float | None = None
    """Where an adaptive clip was left: known from what was released, so that the next round may begin there."""


@dataclass(frozen=True)
class Recipe:
    """How gradients become weights."""

    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    proximal_mu: float
    """Pull towards the incoming weights (FedProx, Li et al. 2020); 0: none."""
    batch_patients: int
    images_per_patient: int

    @classmethod
    def of(cls, plan: Plan) -> Recipe:
        """The recipe of the plan's federated rounds."""
        training = plan.training
        return cls(
            optimizer=training.optimizer,
            learning_rate=training.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            proximal_mu=plan.federation.proximal_mu,
            batch_patients=training.batch_patients,
            images_per_patient=training.images_per_patient,
        )


class GradientDescent:
    """What `torch.optim.SGD` does, to the bit, without the compiler that the first optimizer of a process imports.

    That takes a second and 60 MiB, which every process of a simulation and every restart of a service would pay for.

    Args:
        parameters: what may learn.
        recipe: its rate, momentum and weight decay.
    """

    def __init__(self, parameters: list[nn.Parameter], recipe: Recipe) -> None:
        self._parameters = parameters
        self._recipe = recipe
        self._moving: dict[int, Tensor] = {}

    @torch.no_grad()
    def step(self) -> None:
        """One step along the gradients in `.grad`, which stay as they are."""
        of = self._recipe
        for number, parameter in enumerate(self._parameters):
            along = parameter.grad
            if along is None:
                continue
            if of.weight_decay:
                along = along.add(parameter, alpha=of.weight_decay)
            if of.momentum:
                before = self._moving.get(number)
                moved = along.clone() if before is None else before.mul_(of.momentum).add_(along)
                along = self._moving[number] = moved
            parameter.add_(along, alpha=-of.learning_rate)


class Descent:
    """An optimizer over the trainable parameters, with the pull towards where they began, and a push.

    Args:
        parameters: what may learn; their present values are the incoming weights.
        recipe: how.
        push: added to the gradient of each parameter at every step (SCAFFOLD); none where empty.
    """

    def __init__(self, parameters: list[nn.Parameter], recipe: Recipe, push: Sequence[Tensor] = ()) -> None:
        self._push = [p.to(q.device) for p, q in zip(push, parameters, strict=True)] if push else []
        self._parameters = parameters
        self._mu = recipe.proximal_mu
        self._incoming: list[Tensor] = [p.detach().clone() for p in parameters] if self._mu else []
        self._optimizer = (
            torch.optim.AdamW(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay)
            if recipe.optimizer == "adamw"
            else GradientDescent(parameters, recipe)
        )

    @torch.no_grad()
    def step(self) -> None:
        """Apply the gradients in `.grad`; pull and push are post-processing, they look at weights alone."""
        for parameter, push in zip(self._parameters, self._push, strict=False):
            if parameter.grad is not None:
                parameter.grad.add_(push)
        for parameter, incoming in zip(self._parameters, self._incoming, strict=False):
            if parameter.grad is not None:
                parameter.grad.add_(parameter - incoming, alpha=self._mu)
        self._optimizer.step()


def train(
    net: Network,
    data: PatientSet,
    plan: Plan,
    *,
    dp: DpPlan | None,
    round: int,  # noqa: A002 - the word of the messages
    device: str | torch.device | None = None,
    parts: Parts = TRUSTED,
    push: Arrays | None = None,
) -> TrainResult:
    """Train `net` in place for one round and say what changed.

    Args:
        net: the network, holding the incoming weights.
        data: this hospital's training patients.
        plan: the study plan.
        dp: the private mechanism, or None for a plan without privacy.
        round: 1-based; with `plan.training.seed` it fixes every draw of a round without privacy.
        device: where; CUDA when there is one and nothing is said.
        parts: of the private step; another only where an audit looks whether it would be found.
        push: by tensor, added to every gradient after clip and noise (`client.methods`).

    Raises:
        PrivacyRefused: the network cannot be trained safely, by name.
        DataError: `no-patients`.
        FederationError: `training-diverged`.
        StorageError: `device-memory`.
    """
    incoming = get_arrays(net)
    # Under privacy not from the plan's seed. Views go to images by their place in the batch: where they can be
    # foretold, the absence of one patient changes those of everybody after, and no clip bounds the sum of that.
    rng = np.random.default_rng([plan.training.seed, round] if dp is None else None)
    with seeded(rng):
        learner = Learner.of(net, data, plan, choose_device(str(device) if device is not None else None))
        pushes = [torch.from_numpy(np.array(push[name])) for name in incoming] if push else []
        descent = Descent(learner.parameters, Recipe.of(plan), pushes)
        if dp is None:
            clip = None
            steps, seen = _open_round(learner, descent, plan, rng)
        else:
            steps, seen, clip = _private_round(learner, descent, dp, rng, parts)
    return TrainResult(_delta(incoming, get_arrays(net)), steps, seen, clip)


def _open_round(learner: Learner, descent: Descent, plan: Plan, rng: np.random.Generator) -> tuple[int, int]:
    """So many passes, or so many steps, as the plan says; returns (steps, images seen)."""
    recipe, wanted, steps, seen, epochs = Recipe.of(plan), plan.training.local_steps, 0, 0, 0
    while steps < wanted if wanted else epochs < plan.training.local_epochs:
        epoch = run_epoch(learner, descent, recipe, rng, wanted - steps if wanted else None)
        steps, seen, epochs = steps + epoch[0], seen + epoch[1], epochs + 1
    return steps, seen


def run_epoch(
    learner: Learner,
    descent: Descent,
    recipe: Recipe,
    rng: np.random.Generator,
    most: int | None = None,
) -> tuple[int, int]:
    """One pass over the shuffled patients, or its first `most` steps; returns (steps, images seen)."""
    order = rng.permutation(learner.roster.patients)
    choose = up_to(recipe.images_per_patient, at_random(rng), views=learner.augmentation.active)
    steps, seen = 0, 0
    for start in range(0, len(order), recipe.batch_patients):
        batch = learner.roster.batch(order[start : start + recipe.batch_patients], choose)
        if batch.patients and (most is None or steps < most):
            learner.gradient(learner.augmented(batch, rng))
            descent.step()
            steps, seen = steps + 1, seen + len(batch.images)
    return steps, seen


def _private_round(
    learner: Learner, descent: Descent, dp: DpPlan, rng: np.random.Generator, parts: Parts
) -> tuple[int, int, float | None]:
    refuse_unsafe(learner.net)
    seen = 0
    with (
        parts.engine(learner.module, learner.loss) as gradients,
        NoiseAhead(gradients.size, dp.noise_std, dp.steps_per_round, parts.noise()) as ahead,
    ):
        mechanism = Mechanism(learner, dp, gradients, ahead, parts.noise())
        for _ in range(dp.steps_per_round):
            batch = mechanism.draw(rng)
            mechanism.gradient(batch)
            descent.step()
            seen += len(batch.images)
    return dp.steps_per_round, seen, mechanism.clip if dp.adaptive else None


def _delta(
    before: dict[str, npt.NDArray[np.float32]], after: dict[str, npt.NDArray[np.float32]]
) -> dict[str, npt.NDArray[np.float32]]:
    delta = {name: after[name] - before[name] for name in before}
    if not all(np.isfinite(change).all() for change in delta.values()):
        raise FederationError(
            "local training",
            "the weights are no longer finite",
            "Lower training.learning_rate",
            code="training-diverged",
        )
    return delta


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """Torch's own chance (dropout) from the round's generator, the global state put back afterwards."""
    with torch.random.fork_rng():
        seed = int(rng.integers(2**62))
        if torch.cuda.is_available():
            torch.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)  # the same, and no notes for devices that are not there
        yield
