"""Hospitals prepared once and found again: by what a scenario says of them, whatever is then trained on them.

<cache>/<name>-<digest>/<hospital>/          a site folder, as `simulations.prepare` makes it
<cache>/<name>-<digest>/done/<hospital>.json what became of its files; written when all else is there
<cache>/<name>-<digest>/incoming/            what is on its way in, identified; gone in the end, and at the next beginning

The digest covers patients, machines, labels, seed and input, and the code that makes and takes in images; of the plan nothing else. Each
hospital is one piece of work for one process: imaged, taken in, preprocessed, marked. What was killed goes on with
those that are not marked. A run dresses itself (`dressed`): the same images and arrays under an index and scores of its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import tomli_w
from pydantic import TypeAdapter

import client
import simulations
from client.files import storage_error
from client.intake.report import IngestReport
from common.checkpoints import write_whole
from common.errors import FederationError
from common.locks import taken
from common.plan import Input
from simulations.crew import Crew
from simulations.hospitals import HospitalSpec, default_federation, write_hospital
from simulations.prepare import Arrival, Federation, take_in
from simulations.scenario import Scenario
from simulations.sites import virtual_sites

_BAR: Final = "image, take in and preprocess"
_DONE: Final = "done"
_LABELS: Final = "labels.csv"
_MAKES: Final = (
    (client, ("deid", "intake", "preprocess", "index*.py", "quality*.py", "store.py")),
    (simulations, ("phantoms", "scanners", "hospitals", "sites.py", "prepare.py")),
)
"""The code on which prepared hospitals depend."""


@dataclass(frozen=True)
class _Coming:
    """One hospital to be made: a piece of work."""

    folder: Path
    spec: HospitalSpec
    input: Input
    seed: int
    hospitals: int
    least_patients: int


def prepared(scenario: Scenario, cache: Path, hands: Crew) -> Federation:
    """The virtual hospitals of a scenario: found in the cache, or made there, those that are missing alone.

    Args:
        scenario: of kind `virtual`.
        cache: holds a folder per digest.
        hands: the workers; a hospital to each.

    Raises:
        FederationError: `out-busy`: another process prepares the same ones.
        ConsiliumError: as the client's own code raises it; what had been made stays and is found again.
    """
    setting = scenario.scenario
    specs = hospitals_of(scenario)
    folder = cache / f"{setting.name}-{digest_of(scenario)}"
    spec = scenario.plan_for(setting.arms[0]).input
    with _alone(folder):
        shutil.rmtree(folder / "incoming", ignore_errors=True)
        missing = [one for one in specs if not _mark(folder, one.name).is_file()]
        jobs = (
            partial(_make, _Coming(folder, one, spec, setting.seed, len(specs), setting.least_patients))
            for one in missing
        )
        for number, _ in enumerate(hands.do(jobs), start=1):
            hands.bars.tick(_BAR, len(specs) - len(missing) + number, len(specs))
        shutil.rmtree(folder / "incoming", ignore_errors=True)
    reports = {one.name: _report(folder, one.name) for one in sorted(specs, key=lambda one: one.name)}
    return Federation(folder, tuple(reports), setting.external, {one.name: one for one in specs}, reports)


def dressed(federation: Federation, folder: Path) -> Federation:
    """The same hospitals for one run: images and arrays shared, index, scores and models of its own.

    Args:
        federation: as `prepared` gives it.
        folder: receives a site folder per hospital; those that are there are left as they are.

    Raises:
        StorageError: the disk is full or refuses.
    """
    try:
        for name in federation.names:
            if not (folder / name / "site.toml").exists():
                _dress(federation.folder / name, folder / name, federation)
    except OSError as error:
        raise storage_error(error, "the virtual federation") from None
    return replace(federation, folder=folder)


def hospitals_of(scenario: Scenario) -> list[HospitalSpec]:
    """What a scenario says of its virtual hospitals."""
    setting = scenario.scenario
    if scenario.site:
        return virtual_sites(scenario.site, setting.seed)
    return default_federation(n_hospitals=setting.hospitals, n_patients=setting.patients)


def digest_of(scenario: Scenario) -> str:
    """A short name of everything that prepared hospitals depend on."""
    setting = scenario.scenario
    said = [
        [asdict(spec) for spec in hospitals_of(scenario)],
        setting.seed,
        setting.least_patients,
        asdict(scenario.plan_for(setting.arms[0]).input),
    ]
    state = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    for file in _code():
        state.update(file.read_bytes())
    return state.hexdigest()[:12]


def _code() -> Iterator[Path]:
    for package, parts in _MAKES:
        root = Path(package.__path__[0])
        for part in parts:
            for found in sorted(root.glob(part)):
                yield from (
                    [found]
                    if found.is_file()
                    else sorted(path for path in found.rglob("*") if path.suffix in (".py", ".toml"))
                )


def _make(coming: _Coming) -> None:
    """One hospital from nothing, or from what a killed process left of it."""
    folder, name = coming.folder, coming.spec.name
    export = folder / "incoming" / name
    shutil.rmtree(folder / name, ignore_errors=True)
    try:
        write_hospital(coming.spec, export, coming.seed, workers=1)
        arrival = Arrival(
            folder,
            name,
            export,
            export / _LABELS,
            coming.input,
            coming.seed,
            0.0,
            coming.hospitals,
            coming.least_patients,
        )
        _, report = take_in(arrival, 0)
    finally:
        shutil.rmtree(export, ignore_errors=True)
    write_whole(_mark(folder, name), json.dumps(asdict(report)).encode())


def _mark(folder: Path, name: str) -> Path:
    return folder / _DONE / f"{name}.json"


def _report(folder: Path, name: str) -> IngestReport:
    return TypeAdapter(IngestReport).validate_json(_mark(folder, name).read_bytes())


def _dress(base: Path, folder: Path, federation: Federation) -> None:
    site = federation.site(base.name)
    data = folder / "data"
    data.mkdir(parents=True)
    for shared in (site.dicom, site.store):
        if shared.exists():
            (data / shared.name).symlink_to(shared.resolve())
    for kind in ("", "-wal"):
        part = site.index.with_name(site.index.name + kind)
        if part.exists():
            shutil.copyfile(part, data / part.name)
    section = {"name": base.name, "simulated": True, "secrets": str(site.secrets.resolve())}
    policy = {"allow_non_private": True, "private_progress": True, "min_patients": site.policy.min_patients}
    (folder / "state").mkdir()
    text = tomli_w.dumps({"site": section, "policy": policy})
    write_whole(folder / "site.toml", text.encode())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else prepares here meanwhile."""
    try:
        (folder / _DONE).mkdir(parents=True, exist_ok=True)
        lock = taken(folder / "prepare.lock")
    except BlockingIOError:
        raise FederationError(
            "prepared hospitals", "another process prepares the same ones", "Wait for it", code="out-busy"
        ) from None
    except OSError as error:
        raise storage_error(error, "the folder of prepared hospitals") from None
    with lock:
        yield
