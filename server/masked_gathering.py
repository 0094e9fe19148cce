"""A round's updates under masks: five stages, of which the sum alone comes out (`common.secagg`).

    keys       everybody makes and signs keys          at least the threshold must
    shares     everybody shares out what opens masks   the same
    train      the model goes out, masked updates in   the same; from here the round is paid for
    consent    the living sign who is alive            the same
    unmask     shares of each, by its state            as many as open every secret

Up to n - t sites may vanish, at any stage and in all; with fewer left the round is given up (`subset`), what the
sites have charged stays charged, and the run ends saying so. Submitted again with the same folder it goes on in
the same stage of the same round.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from common import wire
from common.arrays import Schema, digest
from common.code import code_digest
from common.errors import FederationError
from common.identity import verify
from common.messages import (
    Consent,
    Dealt,
    Instruction,
    Keys,
    Kind,
    Masked,
    Opened,
    Secure,
    Shares,
    SignedKeys,
    Terms,
)
from common.roster import Roster as Members
from common.secagg import labels
from common.secagg.coding import Coding
from common.secagg.keys import genuine
from common.types import Arrays, Digest, SiteName
from server.admission import refused
from server.exchange import NO_REPLY, Question
from server.gathering import Gathered, Together
from server.masked_journal import MaskedJournal
from server.masked_stage import Stage, Stages
from server.records import SiteRound
from server.survey import Roster
from server.talk import Talk
from server.unmasking import Ending, Group, MaskedSum, open_sum, terms_for, values_of, weighted_sum


class MaskedGathering:
    """The gathering of a plan with `federation.aggregation = "secure"`.

    Args:
        talk: the run's side of the conversation.
        members: the newest roster; the sites have accepted the same.
    """

    def __init__(self, talk: Talk, members: Members) -> None:
        self._talk = talk
        self._members = members

    def gather(self, question: Question, schema: Schema, sites: Roster) -> Gathered:
        """See `server.gathering.Gathering.gather`.

        Raises:
            SubsetError: fewer than the threshold are left; the round is given up.
            FederationError: `secagg-…` where the sum cannot be opened as it was promised.
        """
        asked = wire.unpack(question.blob)
        if not isinstance(asked, Instruction):
            raise FederationError(
                "the round", "its question is none", "Report this as a bug", code="internal"
            )
        model = digest(asked.arrays)
        journal = MaskedJournal(self._talk.journal.under_way, f"{asked.run} {asked.round} {model}")
        refusals = {str(site): NO_REPLY for site in sites.expected}
        stages = Stages(self._talk, journal, asked.round, refusals)
        terms = journal.terms(self._terms(sites, schema))
        round_ = MaskedRound(stages, MaskedSum(terms), self._members, sites, model)
        ending = round_.trained(round_.group(), asked.arrays)
        round_.opened(ending)
        state, head = weighted_sum(round_.total, schema, sum(sites.weights[site] for site in ending.alive))
        self._talk.note("sum.opened", round=asked.round, sites=len(ending.alive), count=len(ending.dead))
        out = {site: code for site, code in refusals.items() if site not in ending.alive}
        return Gathered(state, dict(round_.into), out, stages.up, Together.of(head))

    def _terms(self, sites: Roster, schema: Schema) -> Terms:
        plan = self._talk.plan.federation
        members = plan.sites or tuple(member.name for member in self._members.members)
        heaviest = max(sites.weights.values(), default=1)
        coding = Coding(plan.mask_bits, plan.mask_range, heaviest, len(members))
        return terms_for(self._members, members, plan.least_sites, coding, values_of(schema))


@dataclass
class MaskedRound:
    """The stages of one round, in the order in which they stand here."""

    stages: Stages
    total: MaskedSum
    members: Members
    sites: Roster
    model: Digest
    work: Kind = Kind.TRAIN
    """What is asked where the masked vectors come in; under an analysis ANALYSE."""
    into: dict[str, SiteRound] = field(default_factory=dict)
    dealt: dict[SiteName, Dealt] = field(default_factory=dict)

    def group(self) -> Group:
        """Keys of everybody, then everybody's shares."""
        plan, run, terms = self.stages.plan, self.stages.run, self.total.terms
        context = labels.context_of(run, self.stages.round, plan.digest, code_digest(), terms)
        keys: list[SignedKeys] = []

        def signed(site: SiteName, reply: wire.Message) -> None:
            if not isinstance(reply, Keys):
                raise refused(site, "kind", "the reply is not its keys")
            if reply.keys.site != site or not genuine(reply.keys, self.members.key_of(site) or "", context):
                raise refused(
                    site, "secagg-key", "its keys are not signed by its enrolled identity for this round"
                )
            keys.append(reply.keys)

        ask = [site for site in self.sites.training if site in terms.members]
        self.stages.carry_out(Stage(Kind.KEYS, Secure(terms), ask, signed))
        group = Group.of(terms, context, keys)

        def shared(site: SiteName, reply: wire.Message) -> None:
            if not isinstance(reply, Shares) or not group.well_dealt(site, reply.dealt):
                raise refused(site, "secagg-share", "its shares are not for its neighbours")
            self.dealt[site] = reply.dealt

        secure = Secure(terms, keys=tuple(group.keys[site] for site in sorted(group.keys)))
        self.stages.carry_out(Stage(Kind.SHARES, secure, list(group.keys), shared))
        return group

    def trained(self, group: Group, model: Arrays) -> Ending:
        """The masked updates of those who shared out, added up."""

        def masked(site: SiteName, reply: wire.Message) -> None:
            vectors = self.total.admits(reply.arrays) if isinstance(reply, Masked) else None
            if vectors is None or not isinstance(reply, Masked):
                raise refused(site, "kind", "the reply is not a masked update of this round")
            if reply.plan_digest != self.stages.plan.digest:
                raise refused(site, "plan-mismatch", "the update is for another plan")
            self.total.fold(*vectors)
            self.into[site] = SiteRound(self.sites.weights[site], None, None, None, reply.epsilon)
            self.stages.proven(site, reply.head)

        secure = Secure(self.total.terms, dealt=dict(sorted(self.dealt.items())))
        self.stages.carry_out(Stage(self.work, secure, list(self.dealt), masked, model))
        alive = tuple(SiteName(site) for site in sorted(self.into))
        if not group.joined(alive):
            raise self.stages.given_up(len(alive), "they do not hold together")
        return Ending(group, self.dealt, self.model, alive)

    def opened(self, ending: Ending) -> None:
        """One list, signed by enough of the living; then the shares that open the sum, and the sum."""
        statement = labels.consent_statement(ending.bond, ending.alive, ending.dead)
        consents: dict[SiteName, str] = {}
        opened: dict[SiteName, Opened] = {}

        def consented(site: SiteName, reply: wire.Message) -> None:
            if not isinstance(reply, Consent) or not verify(
                self.members.key_of(site) or "", reply.signature, statement
            ):
                raise refused(site, "secagg-consent", "its signature is not over the list it was shown")
            consents[site] = reply.signature

        def given(site: SiteName, reply: wire.Message) -> None:
            if not isinstance(reply, Opened):
                raise refused(site, "kind", "the reply is not its shares")
            opened[site] = reply

        secure = Secure(self.total.terms, alive=ending.alive, dead=ending.dead)
        self.stages.carry_out(Stage(Kind.CONSENT, secure, ending.alive, consented))
        secure = Secure(self.total.terms, alive=ending.alive, dead=ending.dead, consents=consents)
        stage = Stage(Kind.UNMASK, secure, ending.alive, given, enough=lambda: ending.enough(opened))
        self.stages.carry_out(stage)
        open_sum(self.total, ending, opened)
