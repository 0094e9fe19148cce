"""The only door by which a round advances.

    survey        round 0: who is there, with how many patients (public buckets), what was taken in
    train         rounds 1..R: each site validates the incoming model, trains, sends an update;
                  each update passes admission and is folded in at once; the round closes when all
                  answered or the deadline passed, and advances only with `least_sites` updates
    threshold     training sites say where their validation patients are separated best; the median
                  of their answers, to 0.001, is the one operating point
    evaluate      every site measures the final model at that point on its test patients

After each round the model and the record are on disk; the same folder submitted again goes on from
there. A run that ends early leaves its record with the code of what ended it, and raises.
"""

from __future__ import annotations

import secrets
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from flwr.serverapp import Grid

from common import tensors
from common.arrays import digest, schema_of
from common.code import code_digest
from common.errors import ConsiliumError, SubsetError
from common.logs import Log, unforeseen
from common.messages import Kind, SiteMetrics
from common.plan import Plan
from common.tensors import laid_down
from common.types import Arrays, RunId, SiteName
from server.aggregation import gathering_for, last_model, next_model
from server.attendance import Attendance
from server.exchange import NO_REPLY
from server.heads import HeadBook
from server.journal import COMPLETED, RUNNING, Journal, architecture_here
from server.records import FederationRecord, RoundRecord
from server.start import Options, Start
from server.strategies import model_of, strategy_for
from server.survey import Roster, chosen, trained
from server.talk import Talk

_LOG: Final = Log("server.rounds")
_MIDDLE: Final = 0.5
"""The operating point when no site could name one."""


def run_federation(grid: Grid, plan: Plan, out: Path, options: Options | None = None) -> FederationRecord:
    """Carry a study plan out over `grid` and leave its result in `out`.

    Raises:
        SubsetError: when a round had fewer than `least_sites` updates.
        ConsiliumError: whatever else ended the run; `out/federation.json` holds its code.
    """
    options = options or Options()
    known = architecture_here(out, plan)
    start = _begun(options, plan, out) if known is None else Start({}, known)
    heads = HeadBook(options.consortium or out.parent)
    run = RunId(f"run-{secrets.token_hex(8)}")
    talk = Talk(grid, plan, Journal(out, plan, start.architecture), heads, options, run)
    with talk.journal.owned():
        return _Run(talk).carry_out(start)


def _begun(options: Options, plan: Plan, out: Path) -> Start:
    """The model a run begins with, on disk: what built it leaves memory."""
    start = options.start(plan)
    pages = laid_down(tensors.pieces(start.arrays, {}), out)
    return Start(tensors.Mapped(pages, tensors.views(pages)).ordered(start.arrays), start.architecture)


class _Run:
    """One execution of a plan; its methods are called in the order they stand here."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._plan = plan = talk.plan
        self._journal = talk.journal
        self._rule = strategy_for(plan)
        self._attendance = Attendance(talk)
        talk.deadline_s = plan.federation.deadline_s
        self.record = FederationRecord(
            run=talk.run,
            plan_digest=plan.digest,
            code_digest=code_digest(),
            strategy=plan.federation.strategy,
            private=plan.private,
            expected=(),
            registered=(),
            trained=(),
            subset=False,
            status=RUNNING,
        )

    def carry_out(self, start: Start) -> FederationRecord:
        """All steps; the record is written whatever happens."""
        saved = self._journal.resume()
        done, model = (saved.round, saved.arrays) if saved else (0, self._rule.begin(start.arrays))
        if saved is not None:
            if saved.record.status == COMPLETED:
                return saved.record
            self.record = replace(saved.record, status=RUNNING)
            self._talk.run, self._talk.subset = RunId(saved.record.run), saved.record.subset
        self._journal.begin(self.record)
        try:
            self._talk.note(
                "run.started", plan=self._plan.digest, digest=digest(model_of(model)), rounds=done
            )
            sites = self._survey()
            model = self._journal.save(self.record, model, done)
            for round_ in range(done + 1, self._plan.federation.rounds + 1):
                sites = self._joined(sites, round_)
                model = self._train(round_, model, sites)
                model = self._journal.save(self.record, model, round_)
                self._journal.forget_round()
            model = self._threshold(model_of(model), sites)
            self._evaluate(model, sites)
        except ConsiliumError as error:
            self._end(error.code, None)
            raise
        except Exception as error:
            # A bug of ours, not one of our errors: the record must not say that the run still goes on.
            unforeseen(_LOG, "run.failed", error)
            self._end("internal", None)
            raise
        return self._end(COMPLETED, model)

    def _survey(self) -> Roster:
        least, talk, named = self._plan.federation.least_sites, self._talk, self._plan.federation.sites
        sites = self._as_before(self._attendance.first(named or self.record.expected, len(named)))
        self._registered(sites)
        talk.note("survey.completed", sites=len(sites.nodes), expected=len(sites.expected))
        if len(sites.training) < least:
            raise self._too_few(len(sites.training), sites.refused)
        return sites

    def _joined(self, sites: Roster, round_: int) -> Roster:
        sites = self._attendance.joined(sites, round_)
        self._registered(sites)
        return sites

    def _registered(self, sites: Roster) -> None:
        self.record = replace(
            self.record,
            expected=sites.expected,
            registered=tuple(sites.nodes),
            intake=sites.intake,
            refused=sites.refused,
            weights={str(site): weight for site, weight in sites.weights.items()},
        )

    def _as_before(self, sites: Roster) -> Roster:
        """Keep the expected sites of a run that is resumed: nobody is forgotten by a restart."""
        before = tuple(SiteName(site) for site in self.record.expected)
        if not before:
            return sites
        known = {SiteName(site): weight for site, weight in self.record.weights.items()}
        weights = {s: weight for s, weight in {**sites.weights, **known}.items() if s in before}
        return replace(sites, expected=before, weights=weights)

    def _train(self, round_: int, model: Arrays, sites: Roster) -> Arrays:
        """One round; `model` is what the method carries, the model's tensors and its memory (`server.strategies`)."""
        started, plan = time.monotonic(), self._plan
        everybody = len(sites.expected)
        sites = chosen(sites, plan.federation.sites_per_round, plan.training.seed, round_)
        last = self.record.rounds[-1].sites.values() if self.record.rounds else ()
        self._talk.norms = tuple(site.update_norm for site in last if site.update_norm is not None)
        question = self._talk.question(Kind.TRAIN, round_, self._rule.sent(model))
        gathered = gathering_for(self._talk).gather(question, schema_of(model_of(model)), sites)
        self._talk.silent = frozenset(SiteName(s) for s, code in gathered.refused.items() if code == NO_REPLY)
        if len(gathered.sites) < self._plan.federation.least_sites:
            self._talk.note("round.failed", round=round_, sites=len(gathered.sites))
            raise self._too_few(len(gathered.sites), gathered.refused)
        following, together = next_model(self._talk, model, gathered, round_), gathered.together
        self._advance(
            RoundRecord(
                round=round_,
                seconds=time.monotonic() - started,
                bytes_up=gathered.bytes_up,
                bytes_down=len(question.blob) * len(sites.training),
                sites=dict(sorted(gathered.sites.items())),
                refused=dict(sorted(gathered.refused.items())),
                chosen=tuple(sites.expected) if len(sites.expected) < everybody else (),
                masked=together is not None,
                loss=together.loss if together else None,
                auroc=together.auroc if together else None,
                judged=together.judged if together else 0,
                worse=together.worse if together else 0,
                rolled_back=following.rolled_back,
            )
        )
        model = following.model
        self._talk.note(
            "round.completed", round=round_, sites=len(gathered.sites), digest=digest(model_of(model))
        )
        return model

    def _threshold(self, model: Arrays, sites: Roster) -> Arrays:
        """The median of what the training sites answer; an external site has no say in it.

        Returns:
            The model that it is for: after masked rounds the sites may have turned the last aggregate down.
        """
        told = self._told(model, sites)
        kept = last_model(self._talk, model, [metrics.worse for metrics in told])
        if kept is not model:
            last = replace(self.record.rounds[-1], rolled_back=True)
            self.record = replace(self.record, rounds=(*self.record.rounds[:-1], last))
            told = self._told(kept, sites)
        answers = [metrics.threshold for metrics in told]
        found = [answer for answer in answers if answer is not None and 0 <= answer <= 1]
        threshold = round(statistics.median(found), 3) if found else _MIDDLE
        self.record = replace(self.record, threshold=threshold)
        self._talk.note("threshold.chosen", threshold=threshold, sites=len(found))
        return kept

    def _told(self, model: Arrays, sites: Roster) -> list[SiteMetrics]:
        question = self._talk.question(Kind.THRESHOLD, self._plan.federation.rounds, model)
        return list(self._talk.metrics(question, sites.training))

    def _evaluate(self, model: Arrays, sites: Roster) -> None:
        threshold = self.record.threshold
        question = self._talk.question(Kind.EVALUATE, self._plan.federation.rounds, model, threshold)
        measured: dict[str, SiteMetrics] = {}
        for metrics in self._talk.metrics(question, sites.nodes):
            measured[metrics.site] = metrics
            self._talk.options.observer(question.step, metrics.site)
        self.record = replace(self.record, sites=dict(sorted(measured.items())))
        self._talk.note("evaluation.completed", sites=len(measured))

    def _advance(self, completed: RoundRecord) -> None:
        rounds = (*self.record.rounds, completed)
        learned = trained(rounds)
        self.record = replace(
            self.record, rounds=rounds, trained=learned, subset=len(learned) < len(self.record.expected)
        )
        self._talk.subset = self.record.subset

    def _too_few(self, count: int, refused: dict[str, str]) -> SubsetError:
        least = self._plan.federation.least_sites
        why = ", ".join(f"{site} {code}" for site, code in sorted(refused.items())) or "none was refused"
        return SubsetError(
            f"run {self.record.run}",
            f"{count} sites can train and the plan requires {least} ({why})",
            "Put right what the codes say and submit again with the same folder",
        )

    def _end(self, status: str, model: Arrays | None) -> FederationRecord:
        learned, expected = len(self.record.trained), len(self.record.expected)
        self.record = replace(self.record, status=status, subset=learned < expected)
        self._talk.heads.keep()
        self._talk.note("run.ended", status=status, sites=learned, expected=expected)
        self._journal.finish(self.record, model)
        return self.record
