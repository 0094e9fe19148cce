"""From a scenario to hospitals that are ready to train: images on disk, taken in by the client's own code.

    <folder>/incoming/<hospital>/    identified images and labels.csv, as a PACS would export them
    <folder>/<hospital>/             a site folder: what the hospital made of them
    <folder>/arms/<arm>/<hospital>/  the same data under a fresh ledger and state, one per arm

Nothing after `incoming` knows that the hospital is virtual.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from client.intake.ingest import IngestReport, ingest
from client.policy import Policy
from client.privacy.ledger import Ledger
from client.site import Site, init_site, load_site
from client.store import build_store
from common.errors import IntakeError
from common.plan import dump_plan
from simulations.board import Board, board
from simulations.hospitals import HospitalSpec, default_federation, write_federation
from simulations.partition import natural_sites
from simulations.scenario import HERE, Scenario, load_scenario

_DEFAULT_PATIENTS = 200
"""Per hospital of `flwr run .`: enough that its test cells are not suppressed."""
VIRTUAL_POLICY = Policy(allow_non_private=True)
"""Virtual hospitals compare private with non-private training; a real one decides in its site.toml."""


@dataclass(frozen=True)
class Federation:
    """Hospitals whose images have been taken in."""

    folder: Path
    names: tuple[str, ...]
    external: tuple[str, ...]
    specs: dict[str, HospitalSpec]
    """How virtual hospitals were made; empty for real images."""
    reports: dict[str, IngestReport]

    def site(self, name: str) -> Site:
        """One hospital as it was prepared."""
        return load_site(self.folder / name)

    @property
    def training(self) -> tuple[str, ...]:
        """The hospitals that train."""
        return tuple(name for name in self.names if name not in self.external)


def prepare(scenario: Scenario, folder: Path, bars: Board, data: Path | None = None) -> Federation:
    """Make or find the images, take them in at every hospital, preprocess them once.

    Args:
        scenario: what to make.
        folder: where the federation goes; must not hold one yet.
        bars: progress.
        data: the folder of real images, for scenarios of kind `images`.

    Raises:
        ConsiliumError: of intake, labels, data or storage, as the client's own code raises them.
    """
    setting = scenario.scenario
    if setting.kind == "virtual":
        specs = default_federation(n_hospitals=setting.hospitals, n_patients=setting.patients)
        sources = _virtual(specs, folder, setting.seed, bars)
    else:
        specs, sources = [], _real(scenario, folder, data)
    reports = {name: _take_in(folder, name, source, setting.seed, bars) for name, *source in sources}
    specs_by_name = {spec.name: spec for spec in specs}
    federation = Federation(folder, tuple(sorted(reports)), setting.external, specs_by_name, reports)
    plan = scenario.plan_for(setting.arms[0])
    for name in federation.names:
        build_store(federation.site(name), plan.input, progress=_bar(bars, f"preprocess {name}"))
    shutil.rmtree(folder / "incoming", ignore_errors=True)
    return federation


def arm_site(federation: Federation, arm: str, name: str) -> Site:
    """The same hospital for one arm: its data, a fresh ledger, a fresh audit log."""
    folder = federation.folder / "arms" / arm / name
    if not (folder / "site.toml").exists():
        folder.mkdir(parents=True)
        base = federation.site(name)
        settings = {
            "site": {
                "name": name,
                "simulated": True,
                "data": str(base.data.resolve()),
                "secrets": str((base.folder / "secrets").resolve()),
                "patients_bucket": base.patients_bucket,
            },
            "policy": {"allow_non_private": True},
        }
        (folder / "site.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
        (folder / "state").mkdir()
        Ledger.create(folder / "state" / "ledger.sqlite", simulated=True).close()
    return load_site(folder)


def prepare_default(num_sites: int) -> tuple[Path, Path]:
    """A small virtual federation for `flwr run .`: made once in the user's cache, then reused.

    Returns:
        The federation folder with one site folder per hospital, and the path of its plan.toml.
    """
    folder = Path.home() / ".cache" / "consilium" / f"virtual-{num_sites}"
    plan_path = folder / "plan.toml"
    if not plan_path.exists():
        shutil.rmtree(folder, ignore_errors=True)
        scenario = load_scenario(HERE / "demo.toml", hospitals=num_sites, patients=_DEFAULT_PATIENTS * num_sites)
        with board() as bars:
            federation = prepare(scenario, folder, bars)
        for name in federation.names:
            site = federation.site(name)
            Ledger.create(site.ledger, simulated=True).close()
        plan_path.write_text(dump_plan(scenario.plan_for("federated")), encoding="utf-8")
    return folder, plan_path


def _virtual(specs: list[HospitalSpec], folder: Path, seed: int, bars: Board) -> list[tuple[str, Path, Path]]:
    hospitals = [(spec, folder / "incoming" / spec.name) for spec in specs]
    write_federation(hospitals, seed, progress=_bar(bars, "image the virtual patients"))
    return [(spec.name, incoming, incoming / "labels.csv") for spec, incoming in hospitals]


def _real(scenario: Scenario, folder: Path, data: Path | None) -> list[tuple[str, Path, Path]]:
    setting = scenario.scenario
    plan = scenario.plan_for(setting.arms[0])
    if data is None or not (data / setting.table).is_file():
        raise IntakeError(
            "--data", f"this scenario needs a folder that holds {setting.table}", "Give it with --data DIR"
        )
    tables = natural_sites(
        data / setting.table,
        folder / "incoming",
        setting.seed,
        plan.data.test_fraction,
        plan.data.validation_fraction,
        setting.external,
    )
    return [(name, _export(data, table), table) for name, table in sorted(tables.items())]


def _export(data: Path, table: Path) -> Path:
    """One hospital's images in a folder of their own, as it would export them."""
    place = table.with_suffix("")
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            target = place / row["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data / row["path"], target)
    return place


def _take_in(folder: Path, name: str, source: list[Path], seed: int, bars: Board) -> IngestReport:
    site = init_site(folder / name, name, simulation_seed=seed, policy=VIRTUAL_POLICY)
    incoming, labels = source
    return ingest(site, incoming, labels, progress=_bar(bars, f"take in {name}"))


def _bar(bars: Board, label: str) -> Callable[[int, int], None]:
    return lambda done, total: bars.tick(label, done, total)
