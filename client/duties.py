"""What a hospital does when it is asked: survey, train, threshold, evaluate, on its own images.

TRAIN keeps this order: the hospital's policy, then the ledger's memory of the same release (a repeat
sends the same bytes and costs nothing), then data; the charge before any noise; the protected update
on disk before it is handed over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from client import policy, scores
from client.at_hand import AtHand
from client.bucket import bucket_of
from client.coarsen import Rules
from client.dataset import SiteData
from client.evaluation import Scores, best_threshold, compare, log_loss, measure, predict, progress
from client.index import Index
from client.intake.summary import intake_summary
from client.lending import borrow, give_back
from client.methods import Memory, Own, Round, learn, saved
from client.patients import PatientSet
from client.privacy.clips import Clips
from client.privacy.desk import Asked, Desk, Pay
from client.privacy.ledger import Ledger, Limits, Release
from client.privacy.masking_votes import judged
from client.privacy.plan import DpPlan
from client.site import Site
from client.suppression import Least
from common import wire
from common.accounting import DpEventSpec
from common.arrays import digest
from common.checkpoints import Checkpoint, save
from common.code import code_digest
from common.compression import compress
from common.errors import PolicyRefused, StorageError
from common.messages import (
    Comparison,
    Instruction,
    IntakeSummary,
    LedgerHead,
    ModelMetrics,
    Progress,
    SiteMetrics,
    Update,
)
from common.methods import model_part
from common.models import Network, architecture_digest, build, get_arrays, set_arrays
from common.plan import Plan, replace
from common.types import Arrays, RunId, SiteName

FEDERATED: Final = "federated"
PERSONALISED: Final = "personalised"
_OPEN_RELEASE: Final = DpEventSpec(sampling_rate=1.0, noise_multiplier=0.0, steps=1)
"""What a round without privacy does to a patient: the ledger counts it as infinite epsilon."""


class ImagingDuties:
    """The work of one hospital; keeps its data at hand from one round to the next."""

    def __init__(self, site: Site, *, alone: bool = False) -> None:
        self._site = site
        self._alone = alone
        self._desk = Desk(site)
        self._at_hand = AtHand(site)
        self._noted: set[RunId] = set()
        self._clips = Clips(site.state)

    def survey(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        """Intake figures and the public bucket; preprocesses what is not in the store yet."""
        counts = intake_summary(self._site)
        bucket = bucket_of(self._site, plan, self._data(plan).train.n_patients)
        intake = IntakeSummary(counts.received, counts.accepted, dict(counts.refused), bucket)
        return self._metrics(instruction, intake=intake, head=self._desk.head())

    def train(self, instruction: Instruction, plan: Plan) -> Update:
        """One round of training, paid for, or the same update again when it was sent before.

        Raises:
            PolicyRefused: what the hospital does not allow; code `test-only` without training patients.
            PrivacyRefused: the budget or the ledger says no.
            DataError: too few patients, or one class only.
        """
        policy.check(self._site.policy, plan)
        release = Release(
            instruction.run, instruction.round, instruction.plan_digest, digest(instruction.arrays)
        )
        asked, made = Asked(release, instruction.countersignature, self._alone), list[Update]()

        def work(pay: Pay) -> bytes:
            made.append(self._train_anew(instruction, plan, pay))
            return wire.pack(made[0])

        stored = self._desk.send(asked, work)
        return made[0] if made else _update_in(stored)

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
        self._desk.charge(release, data.train.spend_keys, _OPEN_RELEASE, limits)
        return True

    def _train_anew(self, instruction: Instruction, plan: Plan, pay: Pay) -> Update:
        data = self._data(plan)
        bucket = bucket_of(self._site, plan, data.train.n_patients)
        if bucket == 0:
            raise PolicyRefused(
                f"site {self._site.name}",
                "it has no training patients",
                "Ingest some, or let it test only",
                code="test-only",
            )
        net = borrow(plan)
        set_arrays(net, model_part(instruction.arrays))
        before = self._progress(net, data.validation, plan)
        dp = self._mechanism(instruction.run, plan, bucket) if plan.private else None
        self._note_run(instruction.run, data)
        receipt = pay(
            data.train.spend_keys,
            dp.round_event if dp else _OPEN_RELEASE,
            Limits.of(self._site.policy, plan),
        )
        memory = Memory(self._site.state, instruction.run)
        kept = memory.before(instruction.round)
        round_ = Round(instruction.round, instruction.arrays, kept, alone=self._alone)
        told = self._objective(net, data.train, plan)
        learned = learn(net, data.train, plan, dp, round_)
        if learned.kept:  # on disk before the update can leave: trained again, a round begins where it began
            memory.keep(instruction.round, learned.kept, instruction.plan_digest)
        result = learned.result
        give_back(net, plan)
        if result.clip is not None:
            self._clips.keep(instruction.run, result.clip)
        return Update(
            site=self._site.name,
            run=instruction.run,
            round=instruction.round,
            plan_digest=instruction.plan_digest,
            code_digest=code_digest(),
            weight=bucket,
            arrays=_coded(result.delta, instruction, plan, self._site.name),
            progress=before,
            epsilon=receipt.run_epsilon if dp else None,
            simulated=self._site.simulated,
            head=receipt.head,
            bits=plan.federation.update_bits,
            objective=told,
        )

    def _objective(self, net: Network, train: PatientSet, plan: Plan) -> float | None:
        """Training loss of the incoming model, where the plan's method weights by it and it may leave at all."""
        if not Rules.of(self._site.policy, plan).objective:
            return None
        return log_loss(predict(net, train))

    def _mechanism(self, run: RunId, plan: Plan, bucket: int) -> DpPlan:
        """How to train; an adaptive clip begins where this run's last round left it."""
        dp = DpPlan.from_plan(plan, bucket, self._site.policy.max_clip)
        return dp.carrying(self._clips.of(run) if dp.adaptive else None)

    def _progress(self, net: Network, validation: PatientSet, plan: Plan) -> Progress:
        """Of the incoming model; under privacy not even looked at unless the policy lets it leave: no ε covers it.

        In a masked round a vote may leave where the figures stay here (`client.privacy.masking`).
        """
        rules = Rules.of(self._site.policy, plan)
        masked = plan.federation.aggregation == "secure" and rules.vote
        if not validation.n_images or not (masked or rules.progress):
            return Progress(None, None)
        return progress(predict(net, validation), self._min_cell(plan))

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

    def _data(self, plan: Plan) -> SiteData:
        return self._at_hand.data(plan)

    def _note_run(self, run: RunId, data: SiteData) -> None:
        """Write down whose images a run used, once, before it uses them."""
        if run in self._noted:
            return
        with Index(self._site.index) as index:
            index.record_run(run, [*data.train.pseudonyms, *data.validation.pseudonyms])
        self._noted.add(run)

    def _epsilon(self, instruction: Instruction, plan: Plan, data: SiteData) -> float | None:
        if not plan.private or not data.train.spend_keys:
            return None
        with self._desk.open() as ledger:
            return _spent(ledger, instruction, plan, data)

    def _least(self, plan: Plan) -> Least:
        return Least.of(plan.evaluation.min_cell, self._site.policy.min_cell)

    def _min_cell(self, plan: Plan) -> int:
        return self._least(plan).cell

    def _metrics(
        self,
        instruction: Instruction,
        *,
        models: tuple[ModelMetrics, ...] = (),
        comparisons: tuple[Comparison, ...] = (),
        intake: IntakeSummary | None = None,
        threshold: float | None = None,
        worse: bool | None = None,
        epsilon: float | None = None,
        head: LedgerHead | None = None,
    ) -> SiteMetrics:
        return SiteMetrics(
            site=self._site.name,
            run=instruction.run,
            round=instruction.round,
            code_digest=code_digest(),
            models=models,
            comparisons=comparisons,
            intake=intake,
            threshold=threshold,
            worse=worse,
            epsilon=epsilon,
            simulated=self._site.simulated,
            head=head,
        )


def _coded(delta: Arrays, instruction: Instruction, plan: Plan, site: SiteName) -> Arrays:
    """An update in the bits the plan asks for; what noise protects it has been added before."""
    bits = plan.federation.update_bits
    return delta if bits == 32 else compress(delta, bits, (instruction.run, instruction.round, site))


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


def _update_in(blob: bytes) -> Update:
    message = wire.unpack(blob)
    if not isinstance(message, Update):
        raise StorageError("ledger", "a stored update is not one", "Restore the ledger from backup")
    return message
