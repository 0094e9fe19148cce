"""What a run says to its sites and hears from them: questions made, answers matched to their sites, notes kept.

A question carries plan, digests and model; what belongs to one site only, the server's word for its ledger head,
travels beside it. Nothing here advances a round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from flwr.serverapp import Grid

from common import wire
from common.code import code_digest
from common.errors import AdmissionRefused
from common.messages import Instruction, Kind, Secure, SiteMetrics
from common.parts import LARGE, parts
from common.plan import Plan, dump_plan
from common.tensors import laid_down
from common.types import Arrays, Digest, RunId, SiteName
from server.admission import Admission, Expected
from server.asking import Asking, Patience, Presence, who_question
from server.exchange import NO_REPLY, Answer, Question, takes_maps
from server.heads import HeadBook
from server.journal import Journal
from server.sightings import anchored
from server.start import Options

_STEPS_AFTER: Final = {Kind.THRESHOLD: 1, Kind.EVALUATE: 2}
"""How an observer counts on after the last round."""
_ANCHORED: Final = frozenset(("run.started", "round.completed", "run.ended"))
"""After these the end of the run's log goes into the consortium's."""


@dataclass
class Tally:
    """How many answers whoever asked has let in; it decides how long the others are waited for."""

    admitted: int = 0


@dataclass
class Talk:
    """One run's side of the conversation."""

    grid: Grid
    plan: Plan
    journal: Journal
    heads: HeadBook
    options: Options
    run: RunId
    subset: bool = False
    """Whether what is sent already says that sites are missing."""
    deadline_s: float = 0.0
    norms: tuple[float, ...] = ()
    """L2 norms of the updates of the round before, as they came."""
    silent: frozenset[SiteName] = field(default_factory=frozenset)
    """Sites that said nothing in the round before: asked too, and not waited for as long as the others."""
    presence: Presence = field(default_factory=Presence)

    @property
    def changing(self) -> bool:
        """Whether nodes come and go; where all sites share one machine they do not."""
        return not (self.options.turns or self.options.virtual)

    def question(
        self,
        kind: Kind,
        round_: int,
        model: Arrays | None = None,
        threshold: float | None = None,
        secure: Secure | None = None,
    ) -> Question:
        """A question as bytes, the same for every site."""
        instruction = Instruction(
            kind=kind,
            run=self.run,
            round=round_,
            plan_toml=dump_plan(self.plan),
            plan_digest=self.plan.digest,
            code_digest=code_digest(),
            arrays=model or {},
            threshold=threshold,
            subset=self.subset,
            secure=secure,
        )
        step = round_ + _STEPS_AFTER.get(kind, 0)
        pieces = wire.pieces(instruction)
        large = sum(array.nbytes for array in instruction.arrays.values()) > LARGE
        blob = laid_down(pieces, self.journal.out) if large else b"".join(pieces)
        arrays = dict(parts(blob, mapped=takes_maps(self.grid)))
        return Question(kind, blob, step, self.deadline_s, self.options.virtual, arrays)

    def ask(
        self,
        question: Question,
        sites: Iterable[SiteName],
        tally: Tally | None = None,
        patience: Patience | None = None,
    ) -> Iterator[tuple[SiteName, Answer]]:
        """Ask these sites and give each answer as it comes, for as long as the plan's patience lasts.

        Args:
            question: made by `question`.
            sites: each must have a node in `presence.where`.
            tally: whoever asks counts in it what was let in; without one every answer counts.
            patience: the plan's own when not given.
        """
        counted = Tally() if tally is None else tally
        round_ = question.step - _STEPS_AFTER.get(question.kind, 0)

        def of(site: SiteName, node: int) -> Question:
            word = self.heads.countersign(site, self.run, round_)
            return replace(question, countersigned={} if word is None else {node: word})

        who = who_question(self.question(Kind.PRESENT, round_)) if self.changing else None
        asking = Asking(self.grid, of, self.presence, who)
        patient = {site: site not in self.silent for site in sites}
        for site, answer in asking.answers(patient, patience or self.patience(), lambda: counted.admitted):
            if tally is None:
                counted.admitted += 1
            yield site, answer

    def patience(self) -> Patience:
        """How long a question of this plan waits, and for how many."""
        asked = self.plan.federation
        scale = self.deadline_s / asked.deadline_s
        return Patience(
            self.deadline_s,
            least=asked.least_sites,
            longest_wait_s=asked.longest_wait_s * scale,
            quorum=asked.quorum_sites,
            grace_s=asked.quorum_grace_s * scale,
        )

    def metrics(self, question: Question, sites: Iterable[SiteName]) -> Iterator[SiteMetrics]:
        """Ask these sites for metrics; what is turned away is noted and left out."""
        desk = Admission(self.expected(self.plan.federation.rounds))
        for site, answer in self.ask(question, sites):
            try:
                yield desk.metrics(site, message_of(site, answer))
            except AdmissionRefused as error:
                self.note("metrics.refused", site=site, kind=question.kind.value, code=error.code)

    def expected(self, round_: int) -> Expected:
        """What every reply of a round has to say about itself."""
        return Expected(self.run, round_, code_digest())

    def skew(self, site: str, theirs: Digest) -> None:
        """Name both releases where they differ: ours is `version`, theirs is `digest`."""
        self.note("version.skew", site=site, version=code_digest(), digest=theirs)

    def note(self, event: str, **fields: object) -> None:
        """One line in the run's audit log, on disk when this returns."""
        head = self.journal.audit.append(event, run=self.run, **fields)
        if event in _ANCHORED:
            anchored(self.options.consortium or self.journal.out.parent, self.run, event, head)


def message_of(site: SiteName, answer: Answer) -> wire.Message:
    """The message in an answer.

    Raises:
        AdmissionRefused: with the code of why there is none.
    """
    if answer.message is None:
        raise AdmissionRefused(
            f"site {site}", "its answer cannot be read", "Look at its log", code=answer.code or NO_REPLY
        )
    return answer.message
