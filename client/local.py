"""A hospital trains alone: the rounds of a plan without a federation.

The rounds are done by the same duties as in a federation, so policy, ledger and training are the same
code; only the averaging is missing. Nothing leaves: model and metrics stay in `out`, and the scores in
the site's own data, where a later federation is compared with them on the same patients.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from client import policy
from client.service import Duties
from client.site import Site
from common.audit import AuditLog
from common.cli import plain
from common.code import code_digest
from common.errors import StorageError
from common.messages import Estimate, Instruction, Kind, SiteMetrics
from common.plan import Plan, dump_plan
from common.types import Arrays, RunId

if TYPE_CHECKING:
    from common.models import Network

_MIDDLE: Final = 0.5
"""The operating point where validation patients name none."""


@dataclass(frozen=True)
class AloneResult:
    """What came of it, in the hospital's own exact figures."""

    run: str
    rounds: int
    model: Path
    metrics: Path
    report: Path
    """The hospital's own report: its cases, where the model looked, its intake and quality."""
    auroc: Estimate | None
    """Of all test patients; None for several classes or where a class is missing."""
    epsilon: float | None
    """Of this run, for the patient who spent most on it; None without a private plan."""


def train_alone(
    site: Site,
    plan: Plan,
    out: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    duties: Duties | None = None,
) -> AloneResult:
    """Train `plan` on this hospital's patients only and write model and metrics to `out`.

    Args:
        site: the hospital.
        plan: the study plan; its `federation.rounds` is the number of rounds.
        out: folder for model, metrics and report, made when it is not there.
        progress: called with (rounds done, rounds in all).
        duties: who does the work; the imaging duties of this site when not given.

    Raises:
        PolicyRefused: what the site's policy forbids. DataError: patients that do not allow it.
        PrivacyRefused: the budget or the ledger says no. StorageError: `out` cannot be written.
    """
    policy.check(site.policy, plan)
    _make(out)
    ask = _Asking(plan, RunId(f"alone-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"))
    work = duties or _imaging(site)
    log = AuditLog(site.audit)
    log.append("local.begin", run=ask.run, plan=plan.digest, rounds=plan.federation.rounds)
    arrays, epsilon = _first(plan), None
    for number in range(1, plan.federation.rounds + 1):
        update = work.train(ask.for_(Kind.TRAIN, number, arrays), plan)
        arrays = {name: array + update.arrays[name] for name, array in arrays.items()}
        epsilon = update.epsilon
        if progress:
            progress(number, plan.federation.rounds)
    arrays = _settled(site, plan, arrays)
    metrics = replace(_measure(site, work, ask, arrays), epsilon=epsilon)
    log.append("local.end", run=ask.run, rounds=plan.federation.rounds)
    _report(site, ask, arrays, metrics.threshold, out / "report.html")
    return _write(ask, arrays, metrics, out)


@dataclass(frozen=True)
class _Asking:
    """The server's part of the conversation, spoken by the hospital to itself."""

    plan: Plan
    run: RunId

    def for_(self, kind: Kind, number: int, arrays: Arrays, threshold: float | None = None) -> Instruction:
        text, digest = dump_plan(self.plan), self.plan.digest
        return Instruction(kind, self.run, number, text, digest, code_digest(), arrays, threshold)


def _settled(site: Site, plan: Plan, arrays: Arrays) -> Arrays:
    """The last epochs a federated model gets at a hospital, so that alone is not merely trained less.

    Not under a private plan: they add no noise, and the ledger has not been asked for them.
    """
    if plan.private or plan.personalisation.method != "finetune":
        return arrays
    from client.dataset import load_dataset  # noqa: PLC0415 - torch, paid for by training only
    from client.finetune import finetune  # noqa: PLC0415
    from common.models import get_arrays  # noqa: PLC0415

    data, net = load_dataset(site, plan), _network(plan, arrays)
    finetune(net, data.train, data.validation, plan)
    return get_arrays(net)


def _measure(site: Site, work: Duties, ask: _Asking, arrays: Arrays) -> SiteMetrics:
    """The hospital's own figures of its test patients: nothing leaves, so nothing is suppressed."""
    from client import scores  # noqa: PLC0415 - torch, paid for by training only
    from client.dataset import load_dataset  # noqa: PLC0415
    from client.evaluation import measure, predict  # noqa: PLC0415

    plan, last = ask.plan, ask.plan.federation.rounds
    found = work.threshold(ask.for_(Kind.THRESHOLD, last, arrays), plan)
    at = _MIDDLE if found.threshold is None else found.threshold
    tested = predict(_network(plan, arrays), load_dataset(site, plan).test)
    scores.save(site, f"{scores.ALONE}-dp" if plan.private else scores.ALONE, tested)
    return replace(found, models=(measure(tested, plan, at, 1, scores.ALONE),), threshold=at)


def _network(plan: Plan, arrays: Arrays | None = None) -> Network:
    from common.models import build, set_arrays  # noqa: PLC0415 - torch, paid for by training only

    rows, columns = plan.input.shape[-2:]
    net = build(plan.model, plan.task.outputs, (rows, columns))
    if arrays is not None:
        set_arrays(net, arrays)
    return net


def _first(plan: Plan) -> Arrays:
    from common.models import get_arrays  # noqa: PLC0415 - torch, paid for by training only

    return get_arrays(_network(plan))


def _imaging(site: Site) -> Duties:
    from client.duties import ImagingDuties  # noqa: PLC0415 - torch, paid for by training only

    return ImagingDuties(site, alone=True)


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError:
        raise StorageError(
            "the output folder", "it cannot be made", "Check rights and free space, or choose another"
        ) from None


def _report(site: Site, ask: _Asking, arrays: Arrays, threshold: float | None, path: Path) -> None:
    from client.report import build, write_site_report  # noqa: PLC0415 - torch, paid for by training only
    from client.report.compose import Shown  # noqa: PLC0415

    shown = Shown("alone", threshold)
    write_site_report(build(site, ask.plan, _network(ask.plan, arrays), shown), path)


def _write(ask: _Asking, arrays: Arrays, metrics: SiteMetrics, out: Path) -> AloneResult:
    from common.checkpoints import Checkpoint, save, write_whole  # noqa: PLC0415 - numpy and safetensors
    from common.models import architecture_digest  # noqa: PLC0415 - torch

    plan, rounds = ask.plan, ask.plan.federation.rounds
    model, figures, report = out / "model.safetensors", out / "metrics.json", out / "report.html"
    save(Checkpoint(ask.run, rounds, plan.digest, architecture_digest(_network(plan)), arrays), model)
    write_whole(figures, json.dumps(plain(metrics), indent=1, sort_keys=True).encode())
    write_whole(out / "plan.toml", dump_plan(plan).encode())
    groups = metrics.models[0].groups if metrics.models else ()
    auroc = next((group.auroc for group in groups if group.group == "all"), None)
    return AloneResult(ask.run, rounds, model, figures, report, auroc, metrics.epsilon)
