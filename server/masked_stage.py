"""One stage of a masked round: what was admitted before a crash is read back, the others are asked, then it is closed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final

from common import wire
from common.errors import AdmissionRefused, SubsetError
from common.messages import Kind, LedgerHead, Secure
from common.plan import Plan
from common.types import Arrays, RunId, SiteName
from server.admission import Admission
from server.asking import Patience
from server.masked_journal import MaskedJournal
from server.talk import Talk, Tally, message_of

_GRACE_S: Final = {Kind.KEYS: 30.0, Kind.SHARES: 30.0, Kind.CONSENT: 5.0, Kind.UNMASK: 5.0}
"""How long the others are waited for once the threshold is reached, where an answer takes a site milliseconds."""


@dataclass(frozen=True)
class Stage:
    """One question of a masked round to some sites."""

    kind: Kind
    secure: Secure
    ask: Collection[SiteName]
    admit: Callable[[SiteName, wire.Message], None]
    """Looks at one answer, and takes it in or raises AdmissionRefused."""
    model: Arrays | None = None
    enough: Callable[[], bool] | None = None
    """Whether what was admitted will do; at least the threshold where nothing is said."""


class Stages:
    """The stages of one round, carried out one after the other.

    Args:
        talk: the run's side of the conversation.
        journal: of this round.
        round_: its number.
        refusals: site to code, which is filled in.
    """

    def __init__(self, talk: Talk, journal: MaskedJournal, round_: int, refusals: dict[str, str]) -> None:
        self._talk = talk
        self._journal = journal
        self._refusals = refusals
        self._kept = False
        self.round = round_
        self.up = 0

    @property
    def plan(self) -> Plan:
        """The run's plan."""
        return self._talk.plan

    @property
    def run(self) -> RunId:
        """The run."""
        return self._talk.run

    def proven(self, site: SiteName, head: LedgerHead | None) -> None:
        """Take in the ledger head that came with a masked update; one of before a crash was admitted then."""
        seen = self._talk.heads.proven(site, head)
        if self._kept:
            self._talk.note("update.kept", site=site, round=self.round)
            return
        self._talk.note("update.admitted", site=site, round=self.round, **seen)
        self._talk.options.observer(self.round, site)

    def carry_out(self, stage: Stage) -> None:
        """Ask whoever has not answered yet, until all did or patience ends; then close the stage.

        Raises:
            SubsetError: fewer than the threshold are in; the stage stays open.
        """
        desk, tally = Admission(self._talk.expected(self.round)), Tally()
        admitted: set[SiteName] = set()
        self._kept = True
        for site, blob in self._journal.admitted(stage.kind):
            stage.admit(site, desk.masked(site, wire.unpack(blob)))
            admitted.add(site)
            self.up += len(blob)
        self._kept = False
        if self._journal.closed(stage.kind) is None:
            tally.admitted = len(admitted)
            self._ask(stage, desk, admitted, tally)
            self._enough(stage, admitted)
            self._journal.close(stage.kind, admitted)
            self._talk.note("stage.closed", kind=stage.kind.value, round=self.round, sites=len(admitted))

    def given_up(self, count: int, why: str) -> SubsetError:
        """The end of a round that cannot be opened."""
        self._talk.note("round.abandoned", round=self.round, sites=count)
        return SubsetError(
            f"run {self.run}, round {self.round}",
            f"{count} sites are left and {why}: the round is given up, its sum stays closed to everybody; "
            "what hospitals charged for it stays charged",
            "Submit again with the same folder when enough of its hospitals are back; it goes on in this round",
        )

    def _ask(self, stage: Stage, desk: Admission, admitted: set[SiteName], tally: Tally) -> None:
        question = self._talk.question(stage.kind, self.round, stage.model, secure=stage.secure)
        missing = [site for site in stage.ask if site not in admitted]
        for site, answer in self._talk.ask(question, missing, tally, self._patience(stage)):
            self.up += answer.bytes
            try:
                reply = desk.masked(site, message_of(site, answer))
                stage.admit(site, reply)
            except AdmissionRefused as error:
                self._turn_away(site, error.code)
                continue
            self._journal.admit(stage.kind, site, answer.blob or wire.pack(reply))
            admitted.add(site)
            tally.admitted += 1

    def _enough(self, stage: Stage, admitted: set[SiteName]) -> None:
        least, count = stage.secure.terms.threshold, len(admitted)
        if count < least:
            gone = sorted((site, code) for site, code in self._refusals.items() if site not in admitted)
            codes = ", ".join(f"{site} {code}" for site, code in gone)
            raise self.given_up(count, f"{least} must be ({stage.kind.value}: {codes})")
        if stage.enough is not None and not stage.enough():
            raise self.given_up(count, "their shares do not open the sum")

    def _patience(self, stage: Stage) -> Patience:
        """The plan's for training; little more than the first answers take for the small stages."""
        plans = replace(self._talk.patience(), least=stage.secure.terms.threshold)
        if stage.kind in (Kind.TRAIN, Kind.ANALYSE):
            return plans
        return replace(plans, quorum=stage.secure.terms.threshold, grace_s=_GRACE_S[stage.kind])

    def _turn_away(self, site: SiteName, code: str) -> None:
        if code != "duplicate":
            self._refusals[site] = code
        self._talk.note("update.refused", site=site, code=code)
