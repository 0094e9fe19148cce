"""A table study carried out: every arm through the same ServerApp, rounds, door and ledger as a federation of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from client.dataset import SiteData
from client.patients import concat
from client.policy import Policy
from client.service import SiteService
from client.site import init_site
from common.checkpoints import load
from common.models import Network, build, set_arrays
from common.plan import Plan
from simulations.grid import run_in_process
from simulations.tables.accuracy import Accuracies, Hits, hits, together
from simulations.tables.duties import TableDuties
from simulations.tables.patients import patients
from simulations.tables.study import Arm, Study, read_rows

_POOLED: Final = "pooled"
_SEED: Final = 1
Told = Callable[[int, int], None]
"""Called with (trainings done, trainings in all)."""


@dataclass(frozen=True)
class Outcome:
    """What came of a study."""

    study: str
    folds: int
    """0: tested on the table's own test rows; else cross-validated within its training rows."""
    arms: tuple[Accuracies, ...]


def run_study(study: Study, table: Path, out: Path, folds: int = 0, told: Told | None = None) -> Outcome:
    """Carry out every arm.

    Args:
        study: what is done.
        table: the file.
        out: receives one folder a training, each with its record, model and audit logs.
        folds: above 1, the test rows are left aside, and each fold of the training rows is tested once by a model of the
            others: with this a study file is chosen before its test rows are looked at.
        told: of progress.

    Raises:
        ConsiliumError: what is wrong with the table, or ended a run.
    """
    rows = read_rows(table, study.table)
    plan = study.plan_for(study.arms[0])
    whole = {site: patients(site, of, study.table, plan.data) for site, of in rows.items()}
    parts = [_fold(whole, number, folds) for number in range(folds)] if folds > 1 else [whole]
    done, count = 0, len(parts) * len(study.arms)
    found: dict[Arm, list[Mapping[str, Hits]]] = {arm: [] for arm in study.arms}
    for number, sites in enumerate(parts):
        for arm in study.arms:
            found[arm].append(_arm(arm, study.plan_for(arm), sites, out / f"{arm}-{number}"))
            done += 1
            if told is not None:
                told(done, count)
    return Outcome(
        study.name,
        len(parts) if folds > 1 else 0,
        tuple(Accuracies(a, together(f)) for a, f in found.items()),
    )


def _arm(arm: Arm, plan: Plan, sites: Mapping[str, SiteData], folder: Path) -> dict[str, Hits]:
    if arm == "alone":
        return {site: hits(_trained(plan, {site: data}, folder / site), data) for site, data in sites.items()}
    trained = {_POOLED: _pooled(sites)} if arm == "pooled" else sites
    net = _trained(plan, trained, folder)
    return {site: hits(net, data) for site, data in sites.items()}


def _trained(plan: Plan, sites: Mapping[str, SiteData], folder: Path) -> Network:
    """The model that a federation of these hospitals ends with."""
    least = min(plan.federation.least_sites, len(sites))
    plan = replace(plan, federation=replace(plan.federation, least_sites=least))
    policy = Policy(allow_non_private=not plan.private, private_progress=True)
    services = []
    for name, data in sites.items():
        site = init_site(folder / "sites" / name, name, simulation_seed=_SEED, policy=policy)
        services.append(SiteService(site, TableDuties(site, data)))
    run_in_process(services, plan, folder / "run")
    rows, columns = plan.input.shape[-2:]
    net = build(plan.model, plan.task.outputs, (rows, columns))
    set_arrays(net, load(folder / "run" / "model.safetensors").arrays)
    return net


def _pooled(sites: Mapping[str, SiteData]) -> SiteData:
    every = list(sites.values())
    return SiteData(
        concat([one.train for one in every]),
        concat([one.validation for one in every]),
        concat([one.test for one in every]),
    )


def _fold(sites: Mapping[str, SiteData], number: int, folds: int) -> dict[str, SiteData]:
    """The training rows of every hospital, one fold of them as test; what validates stays."""
    found = {}
    for name, data in sites.items():
        order = np.random.default_rng(_SEED).permutation(data.train.n_patients)
        tested = order[number::folds]
        rest = np.setdiff1d(order, tested)
        found[name] = SiteData(data.train.subset(rest), data.validation, data.train.subset(tested))
    return found
