"""An analysis from the first question to its record; what `server.rounds` is for a study that trains.

    present    round 0: which node speaks for which hospital
    analyse    hospitals that the plan names in `analytics.own` show cells; then the others make keys, share out, count under
               masks, consent and open, and the sum alone comes out

`<out>/run.json`        the run's name, so that one that was interrupted goes on where it was
`<out>/analysis.json`   the record (`server.analytics.records`)
`<out>/federation.json` how it ended, for whoever watches studies

The page is made of the record by whoever looks (`server.analytics.page`): an app bundle has no templates in it.

A hospital gives the same bytes to the same question. So an analysis that is submitted again with the same folder asks nothing new.
"""

from __future__ import annotations

import json
import math
import secrets
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from flwr.serverapp import Grid

from common.analytics import LEAST, Schema, schema_of, summed_of
from common.analytics_noise import Noise
from common.checkpoints import write_whole
from common.code import code_digest
from common.errors import ConsiliumError, FederationError, SubsetError
from common.messages import Kind
from common.plan import Plan
from common.roster import Roster as Members
from common.types import Digest, RunId, SiteName
from server.analytics.gather import Summed, own_cells, summed_cells, written
from server.analytics.records import AnalysisRecord, Bins, Part, write_analysis
from server.attendance import Attendance
from server.exchange import NO_REPLY
from server.heads import HeadBook
from server.journal import COMPLETED, RUNNING, Journal
from server.records import FederationRecord
from server.seals import load_seals
from server.start import Options
from server.survey import Roster
from server.talk import Talk

RECORD: Final = "analysis.json"
_RUN: Final = "run.json"
_NO_MODEL: Final = Digest("sha256:" + "0" * 64)


def run_analysis(grid: Grid, plan: Plan, out: Path, options: Options | None = None) -> FederationRecord:
    """Carry an analysis out over `grid` and leave its record and page in `out`.

    Raises:
        SubsetError: fewer hospitals than a sum needs; nothing was opened.
        ConsiliumError: whatever else ended it; `out/federation.json` holds its code.
    """
    options = options or Options()
    journal = Journal(out, plan, _NO_MODEL)
    with journal.owned():
        heads = HeadBook(options.consortium or out.parent)
        talk = Talk(grid, plan, journal, heads, options, _run(out, plan))
        return _Analysis(talk).carry_out()


class _Analysis:
    """One analysis; its methods are called in the order they stand here."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._plan = plan = talk.plan
        self._schema: Schema = schema_of(plan)
        talk.deadline_s = plan.federation.deadline_s
        self.record = FederationRecord(
            run=talk.run,
            plan_digest=plan.digest,
            code_digest=code_digest(),
            strategy="analysis",
            private=plan.analytics.epsilon > 0,
            expected=(),
            registered=(),
            trained=(),
            subset=False,
            status=RUNNING,
        )

    def carry_out(self) -> FederationRecord:
        """All steps; the record is written whatever happens."""
        talk = self._talk
        talk.journal.begin(self.record)
        try:
            talk.note("run.started", plan=self._plan.digest, rounds=0)
            members = self._members()
            wanted = tuple(sorted({*summed_of(self._plan, _names(members)), *self._plan.analytics.own}))
            self.record = replace(self.record, expected=wanted)
            sites = self._present(wanted)
            own, refused = own_cells(talk, self._schema, self._own(sites))
            summed = self._summed(sites, members)
            found = self._made(sites, own, refused, summed)
            write_analysis(found, talk.journal.out / RECORD)
        except ConsiliumError as error:
            self._end(error.code)
            raise
        except Exception:
            self._end("internal")  # a bug of ours: the record must not say that it still goes on
            raise
        talk.journal.forget_round()
        there = tuple(sorted({site for part in found.parts for site in part.sites}))
        self.record = replace(self.record, trained=there, refused=found.refused, subset=bool(found.missing))
        return self._end(COMPLETED)

    def _members(self) -> Members | None:
        seals = load_seals(self._talk.options.consortium or self._talk.journal.out.parent)
        return None if seals is None else seals.roster

    def _present(self, wanted: tuple[str, ...]) -> Roster:
        """Who is there; nobody says more than a name."""
        sites = Attendance(self._talk, Kind.PRESENT).first(wanted, len(wanted))
        if not wanted:
            sites = replace(sites, expected=tuple(sites.nodes))
        self.record = replace(self.record, expected=sites.expected, registered=tuple(sites.nodes))
        self._talk.note("survey.completed", sites=len(sites.nodes), expected=len(sites.expected))
        return sites

    def _own(self, sites: Roster) -> dict[SiteName, int]:
        return {site: node for site, node in sites.nodes.items() if site in self._plan.analytics.own}

    def _summed(self, sites: Roster, members: Members | None) -> Summed | None:
        """The masked sum of everybody else; None where the plan leaves nobody for it."""
        names = tuple(SiteName(name) for name in summed_of(self._plan, sites.expected))
        if not names:
            return None
        if members is None:
            raise FederationError(
                "the analysis",
                "a masked sum needs enrolled hospitals, and this federation has no roster",
                "Enrol them (`consilium-server invite`)",
                code="not-enrolled",
            )
        if len(names) < LEAST:
            raise SubsetError(
                f"run {self._talk.run}",
                f"{len(names)} hospitals would be summed, and a sum is of {LEAST} or more",
                "Let more take part, or let them show cells of their own (analytics.own)",
            )
        return summed_cells(
            self._talk,
            self._schema,
            replace(sites, expected=names, weights=dict.fromkeys(names, 1)),
            members,
        )

    def _made(
        self, sites: Roster, own: tuple[Part, ...], refused: dict[str, str], summed: Summed | None
    ) -> AnalysisRecord:
        plan, schema, asked = self._plan, self._schema, self._plan.analytics
        least = plan.evaluation.min_cell
        gone = {str(s): sites.refused.get(s, NO_REPLY) for s in sites.expected if s not in sites.nodes}
        noisy = asked.epsilon > 0
        return AnalysisRecord(
            run=self._talk.run,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            study=plan.study.name,
            question=plan.study.question,
            plan_digest=plan.digest,
            code_digest=code_digest(),
            simulated=bool(self._talk.options.virtual or self._talk.options.turns),
            labels=schema.labels,
            positive=schema.positive,
            axes=tuple(Bins(axis.name, axis.bins, axis.ordered) for axis in schema.axes),
            min_cell=least,
            own=own,
            summed=None if summed is None else written(schema, summed, least, noisy=noisy),
            wanted=tuple(str(site) for site in sites.expected),
            refused={**gone, **refused, **({} if summed is None else summed.refused)},
            epsilon=asked.epsilon or None,
            delta=asked.delta if noisy else None,
            noise=None if summed is None or not noisy else self._noise(summed),
        )

    def _noise(self, summed: Summed) -> float:
        """Standard deviation in each cell: as many shares as there are hospitals in the sum."""
        share = Noise.of(self._plan, summed.parties, summed.threshold).share
        return share * math.sqrt(len(summed.sites))

    def _end(self, status: str) -> FederationRecord:
        self.record = replace(self.record, status=status)
        self._talk.heads.keep()
        there, expected = len(self.record.trained), len(self.record.expected)
        self._talk.note("run.ended", status=status, sites=there, expected=expected)
        self._talk.journal.finish(self.record, None)
        return self.record


def _names(members: Members | None) -> tuple[str, ...]:
    return () if members is None else tuple(member.name for member in members.members)


def _run(out: Path, plan: Plan) -> RunId:
    """The name of the run in this folder: the one it began with, or a new one.

    Raises:
        FederationError: code `out-used` when the folder belongs to another plan.
    """
    path = out / _RUN
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["plan"] != plan.digest:
            raise FederationError(
                "folder out", "it holds a run of another plan", "Choose another folder", code="out-used"
            )
        return RunId(known["run"])
    name = RunId(f"run-{secrets.token_hex(8)}")
    write_whole(path, json.dumps({"run": name, "plan": plan.digest}).encode())
    return name
