"""Flat against adaptive clipping on the same hospitals, at the same epsilon, from good and bad starts of C.

<out>/clipping.json     every run: how it clipped, where C began, its AUROC, what it spent
<out>/clipping.png      mean AUROC over the C that the plan began with

The plan's learning rate stays what it is. A flat C that is far too small takes steps that are too small, one
that is far too large adds noise that is too large; an adaptive one begins there and leaves.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from rich.table import Table

from client.files import storage_error
from client.service import SiteService
from common.checkpoints import write_whole
from common.cli import grid
from common.code import code_digest
from common.plan import Plan
from server.records import FederationRecord
from server.reports.select import group_of
from simulations.board import board
from simulations.crew import crew, say
from simulations.grid import run_in_process
from simulations.prepare import Federation, arm_site, passing, prepare
from simulations.scenario import Scenario

Kind = Literal["flat", "adaptive"]
KINDS: Final[tuple[Kind, ...]] = ("flat", "adaptive")
SCHEMA: Final = "consilium/clipping/1"
_LOOKS: Final[dict[Kind, tuple[str, str]]] = {"flat": ("#d55e00", "o"), "adaptive": ("#0072b2", "s")}


@dataclass(frozen=True)
class ClipRun:
    """One private training."""

    clipping: Kind
    clip: float
    """C, as the plan gives it: where an adaptive one begins."""
    repeat: int
    aurocs: dict[str, float | None]
    """Of each hospital's own test patients; None where a cell was held back."""
    mean: float | None
    """Over hospitals, each counting the same."""
    spent: float
    """Epsilon of the patient who spent most."""


@dataclass(frozen=True)
class ClippingRecord:
    """All of them: the only source of figure and table."""

    scenario: str
    seed: int
    epsilon: float
    rounds: int
    patients: int
    code_digest: str
    runs: tuple[ClipRun, ...]
    schema: str = SCHEMA

    def means(self, clipping: Kind, clip: float) -> list[float]:
        """Mean AUROC of each repeat of one setting."""
        wanted = [r.mean for r in self.runs if (r.clipping, r.clip) == (clipping, clip)]
        return [value for value in wanted if value is not None]

    @property
    def clips(self) -> list[float]:
        """Every start, rising."""
        return sorted({run.clip for run in self.runs})


@dataclass(frozen=True)
class Job:
    """One training to be done."""

    clipping: Kind
    clip: float
    repeat: int
    plan: Plan
    federation: Federation
    folder: Path


def compare_clipping(
    scenario: Scenario, clips: Sequence[float], repeats: int, out: Path, data: Path | None = None
) -> ClippingRecord:
    """Train every start with either clipping, `repeats` times with fresh noise, and write record and figure.

    Args:
        scenario: with a private arm; its hospitals, network and epsilon are used.
        clips: starts of C.
        repeats: of each setting.
        out: receives record and figure; virtual hospitals are made in it, and removed.
        data: the folder of real images, where the scenario needs one.

    Raises:
        ConsiliumError: what ended it.
    """
    plans_of(scenario, clips)  # what is wrong with one of them is said before an hour of work, not after
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, "the folder for the figures") from None
    place = out / "federation"
    with passing(place), board() as bars, crew(bars) as hands:
        federation = prepare(scenario, place, hands, data)
        jobs = jobs_of(scenario, clips, repeats, federation, out)
        runs = []
        for number, found in enumerate(hands.do(partial(train_one, job) for job in jobs), start=1):
            bars.tick("settings", number, len(jobs))
            runs.append(found)
    shutil.rmtree(place, ignore_errors=True)
    return write(scenario, runs, out)


def plans_of(scenario: Scenario, clips: Sequence[float]) -> dict[tuple[Kind, float], Plan]:
    """The plan of each setting; raises `PlanError` with every mistake."""
    return {
        (kind, clip): scenario.plan_with(
            "federated-dp", ({"privacy": {"clipping": kind, "clip": clip}},), f"{kind}, C = {clip:g}"
        )
        for kind in KINDS
        for clip in clips
    }


def jobs_of(
    scenario: Scenario, clips: Sequence[float], repeats: int, federation: Federation, out: Path
) -> list[Job]:
    """Every training, one repeat of all settings after the other."""
    plans = plans_of(scenario, clips).items()
    return [
        Job(*setting, repeat, plan, federation, out) for repeat in range(repeats) for setting, plan in plans
    ]


def write(scenario: Scenario, runs: Sequence[ClipRun], out: Path) -> ClippingRecord:
    """Record and figure of what was trained; raises StorageError when they cannot be written."""
    record = _record(scenario, runs)
    write_whole(out / "clipping.json", json.dumps(asdict(record), indent=1, sort_keys=True).encode())
    draw(record, out / "clipping.png")
    return record


def table(record: ClippingRecord) -> Table:
    """One row a start of C."""
    title = f"Mean AUROC at ε = {record.epsilon:g}, {record.rounds} rounds: least, mean and largest of the repeats"
    rows = ((f"{clip:g}", *(_spread(record.means(kind, clip)) for kind in KINDS)) for clip in record.clips)
    return grid(title, ("C at the start", "flat", "adaptive"), rows)


def draw(record: ClippingRecord, path: Path) -> None:
    """The figure: one line a kind, every repeat as a dot."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(6.4, 3.6), dpi=120)
    for kind in KINDS:
        colour, marker = _LOOKS[kind]
        values = {clip: of for clip in record.clips if (of := record.means(kind, clip))}
        middle = [sum(of) / len(of) for of in values.values()]
        axes.plot(list(values), middle, color=colour, marker=marker, label=kind)
        dots = [(clip, value) for clip, of in values.items() for value in of]
        axes.scatter([c for c, _ in dots], [v for _, v in dots], s=8, color=colour, alpha=0.5)
    if any(record.means(kind, clip) for kind in KINDS for clip in record.clips):
        axes.set_xscale("log")
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "Nothing was released.", ha="center", transform=axes.transAxes)
    axes.set(xlabel="C at the start", ylabel="mean AUROC over hospitals")
    axes.set_title(f"Flat and adaptive clipping at ε = {record.epsilon:g}", fontsize=10)
    axes.grid(color="#e6eaef")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def train_one(job: Job) -> ClipRun:
    """One training on fresh virtual sites with fresh ledgers.

    Raises:
        ConsiliumError: what ended it.
    """
    name = f"{job.clipping}-{job.clip:g}-{job.repeat}"
    sites = [arm_site(job.federation, name, hospital, private=True) for hospital in job.federation.names]
    say("trainings begun", 1, 1, part=name)
    left = job.folder / "runs" / name
    found = run_in_process([SiteService(site) for site in sites], job.plan, left)
    shutil.rmtree(left, ignore_errors=True)
    shutil.rmtree(job.federation.folder / "arms" / name, ignore_errors=True)
    return _measured(job, found)


def _measured(job: Job, found: FederationRecord) -> ClipRun:
    groups = {name: group_of(s.models[0]) if s.models else None for name, s in sorted(found.sites.items())}
    aurocs = {name: g.auroc.value if g and g.auroc else None for name, g in groups.items()}
    known = [value for value in aurocs.values() if value is not None]
    spent = max((site.epsilon for site in found.sites.values() if site.epsilon is not None), default=0.0)
    mean = sum(known) / len(known) if known else None
    return ClipRun(job.clipping, job.clip, job.repeat, aurocs, mean, spent)


def _record(scenario: Scenario, runs: Sequence[ClipRun]) -> ClippingRecord:
    plan = scenario.plan_for("federated-dp")
    order = sorted(runs, key=lambda run: (run.clipping, run.clip, run.repeat))
    return ClippingRecord(
        scenario=scenario.scenario.name,
        seed=scenario.scenario.seed,
        epsilon=plan.privacy.epsilon,
        rounds=plan.federation.rounds,
        patients=scenario.scenario.patients,
        code_digest=code_digest(),
        runs=tuple(order),
    )


def _spread(values: list[float]) -> str:
    if not values:
        return "held back"
    return f"{min(values):.3f}  {sum(values) / len(values):.3f}  {max(values):.3f}"
