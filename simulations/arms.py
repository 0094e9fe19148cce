"""The ways to train that are compared, each on its own fresh virtual sites, one process per core.

`alone` comes first: the other arms are compared with it inside each hospital, on the same patients.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from pydantic import TypeAdapter

from client import scores as kept_scores
from client.dataset import SiteData, load_dataset
from client.evaluation import best_threshold, compare, measure, predict
from client.local import train_alone
from client.patients import concat
from client.privacy.ledger import Ledger, Limits, Release
from client.service import SiteService
from client.training import train
from common.accounting import DpEventSpec
from common.checkpoints import Checkpoint, save, write_whole
from common.code import code_digest
from common.messages import Comparison, SiteMetrics
from common.models import Network, architecture_digest, build, get_arrays
from common.plan import Plan
from common.types import RunId, SiteName
from server.records import ArmRecord
from simulations.crew import Crew, say
from simulations.grid import run_in_process
from simulations.prepare import Federation, arm_site
from simulations.probes.snapshots import Snapshots
from simulations.scenario import Arm, Scenario
from simulations.workers import Hands, run_on_workers

POOLED: Final = "pooled"
PAIRS: Final = (
    ("federated", "alone"),
    ("personalised", "alone"),
    ("federated-dp", "alone"),
    ("federated-dp", "federated"),
    (POOLED, "federated"),
)
"""Which models are compared inside a hospital, on the same test patients."""

MANY: Final = 24
"""More hospitals than this train on workers of their own, whose memory does not grow with them (`simulations.workers`)."""
_OPEN: Final = DpEventSpec(sampling_rate=1.0, noise_multiplier=0.0, steps=1)
"""What training without privacy does to a patient: infinite epsilon."""


@dataclass(frozen=True)
class Job:
    """One piece of work for one process: an arm, or one hospital of the arm `alone`."""

    arm: Arm
    plan: Plan
    federation: Federation
    out: Path
    hospital: str = ""
    workers: int | None = None
    """Processes for an arm of many hospitals; all cores when None."""


def run_arms(scenario: Scenario, federation: Federation, out: Path, hands: Crew) -> dict[str, ArmRecord]:
    """Train and measure every arm of a scenario; the arms' records, in the scenario's order.

    Raises:
        ConsiliumError: what ended an arm; the records of the others are in `out/arms/<arm>/record.json`.
    """
    arms = scenario.scenario.arms
    jobs = [Job(arm, scenario.plan_for(arm), federation, out / "arms" / arm) for arm in arms]
    alone = [replace(j, hospital=h) for j in jobs if j.arm == "alone" for h in federation.training]
    # The longest first: under privacy every patient has a gradient of their own.
    together = sorted((j for j in jobs if j.arm != "alone"), key=lambda j: not j.plan.private)
    done: dict[str, ArmRecord] = {}
    for batch in (alone, together):
        for record in hands.do(partial(carry_out, job) for job in batch):
            known = done.get(record.arm)
            done[record.arm] = joined(known, record) if known else record
            if record.arm != "alone" or len(done[record.arm].sites) == len(alone):
                _keep(done[record.arm], out)
    return {arm: done[arm] for arm in arms}


def _keep(record: ArmRecord, out: Path) -> None:
    blob = json.dumps(asdict(record), indent=1, sort_keys=True).encode()
    write_whole(out / "arms" / record.arm / "record.json", blob)


def comparisons(federation: Federation, plan: Plan) -> dict[str, tuple[Comparison, ...]]:
    """Per hospital, the paired differences between models that scored the same test patients."""
    found: dict[str, tuple[Comparison, ...]] = {}
    for name in federation.names:
        site = federation.site(name)
        rows = []
        for model, other in PAIRS:
            one, two = kept_scores.load(site, model), kept_scores.load(site, other)
            if one is not None and two is not None and kept_scores.same_patients(one, two):
                rows.append(compare(one, two, plan, names=(model, other)))
        found[name] = tuple(row for row in rows if row is not None)
    return found


def joined(one: ArmRecord, other: ArmRecord) -> ArmRecord:
    """The records of two hospitals of one arm as one."""
    return replace(one, sites={**one.sites, **other.sites}, seconds=one.seconds + other.seconds)


def carry_out(job: Job) -> ArmRecord:
    """One arm, or one hospital of the arm `alone`."""
    begun = time.monotonic()
    kinds = {"alone": _alone, "federated": _federated, "federated-dp": _federated, "pooled": _pooled}
    return replace(kinds[job.arm](job), seconds=time.monotonic() - begun)


def _alone(job: Job) -> ArmRecord:
    site = arm_site(job.federation, job.arm, job.hospital)
    result = train_alone(
        site,
        job.plan,
        job.out / job.hospital,
        progress=partial(say, job.arm, part=job.hospital, parts=len(job.federation.training)),
    )
    own = TypeAdapter(SiteMetrics).validate_json(result.metrics.read_bytes())
    threshold = 0.5 if own.threshold is None else own.threshold
    return ArmRecord(job.arm, {job.hospital: _released(job, kept_scores.ALONE, threshold, own.epsilon)})


def _federated(job: Job) -> ArmRecord:
    names = job.federation.names
    last = job.plan.federation.rounds + 2
    answers: dict[int, int] = {}
    snapshots = Snapshots(job.out, job.plan.federation.rounds)

    def progress(step: int, _site: str) -> None:
        snapshots.answered(step)
        answers[step] = answers.get(step, 0) + 1
        say(job.arm, step * len(names) + answers[step], (last + 1) * len(names))

    away = {name: spec.away for name, spec in job.federation.specs.items() if spec.away}
    if len(names) > MANY:
        folders = [job.federation.folder / "arms" / job.arm / name for name in names]
        hands = Hands(job.workers, partial(_opened, job))
        record = run_on_workers(folders, job.plan, job.out, hands, progress=progress, away=away)
    else:
        services = [SiteService(arm_site(job.federation, job.arm, name)) for name in names]
        record = run_in_process(services, job.plan, job.out, progress, away)
    return ArmRecord(job.arm, dict(record.sites), record)


def _opened(job: Job, folder: Path) -> None:
    arm_site(job.federation, job.arm, folder.name)


def _pooled(job: Job) -> ArmRecord:
    data = {
        name: load_dataset(arm_site(job.federation, job.arm, name), job.plan) for name in job.federation.names
    }
    net = _network(job.plan)
    everybody = concat([data[name].train for name in job.federation.training])
    _charge_open(job, data)
    for number in range(1, job.plan.federation.rounds + 1):
        train(net, everybody, job.plan, dp=None, round=number)
        say(POOLED, number, job.plan.federation.rounds)
    _save(job, net)
    threshold = _threshold(net, list(data.values()))
    return ArmRecord(job.arm, {n: _measured(job, n, net, d, threshold) for n, d in data.items()})


def _save(job: Job, net: Network) -> None:
    rounds, digest = job.plan.federation.rounds, job.plan.digest
    checkpoint = Checkpoint(RunId(job.arm), rounds, digest, architecture_digest(net), get_arrays(net))
    save(checkpoint, job.out / "model.safetensors")


def _charge_open(job: Job, data: dict[str, SiteData]) -> None:
    """Pooling gives every training patient's images away: each hospital's ledger says infinite."""
    for name in job.federation.training:
        site = arm_site(job.federation, job.arm, name)
        release = Release(RunId(job.arm), 0, job.plan.digest, job.plan.digest)
        with Ledger(site.ledger, simulated=True) as ledger:
            ledger.charge(release, data[name].train.spend_keys, _OPEN, Limits.of(site.policy, job.plan))


def _threshold(net: Network, data: list[SiteData]) -> float:
    own = (best_threshold(predict(net, site.validation)) for site in data if site.validation.n_images)
    found = [value for value in own if value is not None]
    return round(median(found), 3) if found else 0.5


def _measured(job: Job, name: str, net: Network, data: SiteData, threshold: float) -> SiteMetrics:
    kept_scores.save(job.federation.site(name), POOLED, predict(net, data.test))
    return _released(replace(job, hospital=name), POOLED, threshold)


def _released(job: Job, model: str, threshold: float, epsilon: float | None = None) -> SiteMetrics:
    """What a hospital would release of a model whose scores it kept: suppressed like everything else."""
    site = job.federation.site(job.hospital)
    found = kept_scores.load(site, model)
    least = max(job.plan.evaluation.min_cell, site.policy.min_cell)
    models = () if found is None else (measure(found, job.plan, threshold, least, model),)
    return SiteMetrics(
        site=SiteName(job.hospital),
        run=RunId(job.arm),
        round=job.plan.federation.rounds,
        code_digest=code_digest(),
        models=models,
        threshold=threshold,
        epsilon=epsilon,
        simulated=True,
    )


def _network(plan: Plan) -> Network:
    rows, columns = plan.input.shape[-2:]
    return build(plan.model, plan.task.outputs, (rows, columns))
