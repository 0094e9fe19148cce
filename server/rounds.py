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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from flwr.serverapp import Grid

from common import wire
from common.arrays import Schema, Sum, digest, schema_of
from common.code import code_digest
from common.errors import AdmissionRefused, ConsiliumError, SubsetError
from common.messages import Instruction, Kind, SiteMetrics
from common.plan import Plan, dump_plan
from common.types import Arrays, RunId, SiteName
from server import exchange
from server.admission import Admission, Expected, UpdateRules
from server.exchange import NO_REPLY, Answer, Question
from server.heads import HeadBook
from server.journal import COMPLETED, RUNNING, Journal
from server.records import FederationRecord, RoundRecord, SiteRound
from server.start import Options, Start
from server.strategies import strategy_for
from server.survey import Roster, roster

_MIDDLE: Final = 0.5
"""The operating point when no site could name one."""
_STEPS_AFTER: Final = {Kind.THRESHOLD: 1, Kind.EVALUATE: 2}
"""How an observer counts on after the last round."""


def run_federation(grid: Grid, plan: Plan, out: Path, options: Options | None = None) -> FederationRecord:
    """Carry a study plan out over `grid` and leave its result in `out`.

    Raises:
        SubsetError: when a round had fewer than `least_sites` updates.
        ConsiliumError: whatever else ended the run; `out/federation.json` holds its code.
    """
    options = options or Options()
    start = options.start(plan)
    heads = HeadBook(options.consortium or out.parent)
    return _Run(grid, plan, Journal(out, plan, start.architecture), heads, options).carry_out(start)


@dataclass(frozen=True)
class _Gathered:
    """What the sites' answers of one round came to."""

    state: Sum
    sites: dict[str, SiteRound]
    refused: dict[str, str]
    bytes_up: int


class _Run:
    """One execution of a plan; its methods are called in the order they stand here."""

    def __init__(self, grid: Grid, plan: Plan, journal: Journal, heads: HeadBook, options: Options) -> None:
        self._grid = grid
        self._plan = plan
        self._journal = journal
        self._heads = heads
        self._options = options
        self._strategy = strategy_for(plan.federation.strategy)
        self._silent: set[SiteName] = set()
        self._deadline_s = plan.federation.deadline_s
        self.record = FederationRecord(
            run=f"run-{secrets.token_hex(8)}",
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
        done, model = (saved.round, saved.arrays) if saved else (0, start.arrays)
        if saved is not None:
            if saved.record.status == COMPLETED:
                return saved.record
            self.record = replace(saved.record, status=RUNNING)
        try:
            self._note("run.started", plan=self._plan.digest, digest=digest(model), rounds=done)
            sites = self._survey()
            self._journal.save(self.record, model, done)
            for round_ in range(done + 1, self._plan.federation.rounds + 1):
                model = self._train(round_, model, sites)
                self._journal.save(self.record, model, round_)
            self._evaluate(model, sites, self._threshold(model, sites))
        except ConsiliumError as error:
            self._end(error.code, None)
            raise
        except Exception:
            # A bug of ours, not one of our errors: the record must not say that the run still goes on.
            self._end("internal", None)
            raise
        return self._end(COMPLETED, model)

    def _survey(self) -> Roster:
        named = self._plan.federation.sites
        least = self._plan.federation.least_sites
        wanted = self._options.nodes or len(named) or least
        exact = self._options.nodes > 0
        nodes = exchange.nodes_present(self._grid, wanted, self._deadline_s, exact=exact)
        self._deadline_s *= self._options.turns or (len(nodes) if self._options.virtual else 1)
        question = self._question(Kind.SURVEY, 0, {})
        answers = exchange.ask(self._grid, question, dict.fromkeys(nodes, True))
        sites = roster(answers, nodes, self._expected(0), named)
        sites = self._as_before(sites)
        self.record = replace(
            self.record,
            expected=sites.expected,
            registered=tuple(sites.nodes),
            intake=sites.intake,
            refused=sites.refused,
        )
        for site, code in sites.refused.items():
            self._note("survey.refused", site=site, code=code)
        for site, head in sites.heads.items():
            self._note("head.seen", site=site, **self._heads.shown(site, head))
        self._note("survey.completed", sites=len(sites.nodes), expected=len(sites.expected))
        if len(sites.training) < least:
            raise self._too_few(len(sites.training), sites.refused)
        return sites

    def _as_before(self, sites: Roster) -> Roster:
        """Keep the expected sites of a run that is resumed: nobody is forgotten by a restart."""
        before = tuple(SiteName(site) for site in self.record.expected)
        if not before:
            return sites
        weights = {site: weight for site, weight in sites.weights.items() if site in before}
        return replace(sites, expected=before, weights=weights)

    def _train(self, round_: int, model: Arrays, sites: Roster) -> Arrays:
        started = time.monotonic()
        question = self._question(Kind.TRAIN, round_, model)
        gathered = self._gather(question, schema_of(model), sites)
        self._silent = {SiteName(s) for s, code in gathered.refused.items() if code == NO_REPLY}
        if len(gathered.sites) < self._plan.federation.least_sites:
            self._note("round.failed", round=round_, sites=len(gathered.sites))
            raise self._too_few(len(gathered.sites), gathered.refused)
        rate = self._plan.federation.server_learning_rate
        model = self._strategy.apply(model, gathered.state, rate)
        self._advance(
            RoundRecord(
                round=round_,
                seconds=time.monotonic() - started,
                bytes_up=gathered.bytes_up,
                bytes_down=len(question.blob) * len(sites.training),
                sites=dict(sorted(gathered.sites.items())),
                refused=dict(sorted(gathered.refused.items())),
            )
        )
        self._note("round.completed", round=round_, sites=len(gathered.sites), digest=digest(model))
        return model

    def _gather(self, question: Question, schema: Schema, sites: Roster) -> _Gathered:
        """Fold each update in as it arrives; whoever is not in by the end is refused with a code."""
        rules = UpdateRules(self._plan.digest, schema, sites.weights, self._plan.federation.max_update_norm)
        desk = Admission(self._expected(question.step))
        state = self._strategy.init(schema, rules.total_weight)
        into: dict[str, SiteRound] = {}
        refused = {str(site): NO_REPLY for site in sites.expected}
        up = 0
        for site, answer in self._ask(question, sites.training):
            up += answer.bytes
            try:
                admitted = desk.update(site, _message(site, answer), rules)
            except AdmissionRefused as error:
                self._turn_away(refused, site, error.code)
                continue
            update = admitted.update
            state = self._strategy.fold(state, update.arrays, update.weight)
            into[site] = admitted.record
            del refused[site]
            seen = self._heads.proven(site, update.head)
            self._note("update.admitted", site=site, round=update.round, weight=update.weight, **seen)
            self._options.observer(update.round, site)
        return _Gathered(state, into, refused, up)

    def _threshold(self, model: Arrays, sites: Roster) -> float:
        """The median of what the training sites answer; an external site has no say in it."""
        question = self._question(Kind.THRESHOLD, self._plan.federation.rounds, model)
        answers = [metrics.threshold for metrics in self._metrics(question, sites.training)]
        found = [answer for answer in answers if answer is not None and 0 <= answer <= 1]
        threshold = round(statistics.median(found), 3) if found else _MIDDLE
        self.record = replace(self.record, threshold=threshold)
        self._note("threshold.chosen", threshold=threshold, sites=len(found))
        return threshold

    def _evaluate(self, model: Arrays, sites: Roster, threshold: float) -> None:
        question = self._question(Kind.EVALUATE, self._plan.federation.rounds, model, threshold)
        measured: dict[str, SiteMetrics] = {}
        for metrics in self._metrics(question, sites.nodes):
            measured[metrics.site] = metrics
            self._options.observer(question.step, metrics.site)
        self.record = replace(self.record, sites=dict(sorted(measured.items())))
        self._note("evaluation.completed", sites=len(measured))

    def _metrics(self, question: Question, nodes: dict[SiteName, int]) -> Iterator[SiteMetrics]:
        desk = Admission(self._expected(self._plan.federation.rounds))
        for site, answer in self._ask(question, nodes):
            try:
                yield desk.metrics(site, _message(site, answer))
            except AdmissionRefused as error:
                self._note("metrics.refused", site=site, kind=question.kind.value, code=error.code)

    def _ask(self, question: Question, nodes: dict[SiteName, int]) -> Iterator[tuple[SiteName, Answer]]:
        names = {node: site for site, node in nodes.items()}
        patient = {node: site not in self._silent for node, site in names.items()}
        round_ = question.step - _STEPS_AFTER.get(question.kind, 0)
        words = self._heads.countersigned(nodes, RunId(self.record.run), round_)
        question = replace(question, countersigned=words)
        for answer in exchange.ask(self._grid, question, patient):
            yield names[answer.node], answer

    def _question(self, kind: Kind, round_: int, model: Arrays, threshold: float | None = None) -> Question:
        instruction = Instruction(
            kind=kind,
            run=RunId(self.record.run),
            round=round_,
            plan_toml=dump_plan(self._plan),
            plan_digest=self._plan.digest,
            code_digest=code_digest(),
            arrays=model,
            threshold=threshold,
            subset=self.record.subset,
        )
        step = round_ + _STEPS_AFTER.get(kind, 0)
        return Question(kind, wire.pack(instruction), step, self._deadline_s, self._options.virtual)

    def _expected(self, round_: int) -> Expected:
        return Expected(RunId(self.record.run), round_, code_digest())

    def _turn_away(self, refused: dict[str, str], site: SiteName, code: str) -> None:
        # A second reply does not undo the first, which may already be in the sum.
        if code != "duplicate":
            refused[site] = code
        self._note("update.refused", site=site, code=code)

    def _advance(self, completed: RoundRecord) -> None:
        rounds = (*self.record.rounds, completed)
        trained = set.intersection(*(set(r.sites) for r in rounds))
        self.record = replace(
            self.record,
            rounds=rounds,
            trained=tuple(sorted(trained)),
            subset=len(trained) < len(self.record.expected),
        )

    def _too_few(self, count: int, refused: dict[str, str]) -> SubsetError:
        least = self._plan.federation.least_sites
        why = ", ".join(f"{site} {code}" for site, code in sorted(refused.items())) or "none was refused"
        return SubsetError(
            f"run {self.record.run}",
            f"{count} sites can train and the plan requires {least} ({why})",
            "Put right what the codes say and submit again with the same folder",
        )

    def _end(self, status: str, model: Arrays | None) -> FederationRecord:
        trained, expected = len(self.record.trained), len(self.record.expected)
        self.record = replace(self.record, status=status, subset=trained < expected)
        self._heads.keep()
        self._note("run.ended", status=status, sites=trained, expected=expected)
        self._journal.finish(self.record, model)
        return self.record

    def _note(self, event: str, **fields: object) -> None:
        self._journal.audit.append(event, run=self.record.run, **fields)


def _message(site: SiteName, answer: Answer) -> wire.Message:
    if answer.message is None:
        raise AdmissionRefused(
            f"site {site}", "its answer cannot be read", "Look at its log", code=answer.code
        )
    return answer.message
