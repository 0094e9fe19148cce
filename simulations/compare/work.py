"""One way with one seed on fresh virtual sites: trained, measured, kept."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from client import scores as kept_scores
from client.evaluation import Scores
from client.service import SiteService
from common.code import code_digest
from common.errors import ConsiliumError
from common.messages import SiteMetrics
from common.plan import Plan
from server.reports.select import group_of
from simulations.arms import Job, carry_out
from simulations.compare.beyond import pairs, reads
from simulations.compare.cells import Cell, keep
from simulations.compare.ways import ALONE, POOLED, Way
from simulations.crew import say
from simulations.grid import run_in_process
from simulations.prepare import Federation, arm_site


@dataclass(frozen=True)
class Work:
    """What is to be trained, on which hospitals, and where it is kept."""

    way: Way
    seed: int
    plan: Plan
    federation: Federation
    folder: Path
    away: dict[str, tuple[int, ...]]

    @property
    def apart(self) -> bool:
        """Whether it is no federation: each hospital alone, or all images in one place."""
        return self.way.name in (ALONE, POOLED)

    @property
    def arm(self) -> str:
        """The folder of its virtual sites."""
        return f"{self.way.name}-{self.seed}"


def carried_out(job: Work) -> Cell:
    """Train and measure; what an interrupted run left of it goes first.

    A way that ends early gives a cell with the code of what ended it, which is not kept.
    """
    sites = job.federation.folder / "arms" / job.arm
    for left in (job.folder, sites):
        shutil.rmtree(left, ignore_errors=True)
    begun = time.process_time()
    empty = Cell(job.way.name, job.seed, {}, {}, job.federation.external)
    try:
        found = _apart(job) if job.apart else _federated(job, empty)
        spent = time.process_time() - begun
        found = _asked(job, found)
    except ConsiliumError as error:
        return replace(empty, failed=error.code)
    cell = replace(
        found,
        seconds=spent,
        methods=job.way.papers(job.plan),
        plan_digest=job.plan.digest,
        code_digest=code_digest(),
    )
    keep(cell, job.folder / "cell.json")
    shutil.rmtree(sites, ignore_errors=True)
    return cell


def _federated(job: Work, empty: Cell) -> Cell:
    names = job.federation.names
    sites = [arm_site(job.federation, job.arm, name, private=False) for name in names]
    steps = (job.plan.federation.rounds + 3) * len(names)
    answers = iter(range(1, steps + 1))

    def progress(_step: int, _site: str) -> None:
        """Move this way's bar."""
        say("rounds of the ways in hand", next(answers, steps), steps, part=job.arm)

    found = run_in_process([SiteService(site) for site in sites], job.plan, job.folder, progress, job.away)
    own = job.plan.personalisation.method != "none"
    cell = _figures(empty, dict(found.sites), "personalised" if own else "federated")
    up, down = sum(r.bytes_up for r in found.rounds), sum(r.bytes_down for r in found.rounds)
    return replace(cell, rounds=len(found.rounds), bytes_up=up, bytes_down=down)


def _apart(job: Work) -> Cell:
    """Each hospital alone, or all in one place: the arms of a scenario, as they are."""
    name = job.way.name
    arm = Job("alone" if name == ALONE else "pooled", job.plan, job.federation, job.folder)
    shutil.rmtree(job.federation.folder / "arms" / arm.arm, ignore_errors=True)
    jobs = [replace(arm, hospital=h) for h in job.federation.training] if name == ALONE else [arm]
    sites = {site: metrics for one in jobs for site, metrics in carry_out(one).sites.items()}
    return _figures(Cell(name, job.seed, {}, {}, job.federation.external), sites, name)


def _figures(cell: Cell, sites: dict[str, SiteMetrics], model: str) -> Cell:
    """The figures of one of the models that hospitals measured, of the shared one where that is all."""
    chosen = {
        name: next((m for m in of.models if m.model == model), of.models[0] if of.models else None)
        for name, of in sorted(sites.items())
    }
    groups = {name: group_of(of) if of else None for name, of in chosen.items()}
    return replace(
        cell,
        sites={name: g.auroc.value if g and g.auroc else None for name, g in groups.items()},
        ece={name: g.ece if g else None for name, g in groups.items()},
        sensitivity={n: g.sensitivity.value if g and g.sensitivity else None for n, g in groups.items()},
        specificity={n: g.specificity.value if g and g.specificity else None for n, g in groups.items()},
        model=model,
    )


def _asked(job: Work, cell: Cell) -> Cell:
    """What only a simulation can ask: gaps between hospitals against chance, and whether the hospital can be told."""
    if job.plan.task.kind != "binary":
        return cell
    scores = {name: one for name in job.federation.training if (one := _scores(job, name, cell.model))}
    model = None if job.way.name == ALONE else job.folder / "model.safetensors"
    return replace(cell, pairs=pairs(scores, job.seed), read=reads(job.federation, job.plan, model, job.seed))


def _scores(job: Work, name: str, model: str) -> Scores | None:
    """What a hospital kept of its own test patients under the model that was measured there."""
    if job.apart:
        return kept_scores.load(job.federation.site(name), model)
    site = arm_site(job.federation, job.arm, name, private=False)
    return kept_scores.load(site, model) or kept_scores.load(site, "federated")
