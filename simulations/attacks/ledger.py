"""Is a round paid for? A virtual hospital is asked to train, from outside, and its ledger is read afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from client.dataset import load_dataset
from client.intake.ingest import ingest
from client.policy import Policy
from client.privacy.book import Charge
from client.privacy.ledger import Ledger
from client.privacy.plan import DpPlan
from client.site import Site, init_site, load_site
from common.arrays import digest
from common.code import code_digest
from common.errors import ConsiliumError
from common.messages import Instruction, Kind, Refusal, Reply, Update
from common.models import build, get_arrays
from common.plan import Plan, dump_plan
from common.types import Arrays, RunId
from simulations.attacks.records import Check
from simulations.attacks.target import Target, plan_of
from simulations.hospitals import default_federation, write_hospital

_RUN: Final = RunId("audit")
_PATIENTS: Final = 60
_SIDE: Final = 32


@dataclass(frozen=True)
class Asked:
    """What the server sent and what the hospital's ledger says of it."""

    reply: Reply
    charges: tuple[Charge, ...]
    bytes: bytes


def hospital(folder: Path, seed: int) -> Site:
    """A virtual hospital with its images taken in by the client's own code.

    Raises:
        ConsiliumError: what stopped the ingestion.
    """
    (spec,) = default_federation(n_hospitals=1, n_patients=_PATIENTS)
    incoming = folder / "incoming"
    write_hospital(spec, incoming, seed)
    site = init_site(folder / "site", "audited", simulation_seed=seed, policy=Policy(min_patients=5))
    ingest(site, incoming, incoming / "labels.csv", workers=1)
    return site


def paid(target: Target, site: Site, scratch: Path) -> tuple[Check, ...]:
    """Train, repeat, and ask for more than the budget; on a copy of the site, so that it can be asked again."""
    shutil.copytree(site.folder, scratch)
    copy = load_site(scratch)
    plan = plan_of(
        _SIDE,
        privacy={"mode": "patient-dp", "steps_per_round": 2},
        federation={"rounds": 1, "least_sites": 1},
    )
    arrays = get_arrays(build(plan.model, 1, (_SIDE, _SIDE)))
    other = {name: (array + np.float32(1e-3)).astype(np.float32) for name, array in arrays.items()}
    ask = _asker(target, copy, plan)
    first, again, beyond = ask(arrays), ask(arrays), ask(other)
    return (
        _charged(first, copy, plan, digest(arrays)),
        _same(first, again),
        _refused(beyond),
    )


def _asker(target: Target, site: Site, plan: Plan) -> Callable[[Arrays], Asked]:
    service = target.service(site)

    def ask(arrays: Arrays) -> Asked:
        """Send one instruction to train, and read the ledger."""
        from common import wire  # noqa: PLC0415 - beside its only use

        instruction = Instruction(
            kind=Kind.TRAIN,
            run=_RUN,
            round=1,
            plan_toml=dump_plan(plan),
            plan_digest=plan.digest,
            code_digest=code_digest(),
            arrays=arrays,
        )
        blob = service.answer(wire.pack(instruction))
        reply = wire.unpack(blob)
        if isinstance(reply, Instruction):
            reply = Refusal(site.name, _RUN, 1, "internal", code_digest())
        return Asked(reply, _charges(site), blob)

    return ask


def _charges(site: Site) -> tuple[Charge, ...]:
    try:
        with Ledger(site.ledger, simulated=True) as ledger:
            return ledger.charges
    except ConsiliumError:
        return ()


def _charged(asked: Asked, site: Site, plan: Plan, model: str) -> Check:
    claim = "an update stands in the ledger with the plan's noise, for every training patient"
    if not isinstance(asked.reply, Update):
        code = asked.reply.code if isinstance(asked.reply, Refusal) else "no update"
        return Check("ledger, charged", claim, 0.0, 1.0, None, passed=False, note=f"refused: {code}")
    event = DpPlan.from_plan(plan, asked.reply.weight).round_event
    patients = load_dataset(site, plan).train.n_patients
    right = [
        charge
        for charge in asked.charges
        if (charge.release.run, charge.release.model_digest) == (_RUN, model)
        and charge.event == event
        and charge.patients == patients
    ]
    return Check("ledger, charged", claim, float(len(right)), 1.0, 1.0, passed=len(right) == 1)


def _same(first: Asked, again: Asked) -> Check:
    claim = "the same question gets the same noise: the server cannot average it away"
    one, two = first.reply, again.reply
    same = isinstance(one, Update) and isinstance(two, Update) and digest(one.arrays) == digest(two.arrays)
    return Check("ledger, repeat", claim, float(same), 1.0, None, passed=same)


def _refused(beyond: Asked) -> Check:
    claim = "another model's round beyond the budget is refused"
    refused = isinstance(beyond.reply, Refusal)
    note = beyond.reply.code if isinstance(beyond.reply, Refusal) else ""
    return Check("ledger, budget", claim, float(refused), 1.0, None, passed=refused, note=note)
