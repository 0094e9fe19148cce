"""Virtual patients rendered once, each on every machine, from whom many small federations are dealt.

Rendering costs a hundred times as much as dealing, so trials over hundreds of seeds share a bank: hospitals, machines, splits and models are drawn
anew with every seed, bodies are drawn from the bank without replacement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from common.errors import DataError
from common.plan import Input
from simulations.hospitals import HospitalSpec
from simulations.hospitals.population import draw
from simulations.probes.cohort import Guest, exposed
from simulations.probes.contract import Names, Truth
from simulations.scanners import SCANNERS

SIDE: Final = 32
MACHINES: Final = tuple(SCANNERS)
ILL: Final = 0.45
"""Share of ill patients in a bank: what the shipped scenarios need at most."""
_INPUT: Final = Input(modalities=("DX", "CR"), shape=(64, 64), normalisation="zscore")


@dataclass(frozen=True, eq=False)
class Bank:
    """Bodies on machines."""

    images: npt.NDArray[np.float16]
    """[patients, machines, 32, 32], mean 0 and standard deviation 1."""
    truth: Truth
    female: Truth


@dataclass(frozen=True)
class Dealt:
    """A small federation: patients of the bank with the hospital and machine they were dealt to."""

    body: npt.NDArray[np.int64]
    machine: npt.NDArray[np.int64]
    sites: Names
    train: Truth
    """[patients] half of each hospital; the others are tested."""


def make(patients: int, seed: int, progress: Callable[[int, int], None] = lambda _done, _all: None) -> Bank:
    """Render a bank.

    Args:
        patients: how many, 45% of them ill, half of them women.
        seed: the same seed makes the same bank.
        progress: told (done, all).
    """
    torch.set_num_threads(1)
    truth = np.arange(patients) < round(ILL * patients)
    female = np.arange(patients) % 2 == 0
    images = np.empty((patients, len(MACHINES), SIDE, SIDE), dtype=np.float16)
    for number in range(patients):
        guest = Guest(
            number, "", bool(truth[number]), "AP" if number % 3 == 0 else "PA", MACHINES[0],
            "F" if female[number] else "M",
        )  # fmt: skip
        large = torch.from_numpy(exposed(guest, MACHINES, seed, _INPUT).images)
        images[number] = torch.nn.functional.avg_pool2d(large[:, None], 64 // SIDE)[:, 0].numpy()
        progress(number + 1, patients)
    return Bank(images, truth, female)


def kept(path: Path, patients: int, seed: int, progress: Callable[[int, int], None]) -> Bank:
    """The bank of a file, made and written where there is none for so many patients and this seed."""
    if path.is_file():
        with np.load(path, allow_pickle=False) as file:
            if int(file["seed"]) == seed and len(file["truth"]) == patients:
                return Bank(**{one.name: file[one.name] for one in fields(Bank)})
    bank = make(patients, seed, progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".part").open("wb") as file:
        np.savez(file, seed=seed, **{one.name: getattr(bank, one.name) for one in fields(Bank)})
    path.with_suffix(".part").replace(path)
    return bank


def deal(bank: Bank, specs: list[HospitalSpec], patients: int, rng: np.random.Generator) -> Dealt:
    """Draw a population for every hospital and give each of its patients a body of their truth and sex.

    Args:
        bank: with bodies enough.
        specs: hospitals with populations, as `[[site]]` of a scenario describes them.
        patients: of each hospital.
        rng: of everything.

    Raises:
        DataError: the bank has too few ill, or healthy, men or women.
    """
    free = {
        (ill, woman): list(rng.permutation(np.flatnonzero((bank.truth == ill) & (bank.female == woman))))
        for ill in (False, True)
        for woman in (False, True)
    }
    body, machine, sites, train = [], [], [], []
    for spec in specs:
        if spec.population is None:
            raise DataError(spec.name, "it has no population of its own", "Use a scenario with [[site]]")
        for one in draw(spec.population, patients, rng):
            shelf = free[one.positive, one.sex == "F"]
            if not shelf:
                raise DataError("bank of patients", "there are too few for such a federation", "Make more")
            body.append(shelf.pop())
            machine.append(MACHINES.index(one.scanner))
        sites += [spec.name] * patients
        train.append(rng.permutation(patients) < patients // 2)
    return Dealt(np.array(body), np.array(machine), np.array(sites), np.concatenate(train))
