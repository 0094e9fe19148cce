"""THRESHOLD and EVALUATE: where a model parts the hospital's patients, and how well, told in figures that may leave."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from client import scores
from client.coarsen import Rules
from client.dataset import SiteData
from client.duties.room import OPEN_RELEASE, Room
from client.evaluation import Scores, best_threshold, compare, measure, predict, progress
from client.methods import Memory, Own, saved
from client.patients import PatientSet
from client.privacy.ledger import Ledger, Limits, Release
from client.privacy.masking_votes import judged
from client.suppression import Least
from common.arrays import digest
from common.checkpoints import Checkpoint, save
from common.messages import Comparison, Instruction, ModelMetrics, SiteMetrics
from common.methods import model_part
from common.models import Network, architecture_digest, build, get_arrays, set_arrays
from common.plan import Plan, replace
from common.types import RunId

FEDERATED: Final = "federated"
PERSONALISED: Final = "personalised"


class Measuring(Room):
    """One hospital's look at a model."""

    def threshold(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        """Where validation patients are separated best, to 0.001; None where that would be a small cell."""
        data = self._data(plan).validation
        if not data.n_images:
            return self._metrics(instruction)
        scored = predict(_network(instruction, plan), data)
        return self._metrics(
            instruction,
            threshold=best_threshold(scored, self._min_cell(plan)),
            worse=self._worse(scored, instruction, plan),
        )

    def _worse(self, scored: Scores, instruction: Instruction, plan: Plan) -> bool | None:
        """Of the final model of masked rounds; whether the last aggregate did harm nobody else can tell."""
        if plan.federation.aggregation == "visible" or not Rules.of(self._site.policy, plan).vote:
            return None
        loss = progress(scored, self._min_cell(plan)).loss
        return judged(self._site, instruction.run, instruction.round, loss)

    def evaluate(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        """Measure the final model, and where plan and policy say so a model of the hospital's own, on test patients."""
        data = self._data(plan)
        net = _network(instruction, plan)
        found = {FEDERATED: self._scored(FEDERATED, net, data.test, instruction, plan)}
        if plan.personalisation.method != "none" and data.train.n_images:
            own = self._personalised(net, data, instruction, plan)
            if self._may_tell_of_own(instruction, plan, data):
                found[PERSONALISED] = own
        strict = replace(plan, evaluation={"min_cell": self._min_cell(plan)})
        threshold = 0.5 if instruction.threshold is None else instruction.threshold
        models = _measured(found, strict, threshold, self._least(plan))
        alone = scores.load(self._site, scores.ALONE)
        if alone is not None and scores.same_patients(alone, found[FEDERATED]):
            found[scores.ALONE] = alone
        return self._metrics(
            instruction,
            models=models,
            comparisons=_compared(found, strict, threshold),
            epsilon=self._epsilon(instruction, plan, data),
            head=self._desk.head(),
        )

    def _personalised(self, net: Network, data: SiteData, instruction: Instruction, plan: Plan) -> Scores:
        self._note_run(instruction.run, data)
        memory = Memory(self._site.state, instruction.run)
        own = Own(plan, memory.newest(), saved(self._model(PERSONALISED, plan), instruction.run))
        found = self._kept_scores(PERSONALISED, net, own.scores(net, data), instruction, plan)
        memory.erase()  # the model that was made of it is on disk
        return found

    def _may_tell_of_own(self, instruction: Instruction, plan: Plan, data: SiteData) -> bool:
        """Whether figures of the hospital's own model may leave; if so, they are charged.

        Fine-tuned, or trained beside the rounds, on training patients without noise, its figures are a release without
        noise whatever the plan's rounds were: the policy's explicit word is needed, and the ledger notes it.
        The note is under a run of its own, so that what the rounds have cost can still be told apart.
        Layers that stayed at home are made of the rounds' noised steps, and cost nothing more. A calibration rests on
        validation patients alone, like the operating point, and leaves where a word of theirs may.
        """
        own = plan.personalisation.method
        if own == "local-affine":
            return True
        if own == "calibrate":
            return Rules.of(self._site.policy, plan).vote
        if not self._site.policy.allow_non_private:
            return False
        release = Release(
            RunId(f"{instruction.run}-{PERSONALISED}"),
            instruction.round,
            instruction.plan_digest,
            digest(instruction.arrays),
        )
        limits = Limits.of(self._site.policy, plan)
        self._desk.charge(release, data.train.spend_keys, OPEN_RELEASE, limits)
        return True

    def _scored(
        self, model: str, net: Network, test: PatientSet, instruction: Instruction, plan: Plan
    ) -> Scores:
        """The model's scores of the test patients; scores and model are kept at home."""
        return self._kept_scores(model, net, predict(net, test), instruction, plan)

    def _kept_scores(
        self, model: str, net: Network, found: Scores, instruction: Instruction, plan: Plan
    ) -> Scores:
        path = self._model(model, plan)
        scores.save(self._site, path.stem, found)
        checkpoint = Checkpoint(
            run=instruction.run,
            round=instruction.round,
            plan_digest=instruction.plan_digest,
            architecture=architecture_digest(net),
            arrays=get_arrays(net),
        )
        save(checkpoint, path)
        return found

    def _model(self, model: str, plan: Plan) -> Path:
        """Where a model of this name is kept at home."""
        name = f"{model}-dp" if plan.private else model
        return self._site.data / "models" / f"{name}.safetensors"

    def _epsilon(self, instruction: Instruction, plan: Plan, data: SiteData) -> float | None:
        if not plan.private or not data.train.spend_keys:
            return None
        with self._desk.open() as ledger:
            return _spent(ledger, instruction, plan, data)


def _network(instruction: Instruction, plan: Plan) -> Network:
    rows, columns = plan.input.shape[-2:]
    net = build(plan.model, plan.task.outputs, (rows, columns))
    set_arrays(net, model_part(instruction.arrays))
    return net


def _measured(
    found: dict[str, Scores], plan: Plan, threshold: float, least: Least
) -> tuple[ModelMetrics, ...]:
    return tuple(measure(of, plan, threshold, least, name) for name, of in found.items())


def _compared(found: dict[str, Scores], plan: Plan, threshold: float) -> tuple[Comparison, ...]:
    pairs = ((FEDERATED, scores.ALONE), (PERSONALISED, scores.ALONE), (PERSONALISED, FEDERATED))
    made = (
        compare(found[one], found[other], plan, names=(one, other), threshold=threshold)
        for one, other in pairs
        if one in found and other in found
    )
    return tuple(comparison for comparison in made if comparison is not None)


def _spent(ledger: Ledger, instruction: Instruction, plan: Plan, data: SiteData) -> float:
    """What this run has cost the worst patient of the cohort so far."""
    return ledger.epsilon(plan.privacy.delta, data.train.spend_keys, run=instruction.run)
