"""How one round's updates come together: the port behind which plain and masked gathering stand.

A `Gathering` asks the training sites one question and gives the weighted sum of what they learned, with who is
in it and who is not and why. It may speak with the sites as often as it needs (`server.talk`); it never
advances a round, which `server.rounds` does with what it is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from common.arrays import Schema
from common.errors import AdmissionRefused
from common.messages import Update
from common.methods import TELLS_LOSS
from common.parts import LARGE
from common.plan import Plan
from common.secagg.coding import Head
from common.types import SiteName
from server.admission import Admission, UpdateRules, norm_bound, usable
from server.exchange import NO_REPLY, Answer, Question
from server.records import SiteRound
from server.strategies import Said, State, Strategy
from server.survey import SKEW, Roster
from server.talk import Talk, Tally, message_of


@dataclass(frozen=True)
class Together:
    """What sites said of the model they were given, summed under their masks; nobody's own word is known."""

    loss: float | None
    """Mean validation loss, weighted as the sites are; None where none may tell."""
    auroc: float | None
    judged: int
    """Sites that compared the model with the one of the round before on validation patients."""
    worse: int
    """Of these, how many found it worse."""

    @classmethod
    def of(cls, head: Head) -> Together:
        """Of the head of an opened sum."""
        known = head.measured
        loss, auroc = (head.loss / known, head.auroc / known) if known else (None, None)
        return cls(loss, auroc, head.judged, head.worse)

    @property
    def harmed(self) -> bool:
        """Whether most of those who judged found that the last aggregate did harm."""
        return 2 * self.worse > self.judged


@dataclass(frozen=True)
class Gathered:
    """What the sites' answers of one round came to."""

    state: State
    """The strategy's own."""
    sites: dict[str, SiteRound]
    """Whose updates are in the sum."""
    refused: dict[str, str]
    """Every other expected site and the code of why."""
    bytes_up: int
    together: Together | None = None
    """Under masks: what was summed besides the updates."""


class Gathering(Protocol):
    """One way in which the updates of a round come together."""

    def gather(self, question: Question, schema: Schema, sites: Roster) -> Gathered:
        """Ask the training sites and sum what is admitted, exactly.

        Args:
            question: the round's, made by `Talk.question`; `question.step` is the round.
            schema: name and shape of every tensor an update must have, float32.
            sites: who is there, with their public buckets.

        Raises:
            ConsiliumError: when nothing can be gathered; too few sites are for the caller to judge.
        """


def rules_for(plan: Plan, schema: Schema, sites: Roster, norms: tuple[float, ...]) -> UpdateRules:
    """What an update of this round must look like, and how long it may be before it is scaled down."""
    of = plan.federation
    bound = norm_bound(norms, of.max_update_norm) if of.robust == "norm-bound" else of.max_update_norm
    told = of.strategy in TELLS_LOSS
    return UpdateRules(plan.digest, schema, sites.weights, of.max_update_norm, of.update_bits, bound, told)


class Visible:
    """Each update is seen, judged, put on disk, folded in as it arrives, and forgotten.

    What was admitted before the server was killed is read back and its site is not asked again: that it counts
    once does not depend on what the site remembers.
    """

    def __init__(self, talk: Talk, strategy: Strategy) -> None:
        self._talk = talk
        self._strategy = strategy

    def gather(self, question: Question, schema: Schema, sites: Roster) -> Gathered:
        """See `Gathering.gather`; whoever is not in by the end is refused with a code."""
        talk = self._talk
        rules = rules_for(talk.plan, schema, sites, talk.norms)
        round_ = _Round(talk, self._strategy, rules, question, sites.expected)
        for site, update, size in talk.journal.kept(question.blob):
            if round_.take(site, Answer(0, update, "", size), kept=True):
                talk.note("update.kept", site=site, round=question.step)
        missing = [site for site in sites.training if site not in round_.into]
        for site, answer in talk.ask(question, missing, round_.tally):
            round_.take(site, answer)
        round_.close()
        return Gathered(round_.state, round_.into, round_.refused, round_.up)


class _Round:
    """What is in so far."""

    def __init__(
        self,
        talk: Talk,
        strategy: Strategy,
        rules: UpdateRules,
        question: Question,
        expected: tuple[SiteName, ...],
    ) -> None:
        self._talk, self._strategy, self._rules, self._question = talk, strategy, rules, question
        self._desk = Admission(talk.expected(question.step))
        self.state = strategy.init(rules.schema, rules.total_weight, talk.journal.out)
        self.into: dict[str, SiteRound] = {}
        self.refused = {str(site): NO_REPLY for site in expected}
        self.up = 0
        self.tally = Tally()
        # In a first round nobody knows yet how long updates are: they wait on disk until all have come.
        self._waits = talk.plan.federation.robust == "norm-bound" and not talk.norms

    def take(self, site: SiteName, answer: Answer, *, kept: bool = False) -> bool:
        """Let an answer in or turn it away; what is let in is on disk before anybody hears of it."""
        self.up += answer.bytes
        try:
            admitted = self._desk.update(site, message_of(site, answer), self._rules)
        except AdmissionRefused as error:
            self._turn_away(site, error.code)
            if error.code == SKEW and answer.message is not None:
                self._talk.skew(site, answer.message.code_digest)
            return False
        update = admitted.update
        if not kept:
            self._talk.journal.keep(self._question.blob, site, answer.blob)
            if len(answer.blob) > LARGE:  # from now on it takes no memory
                update = usable(site, self._talk.journal.kept_of(site), self._rules, admitted.norm)
        if not self._waits:
            self._fold(site, update)
        self.into[site] = admitted.record
        self.tally.admitted += 1
        self.refused.pop(site, None)
        seen = self._talk.heads.proven(site, update.head)
        if not kept:
            self._talk.note("update.admitted", site=site, round=update.round, weight=update.weight, **seen)
            self._talk.options.observer(update.round, site)
        return True

    def close(self) -> None:
        """Fold in what waited, each update no longer than the bound that all of them together give."""
        if not self._waits:
            return
        norms = [n for record in self.into.values() if (n := record.update_norm) is not None]
        rules = replace(self._rules, bound=norm_bound(norms, self._rules.max_norm))
        desk = Admission(self._talk.expected(self._question.step))
        for site, update, _size in self._talk.journal.kept(self._question.blob):
            admitted = desk.update(site, update, rules)
            self._fold(site, admitted.update)
            self.into[site] = admitted.record

    def _fold(self, site: SiteName, update: Update) -> None:
        said = Said(site, update.objective)
        self.state = self._strategy.fold(self.state, update.arrays, update.weight, said)

    def _turn_away(self, site: SiteName, code: str) -> None:
        # A second reply does not undo the first, which may already be in the sum.
        if code != "duplicate":
            self.refused[site] = code
        self._talk.note("update.refused", site=site, code=code)
