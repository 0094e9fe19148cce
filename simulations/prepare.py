"""From a scenario to hospitals that are ready to train: images on disk, taken in by the client's own code.

    <folder>/incoming/<hospital>/    identified images and labels.csv, as a PACS would export them
    <folder>/<hospital>/             a site folder: what the hospital made of them
    <folder>/arms/<arm>/<hospital>/  the same data under a fresh ledger and state, one per arm

Nothing after `incoming` knows that the hospital is virtual. `incoming` is identified, and gone in the end.
"""

from __future__ import annotations

import csv
import math
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import tomli_w

from client.deid.settings import OwnMaker
from client.files import storage_error
from client.intake.ingest import IngestReport, ingest
from client.policy import Policy
from client.privacy.ledger import Ledger
from client.site import Site, init_site, load_site
from client.store import build_store
from common.code import code_digest
from common.errors import IntakeError
from common.plan import Input, dump_plan
from simulations.board import board
from simulations.crew import Crew, crew, say
from simulations.hospitals import HospitalSpec, default_federation, write_federation
from simulations.hospitals.machines import makers
from simulations.mistakes import at_hospital
from simulations.partition import Splits, cut_table
from simulations.scenario import HERE, Scenario, load_scenario
from simulations.sites import virtual_sites

_IMAGE: Final = "image the virtual patients"
_TAKE_IN: Final = "take in and de-identify"
_PREPROCESS: Final = "preprocess"
_DEFAULT_PATIENTS: Final = 200
"""Per hospital of `flwr run .`: enough that its test cells are not suppressed."""
VIRTUAL_POLICY = Policy(allow_non_private=True, private_progress=True)
"""Virtual hospitals compare private with non-private training; a real one decides in its site.toml."""
VIRTUAL_MACHINES: Final = tuple(OwnMaker(name, models) for name, models in makers().items())
"""Virtual hospitals list their virtual scanners, as a real one lists what the release does not know."""


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


@dataclass(frozen=True)
class Arrival:
    """One hospital's export on its way in: a piece of work."""

    folder: Path
    name: str
    export: Path
    labels: Path
    input: Input
    seed: int
    share: float
    """Of all files of the federation; a hospital that has most of them gets most of the workers."""
    hospitals: int
    least_patients: int


@contextmanager
def passing(folder: Path) -> Iterator[None]:
    """What a PACS would export into `folder/incoming` is identified; after this block it is gone, come what may.

    To be opened around the crew: a worker that still writes would leave something behind.
    """
    try:
        yield
    finally:
        shutil.rmtree(folder / "incoming", ignore_errors=True)


def prepare(scenario: Scenario, folder: Path, hands: Crew, data: Path | None = None) -> Federation:
    """Make or find the images, take them in at every hospital, preprocess them once.

    Args:
        scenario: what to make.
        folder: where the federation goes; must not hold one yet.
        hands: the workers; hospitals are taken in side by side.
        data: the folder of real images, for scenarios of kind `images`.

    Raises:
        ConsiliumError: of intake, labels, data or storage, as the client's own code raises them.
    """
    setting = scenario.scenario
    if setting.kind == "virtual":
        specs = (
            virtual_sites(scenario.site, setting.seed)
            if scenario.site
            else default_federation(n_hospitals=setting.hospitals, n_patients=setting.patients)
        )
        sources = _virtual(specs, folder, setting.seed, hands)
    else:
        specs, sources = [], _real(scenario, folder, data)
    arrivals = _arrivals(scenario, folder, sources)
    jobs = (partial(take_in, arrival, math.ceil(hands.size * arrival.share)) for arrival in arrivals)
    reports = dict(sorted(hands.do(jobs)))
    shutil.rmtree(folder / "incoming", ignore_errors=True)
    return Federation(folder, tuple(reports), setting.external, {spec.name: spec for spec in specs}, reports)


def arm_site(federation: Federation, arm: str, name: str, *, private: bool | None = None) -> Site:
    """The same hospital for one arm: its data, a fresh ledger, a fresh audit log.

    In a private arm it is as strict as a real one: nothing leaves without noise but suppressed figures.

    Args:
        federation: the hospitals as they were prepared.
        arm: its name.
        name: the hospital's.
        private: whether the arm is; by default `federated-dp` is. Where this is said, there may be many arms
            at once, so the hospital keeps the models and scores of each apart.
    """
    folder = federation.folder / "arms" / arm / name
    if not (folder / "site.toml").exists():
        folder.mkdir(parents=True)
        base = federation.site(name)
        data = base.data.resolve() if private is None else _images_of(base, folder / "data")
        settings = {
            "site": {
                "name": name,
                "simulated": True,
                "data": str(data.resolve()),
                "secrets": str(base.secrets.resolve()),
                "patients_bucket": base.patients_bucket,
            },
            "policy": {
                "allow_non_private": not (arm == "federated-dp" if private is None else private),
                "private_progress": True,  # a simulation shows its learning curves
                "analytics": "cells",
                "min_patients": base.policy.min_patients,
            },
        }
        (folder / "site.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
        (folder / "state").mkdir()
        Ledger.create(folder / "state" / "ledger.sqlite", simulated=True).close()
    return load_site(folder)


def _images_of(base: Site, data: Path) -> Path:
    """A data folder of its own with the images, rows and prepared arrays of another."""
    data.mkdir()
    for shared in (base.dicom, base.index, base.store):
        if shared.exists():
            (data / shared.name).symlink_to(shared.resolve())
    return data


def prepare_default(num_sites: int, cache: Path | None = None) -> tuple[Path, Path]:
    """A small virtual federation for `flwr run .`.

    Images are made and taken in once per release and kept in the user's cache; every run gets fresh
    sites with fresh ledgers on top of them (law 2).

    Args:
        num_sites: how many virtual hospitals.
        cache: where images are kept; `~/.cache/consilium` when not given.

    Returns:
        The federation folder of this run, with one site folder per hospital, and its plan.toml.
    """
    place = cache or Path.home() / ".cache" / "consilium"
    folder = place / f"virtual-{num_sites}-{code_digest().removeprefix('sha256:')[:12]}"
    scenario = load_scenario(HERE / "demo.toml", hospitals=num_sites, patients=_DEFAULT_PATIENTS * num_sites)
    plan = scenario.plan_for("federated")
    if not (folder / "plan.toml").exists():
        shutil.rmtree(folder, ignore_errors=True)
        with passing(folder), board() as bars, crew(bars) as hands:
            prepare(scenario, folder, hands)
        (folder / "plan.toml").write_text(dump_plan(plan), encoding="utf-8")
    names = tuple(sorted(path.parent.name for path in folder.glob("*/site.toml")))
    run = f"flwr-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    for name in names:
        arm_site(Federation(folder, names, (), {}, {}), run, name)
    return folder / "arms" / run, folder / "plan.toml"


def _virtual(specs: list[HospitalSpec], folder: Path, seed: int, hands: Crew) -> list[tuple[str, Path, Path]]:
    hospitals = [(spec, folder / "incoming" / spec.name) for spec in specs]
    write_federation(hospitals, seed, progress=partial(hands.bars.tick, _IMAGE), pool=hands.pool)
    return [(spec.name, incoming, incoming / "labels.csv") for spec, incoming in hospitals]


def given(scenario: Scenario, data: Path | None) -> Path:
    """The folder of real images.

    Raises:
        IntakeError: there is none, or it lacks the scenario's table.
    """
    table = scenario.scenario.table
    if data is None:
        raise IntakeError(
            scenario.scenario.name,
            f"it needs a folder of images that holds {table}",
            "Give it with --data DIR",
        )
    if not (data / table).is_file():
        rule = f"there is no {table} in it" if data.is_dir() else "there is no such folder"
        raise IntakeError(f"--data {data}", rule, f"Give the folder that holds {table} and the images")
    return data


def _real(scenario: Scenario, folder: Path, data: Path | None) -> list[tuple[str, Path, Path]]:
    setting = scenario.scenario
    plan, data = scenario.plan_for(setting.arms[0]), given(scenario, data)
    splits = Splits(
        setting.seed, plan.data.test_fraction, plan.data.validation_fraction, tuple(setting.external)
    )
    tables = cut_table(data / setting.table, folder / "incoming", setting.cut, splits)
    return [(name, _export(data, table), table) for name, table in sorted(tables.items())]


def _export(data: Path, table: Path) -> Path:
    """One hospital's images in a folder of their own, as it would export them.

    An image that the table names and the folder lacks is left to the hospital's intake to notice.
    """
    place = table.with_suffix("")
    place.mkdir()
    with table.open(newline="", encoding="utf-8") as file:
        names = [row["path"] for row in csv.DictReader(file)]
    for name in names:
        source, target = data / name, place / name
        if not source.resolve().is_relative_to(data.resolve()):
            raise IntakeError(
                table.stem, "its table names a file outside the data folder", "Correct the table"
            )
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(source, target)
    return place


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise storage_error(error, "the virtual federation") from None


def _arrivals(scenario: Scenario, folder: Path, sources: list[tuple[str, Path, Path]]) -> list[Arrival]:
    """The hospitals in the order of their size, so that the largest is not the last to begin."""
    setting = scenario.scenario
    spec = scenario.plan_for(setting.arms[0]).input
    files = {name: sum(path.is_file() for path in export.rglob("*")) for name, export, _ in sources}
    total = max(1, sum(files.values()))
    arrivals = [
        Arrival(
            folder,
            name,
            export,
            labels,
            spec,
            setting.seed,
            files[name] / total,
            len(sources),
            setting.least_patients,
        )
        for name, export, labels in sources
    ]
    return sorted(arrivals, key=lambda arrival: -arrival.share)


def take_in(arrival: Arrival, workers: int) -> tuple[str, IngestReport]:
    """Make one hospital out of what it was sent.

    Args:
        arrival: what and where.
        workers: processes that read its files; 0: this one.

    Returns:
        Its name and what became of the files.

    Raises:
        ConsiliumError: as the client's own code raises it.
    """
    name, parts = arrival.name, arrival.hospitals
    seed = arrival.seed
    policy = replace(VIRTUAL_POLICY, min_patients=arrival.least_patients)
    site = init_site(
        arrival.folder / name, name, simulation_seed=seed, policy=policy, makers=VIRTUAL_MACHINES
    )
    told = partial(say, _TAKE_IN, part=name, parts=parts)
    with at_hospital(name):
        report = ingest(site, arrival.export, arrival.labels, workers=workers, progress=told)
        told = partial(say, _PREPROCESS, part=name, parts=parts)
        build_store(site, arrival.input, told, workers=max(1, workers))
    return name, report
