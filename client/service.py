"""The resident site service: the only part that holds data, model and ledger.

An instruction passes these gates in order, before any data is touched:
0. Its envelope holds: the pinned server sealed it for this hospital, once and just now (`client.post`). Only a virtual
   hospital without a membership does without.
1. The sender runs the same code as we do (`code-mismatch`).
2. The plan is whole and is the one its digest names (`plan`, `plan-mismatch`), the round is one (`round`) and the
   run's name is a name (`run`): what cannot be trained must fail before it is charged, and a server's
   free text must not get into our files.
3. Somebody at this hospital approved the plan for the installed code (`not-approved`, `client.approvals`); virtual
   hospitals approve nothing. The hospital's policy allows what is asked: the plan and its network (`policy-…`), and before training all the
   plan asks of it. A survey, threshold or evaluation is counted (`policy-questions`), and one that was
   answered before gets the same bytes.
4. No other instruction is being worked on (`busy`); the service does one thing at a time.
The work itself is a `Duties` object's, in a thread of its own: when it overruns the deadline the
answer is `timeout` and the service stays busy until that thread ends. When the deadline and ten seconds are over
(for a survey, which prepares images once, ten deadlines) `on_hung` is told, whether anybody asks or not; it ends the
process, because a thread cannot be ended, and a supervisor starts it anew. Every failure becomes a
Refusal with a fixed code; no text, no exception crosses the wire. What comes back leaves through
`client.egress` and nowhere else. An enrolled hospital's answer bears its word on both audit logs (`client.witnessing`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from client import policy
from client.addressee import addressee
from client.analytics.analyst import Analyst, check_kind
from client.approvals import Approvals
from client.coarsen import Rules
from client.egress import Egress, Released, check
from client.health import told
from client.membership import load_membership
from client.post import Letter, Post
from client.privacy.masking import Masking
from client.privacy.masking_stages import is_masked, is_stage
from client.questions import Questions
from client.site import Site
from client.vocabulary import may_be_said
from client.witnessing import Witnessing
from common import wire
from common.audit import AuditLog
from common.code import code_digest
from common.errors import ConsiliumError, FederationError, PolicyRefused
from common.logs import Log, unforeseen
from common.messages import Instruction, Kind, Refusal, Reply, SiteMetrics, Update
from common.plan import Plan, parse_plan
from common.types import Digest, RunId, SiteName

_LOG: Final = Log("client.service")
_WATCH: Final = 0.9
"""The share of the round's deadline after which a handler is given up, so the answer still arrives."""
GRACE_S: Final = 10.0
"""Seconds beyond the deadline after which work is taken to hang for good; its answer would come too late in any case."""
_SURVEY: Final = 10.0
"""Deadlines that a survey has instead of one: it prepares all images that are new, and that is worth keeping."""


class Duties(Protocol):
    """What a hospital can be asked to do, once an instruction has passed the gates."""

    def survey(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        """Say what the hospital has."""

    def train(self, instruction: Instruction, plan: Plan) -> Update:
        """Validate the incoming model and train it for one round."""

    def threshold(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        """Say where validation patients are separated best."""

    def evaluate(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        """Measure the incoming model on test patients."""


class SiteService:
    """One hospital's service. `duties` is the imaging work unless something else is given.

    `on_hung` is called when work hangs, `grace_s` after its deadline; it ends this process, for a supervisor to start anew.
    """

    def __init__(
        self,
        site: Site,
        duties: Duties | None = None,
        on_hung: Callable[[], None] | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        self.site = site
        self._on_hung = on_hung
        self._grace_s = grace_s
        self._questions = Questions(site.state / "questions.sqlite")
        self._duties = duties
        self._audit = AuditLog(site.audit)
        self._post = Post(site)
        self._witnessing = Witnessing(site)
        self._masking = Masking(site)
        self._egress = Egress(self._audit)
        self._at_work = threading.Lock()

    @property
    def name(self) -> SiteName:
        """The hospital's name in the federation."""
        return self.site.name

    def handle(self, instruction: Instruction) -> Reply:
        """Answer one instruction; never raises, a failure is a Refusal with its code."""
        return self._released(instruction).reply

    def answer(self, blob: bytes) -> bytes:
        """Answer one instruction as bytes; what is not one, or is not the server's for us, gets a Refusal."""
        try:
            letter = self._post.open(blob)
        except ConsiliumError as error:
            return self._refused(RunId(""), 0, error.code).blob
        return letter.answered(self._answered(letter).blob)

    def approved(self, digest: Digest) -> bool:
        """Whether a node of this hospital may run the app bundle of this digest; virtual hospitals run any."""
        if self.site.simulated:
            return True
        return load_membership(self.site) is not None and Approvals(self.site).has_bundle(digest)

    def _answered(self, letter: Letter) -> Released:
        try:
            instruction = wire.unpack(letter.body)
            if not isinstance(instruction, Instruction):
                return self._refused(RunId(""), 0, "wire")
            letter.check(instruction)
        except ConsiliumError as error:
            return self._refused(RunId(""), 0, error.code)
        return self._released(instruction)

    def _released(self, instruction: Instruction) -> Released:
        run, round_ = instruction.run, instruction.round
        try:
            self._audit.append(
                "instruction",
                kind=instruction.kind.value,
                run=run,
                round=round_,
                plan=instruction.plan_digest,
            )
            if instruction.code_digest != code_digest():
                # Both releases by name, for whoever has to bring them together.
                self._audit.append("version.skew", version=code_digest(), digest=instruction.code_digest)
            return self._followed(instruction, _gates(instruction))
        except ConsiliumError as error:
            return self._refused(run, round_, error.code)
        except Exception as error:  # noqa: BLE001 - the border: nothing foreign may cross the wire
            unforeseen(_LOG, "service.failed", error, round=round_)
            return self._refused(run, round_, "internal")

    def _followed(self, instruction: Instruction, plan: Plan) -> Released:
        """Do what the policy allows, and let the result out; nothing of a patient is read before it allowed it."""
        rules, asks = self.site.policy, not is_stage(instruction)
        lightly = asks and instruction.kind is not Kind.ANALYSE
        (policy.check_asked if lightly else policy.check)(rules, plan)
        if instruction.kind is Kind.PRESENT:
            here = SiteMetrics(self.site.name, instruction.run, instruction.round, code_digest())
            return self._egress.release(here, Rules.of(rules, plan), addressee(self.site, plan))
        if not self.site.simulated and load_membership(self.site) is not None:
            Approvals(self.site).check_plan(plan.digest)
        check_kind(plan, instruction)
        before = self._questions.admit(instruction, rules) if asks else None
        if before is not None:
            self._audit.append("answer.repeated", run=instruction.run, round=instruction.round)
            return self._egress.again(before, addressee(self.site, plan))
        reply = told(self.site, self._watched(instruction, plan), instruction.kind)
        reply = self._witnessing.answered(reply, instruction)
        kept = self._questions.keep if asks else None
        return self._egress.release(
            reply, Rules.of(rules, plan), addressee(self.site, plan), kept and partial(kept, instruction)
        )

    def _refused(self, run: RunId, round_: int, code: str) -> Released:
        refusal = Refusal(self.site.name, run, round_, code, code_digest())
        try:
            check(refusal)
        except PolicyRefused:
            # What was asked named its run in words that do not leave; they are not repeated.
            refusal = replace(refusal, run=RunId(""))
        try:
            return self._egress.release(refusal, Rules.of(self.site.policy), addressee(self.site))
        except ConsiliumError:
            # Without a working audit log a Refusal is all that may still leave: it holds no patient.
            _LOG.error("audit.failed", code="storage")
            plain = Refusal(self.site.name, RunId(""), 0, "storage", code_digest())
            return Released(plain, wire.pack(plain))

    def _watched(self, instruction: Instruction, plan: Plan) -> Reply:
        """Run the duty in its own thread and wait for it no longer than the deadline allows."""
        if not self._at_work.acquire(blocking=False):
            raise FederationError("site service", "it is at work", "Ask again later", code="busy")
        outcome: list[Reply | BaseException] = []

        def work() -> None:
            try:
                outcome.append(self._do(instruction, plan))
            except BaseException as error:  # noqa: BLE001 - handed to the waiting thread below
                outcome.append(error)
            finally:
                self._at_work.release()

        thread = threading.Thread(target=work, name=f"duty-{instruction.kind}", daemon=True)
        thread.start()
        deadline_s = plan.federation.deadline_s
        thread.join(deadline_s * _WATCH)
        if not outcome:
            whole_s = deadline_s * (_SURVEY if instruction.kind is Kind.SURVEY else 1.0)
            self._watch_on(thread, whole_s - deadline_s * _WATCH + self._grace_s)
            raise FederationError(
                "site service", "the work overran the deadline", "Raise federation.deadline_s", code="timeout"
            )
        result = outcome[0]
        if isinstance(result, ConsiliumError):
            raise result
        if isinstance(result, BaseException):
            unforeseen(_LOG, "duty.failed", result, round=instruction.round)
            raise FederationError("site service", "the work failed", "Look at its log", code="internal")
        return result

    def _watch_on(self, work: threading.Thread, left_s: float) -> None:
        """Work was answered for by `timeout`: it has so long to end by itself, and then it is ended with the process."""

        def watch() -> None:
            work.join(left_s)
            if not work.is_alive():
                return
            _LOG.error("duty.hung", code="timeout")
            with suppress(ConsiliumError):  # a full disk must not keep it hanging
                self._audit.append("duty.hung", code="timeout")
            if self._on_hung is not None:
                self._on_hung()

        threading.Thread(target=watch, name=f"watch-{work.name}", daemon=True).start()

    def _do(self, instruction: Instruction, plan: Plan) -> Reply:
        if plan.surveys:
            return self._counted(instruction, plan)
        duties = self._duties or self._imaging()
        match instruction.kind:
            case Kind.SURVEY:
                return duties.survey(instruction, plan)
            case kind if is_stage(instruction) and (kind is not Kind.TRAIN or is_masked(instruction, plan)):
                return self._masking.answer(instruction, plan, lambda: duties.train(instruction, plan))
            case Kind.TRAIN:
                return duties.train(instruction, plan)
            case Kind.THRESHOLD:
                return duties.threshold(instruction, plan)
            case Kind.EVALUATE:
                return duties.evaluate(instruction, plan)
        raise PolicyRefused("instruction", "it asks for nothing we do", "Compare the releases", code="kind")

    def _counted(self, instruction: Instruction, plan: Plan) -> Reply:
        """Answer a question of an analysis; no image is read and no network is built."""
        analyst, secure = Analyst(self.site), instruction.secure
        if secure is None:
            return analyst.tally(instruction, plan)
        return self._masking.answer(instruction, plan, lambda: analyst.part(instruction, plan, secure.terms))

    def _imaging(self) -> Duties:
        from client.duties import ImagingDuties  # noqa: PLC0415 - torch, paid for with the first duty

        self._duties = ImagingDuties(self.site)
        return self._duties


def _gates(instruction: Instruction) -> Plan:
    """The plan of an instruction from a peer that runs our code.

    Raises:
        FederationError: code `code-mismatch`, `plan-mismatch`, `run` or `round`.
        PlanError: when the plan is not a valid one.
    """
    if instruction.code_digest != code_digest():
        raise FederationError(
            "server", "it runs other code than we do", "Install the same release", code="code-mismatch"
        )
    if not instruction.run or not may_be_said("run", instruction.run):
        raise FederationError(
            "instruction", "its run's name is not one", "Use letters, digits and . _ : + -", code="run"
        )
    plan = parse_plan(instruction.plan_toml)
    if plan.digest != instruction.plan_digest:
        raise FederationError(
            "plan", "its digest names another plan", "Send the plan that was released", code="plan-mismatch"
        )
    if instruction.round < (0 if instruction.kind in (Kind.SURVEY, Kind.PRESENT) else 1):
        raise FederationError(
            "instruction", "rounds are counted from 1", "Compare the releases", code="round"
        )
    return plan
