"""TRAIN: one round, paid for before any noise, and on disk before it is handed over.

It keeps this order: the hospital's policy, then the ledger's memory of the same release (a repeat
sends the same bytes and costs nothing), then data; the charge before any noise; the protected update
on disk before it is handed over.
"""

from __future__ import annotations

from client import policy
from client.bucket import bucket_of
from client.coarsen import Rules
from client.dataset import SiteData
from client.duties.room import OPEN_RELEASE, Room
from client.evaluation import log_loss, predict, progress
from client.lending import borrow, give_back
from client.methods import Memory, Round, learn
from client.patients import PatientSet
from client.privacy.clips import Clips
from client.privacy.desk import Asked, Pay
from client.privacy.ledger import Limits, Release
from client.privacy.plan import DpPlan
from client.site import Site
from common import wire
from common.arrays import digest
from common.code import code_digest
from common.compression import compress
from common.errors import PolicyRefused, StorageError
from common.messages import Instruction, Progress, Update
from common.methods import model_part
from common.models import Network, set_arrays
from common.plan import Plan
from common.types import Arrays, RunId, SiteName


class Training(Room):
    """One hospital's rounds."""

    def __init__(self, site: Site, *, alone: bool = False) -> None:
        super().__init__(site, alone=alone)
        self._clips = Clips(site.state)

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

    def _train_anew(self, instruction: Instruction, plan: Plan, pay: Pay) -> Update:
        data = self._data(plan)
        bucket = self._bucket(plan, data)
        net = borrow(plan)
        set_arrays(net, model_part(instruction.arrays))
        before = self._progress(net, data.validation, plan)
        dp = self._mechanism(instruction.run, plan, bucket) if plan.private else None
        self._note_run(instruction.run, data)
        limits = Limits.of(self._site.policy, plan)
        receipt = pay(data.train.spend_keys, dp.round_event if dp else OPEN_RELEASE, limits)
        told = self._objective(net, data.train, plan)
        delta = self._learned(net, data.train, instruction, plan, dp)
        give_back(net, plan)
        return Update(
            site=self._site.name,
            run=instruction.run,
            round=instruction.round,
            plan_digest=instruction.plan_digest,
            code_digest=code_digest(),
            weight=bucket,
            arrays=_coded(delta, instruction, plan, self._site.name),
            progress=before,
            epsilon=receipt.run_epsilon if dp else None,
            simulated=self._site.simulated,
            head=receipt.head,
            bits=plan.federation.update_bits,
            objective=told,
        )

    def _bucket(self, plan: Plan, data: SiteData) -> int:
        """About how many patients train here, as the consortium may know it."""
        bucket = bucket_of(self._site, plan, data.train.n_patients)
        if bucket == 0:
            raise PolicyRefused(
                f"site {self._site.name}",
                "it has no training patients",
                "Ingest some, or let it test only",
                code="test-only",
            )
        return bucket

    def _learned(
        self, net: Network, train: PatientSet, instruction: Instruction, plan: Plan, dp: DpPlan | None
    ) -> Arrays:
        """The change that a round makes; what the hospital keeps of it for the next round is on disk."""
        memory = Memory(self._site.state, instruction.run)
        kept = memory.before(instruction.round)
        round_ = Round(instruction.round, instruction.arrays, kept, alone=self._alone)
        learned = learn(net, train, plan, dp, round_)
        if learned.kept:  # on disk before the update can leave: trained again, a round begins where it began
            memory.keep(instruction.round, learned.kept, instruction.plan_digest)
        if learned.result.clip is not None:
            self._clips.keep(instruction.run, learned.result.clip)
        return learned.result.delta

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


def _coded(delta: Arrays, instruction: Instruction, plan: Plan, site: SiteName) -> Arrays:
    """An update in the bits the plan asks for; what noise protects it has been added before."""
    bits = plan.federation.update_bits
    return delta if bits == 32 else compress(delta, bits, (instruction.run, instruction.round, site))


def _update_in(blob: bytes) -> Update:
    message = wire.unpack(blob)
    if not isinstance(message, Update):
        raise StorageError("ledger", "a stored update is not one", "Restore the ledger from backup")
    return message
